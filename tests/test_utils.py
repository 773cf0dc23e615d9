"""utils.py: the original's small helpers under their old names, by values worked out by hand."""
import pytest
import torch

import utils
from options import PROJECT
from runtime import downloads
from runtime.errors import DataError


def test_readlines_returns_lines_without_their_ends(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a 1 l\r\nb 2 r\n\nlast")
    assert utils.readlines(tmp_path / "list.txt") == ["a 1 l", "b 2 r", "", "last"]


def test_normalize_image_stretches_to_0_1_and_maps_a_constant_to_0():
    assert utils.normalize_image(torch.tensor([2.0, 3, 4])).tolist() == [0, 0.5, 1]
    assert utils.normalize_image(torch.full((3,), 7.0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("seconds", "parts", "text"), [
    (10239, (2, 50, 39), "02h50m39s"), (59.9, (0, 0, 59), "00h00m59s"),
    (360_000, (100, 0, 0), "100h00m00s")])
def test_seconds_become_hours_minutes_and_seconds(seconds, parts, text):
    assert utils.sec_to_hm(seconds) == parts
    assert utils.sec_to_hm_str(seconds) == text


def test_a_split_list_is_read_as_a_line_for_each_frame(tmp_path):
    # the loops of code written for Monodepth2 count and split these lines
    lines = utils.readlines(PROJECT / "splits/eigen_zhou/train_files.txt")
    assert len(lines) == 39_810
    assert {len(line.split()) for line in lines} == {3}
    (tmp_path / "test_files_09.txt").write_text("9 0 l\n9 1 l\n")
    (tmp_path / "notes.txt").write_text("# a: 1-5\n\nb: 2\n")
    assert utils.readlines(tmp_path / "test_files_09.txt") == ["9 0 l", "9 1 l"]
    assert utils.readlines(tmp_path / "notes.txt") == ["# a: 1-5", "", "b: 2"]


def test_a_published_model_that_exists_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "MODELS_DIR", tmp_path)
    monkeypatch.setattr(downloads, "PAUSE", 0)
    monkeypatch.setattr(downloads, "MODELS_URL", "https://127.0.0.1:9")  # nothing listens there
    (tmp_path / "mono_640x192").mkdir()
    (tmp_path / "mono_640x192/encoder.pth").touch()
    assert utils.download_model_if_doesnt_exist("mono_640x192") == tmp_path / "mono_640x192"
    with pytest.raises(DataError, match=r"stereo_640x192\.zip cannot be downloaded"):
        utils.download_model_if_doesnt_exist("stereo_640x192")

"""utils.py: one-line errors, atomic writing, pictures, downloads from a server on loopback."""
import hashlib
import http.server
import io
import stat
import threading
import zipfile

import numpy as np
import pytest
import torch

import utils
from utils import DataError

NAME = "mono_640x192"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve tmp_path/www on loopback as the source of models; yields (that folder, paths asked)."""
    root, asked = tmp_path / "www", []
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(root))

        def end_headers(self):
            if self.path == "/stereo_640x192.zip":  # promise more than there is
                self._headers_buffer = [line.replace(b"Content-Length: ", b"Content-Length: 9")
                                        for line in self._headers_buffer]
            super().end_headers()

        def log_message(self, _format, *args):
            asked.append(args[0])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setattr(utils, "MODELS_URL", f"http://127.0.0.1:{httpd.server_port}")
        monkeypatch.setattr(utils, "MODELS_DIR", tmp_path / "models")
        yield root, asked
        httpd.shutdown()


def archive(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for name, text in entries.items():
            content.writestr(name, text)
    return buffer.getvalue()


GOOD = {"encoder.pth": "e", "depth.pth": "d", "pose.pth": "p"}


def serve(server, monkeypatch, content, name=NAME, md5=None):
    (server[0] / f"{name}.zip").write_bytes(content)
    md5 = md5 or hashlib.md5(content).hexdigest()
    monkeypatch.setitem(utils.PRETRAINED_MODELS, name, md5)


def test_a_model_is_downloaded_once_checked_and_unpacked(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, archive(GOOD))
    for _ in range(2):
        folder = utils.download_model_if_doesnt_exist(NAME)
    assert {path.name: path.read_text() for path in folder.iterdir()} == GOOD
    assert [path.name for path in (tmp_path / "models").iterdir()] == [NAME]
    assert len(server[1]) == 1


def test_a_plus_in_a_name_is_quoted(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, archive(GOOD), "mono+stereo_640x192")
    utils.download_model_if_doesnt_exist("mono+stereo_640x192")
    assert "/mono%2Bstereo_640x192.zip" in server[1][0]


def link():
    entry = zipfile.ZipInfo("encoder.pth")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(("content", "md5", "found"), [
    (archive(GOOD), "0" * 32, "its md5 is"),
    (b"no zip", None, "not a zip"),
    (archive({"depth.pth": "d"}), None, "no encoder.pth"),
    (archive({**GOOD, "../evil": "x"}), None, "would leave the folder"),
    (archive({**GOOD, "/tmp/evil": "x"}), None, "would leave the folder"),
    (archive({link(): "/etc/passwd"}), None, "would leave the folder")])
def test_a_bad_archive_is_refused_and_nothing_is_left(server, monkeypatch, tmp_path, content, md5,
                                                      found):
    serve(server, monkeypatch, content, md5=md5)
    with pytest.raises(DataError, match=found):
        utils.download_model_if_doesnt_exist(NAME)
    assert list((tmp_path / "models").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "www"]


def test_a_failed_download_says_what_to_do(server, tmp_path):
    with pytest.raises(DataError) as caught:
        utils.download_model_if_doesnt_exist(NAME)
    assert "download it by hand and unpack it into" in str(caught.value)
    assert str(tmp_path / "models" / NAME / "encoder.pth") in str(caught.value)


def test_a_download_that_breaks_off_is_not_taken_for_whole(server, monkeypatch, tmp_path):
    serve(server, monkeypatch, archive(GOOD), "stereo_640x192")
    with pytest.raises(DataError, match="it broke off after"):
        utils.download_model_if_doesnt_exist("stereo_640x192")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_server_that_does_not_answer_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(utils, "MODELS_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(utils, "MODELS_DIR", tmp_path / "models")
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9.*refused"):
        utils.download_model_if_doesnt_exist(NAME)


def test_an_encrypted_archive_is_refused(server, monkeypatch, tmp_path):
    content = archive(GOOD)
    flags = content.index(b"PK\x01\x02") + 8
    serve(server, monkeypatch, content[:flags] + b"\x01\x00" + content[flags + 2:])
    with pytest.raises(DataError, match="cannot be downloaded"):
        utils.download_model_if_doesnt_exist(NAME)
    assert list((tmp_path / "models").iterdir()) == []


def test_an_error_is_one_line_whatever_its_cause():
    assert str(DataError("it failed (Error(s):\n\tkey x); do y")) == (
        "it failed (Error(s): key x); do y")
    wrapped = "Caught DataError in worker\nTraceback:\n  raise\nutils.DataError: a is missing\n"
    assert str(DataError(wrapped)) == "a is missing"


def test_an_unknown_model_is_refused_with_the_names():
    with pytest.raises(DataError, match="'mono' is not a published model; choose one of mono_640"):
        utils.download_model_if_doesnt_exist("mono")


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder cannot be written"):
        utils.write_atomically(tmp_path / "folder", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_write_replaces_the_file_as_a_whole(tmp_path):
    for content in (b"first", b"second"):
        utils.write_atomically(tmp_path / "new" / "file", content)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").read_bytes() == b"second"


def test_near_is_bright_and_far_is_dark():
    picture = utils.colorize(np.linspace(0, 1, 100)[None].repeat(4, 0))
    assert picture.shape == (4, 100, 3)
    brightness = picture.astype(int).sum(2)
    assert (np.diff(brightness[0]) >= -3).all()
    assert brightness[0, 0] < 20
    assert brightness[0, -1] > 600


def test_magma_is_matplotlibs_and_the_brightest_5_percent_are_white():
    # published values of the colour map at 0, 1/2 and 1
    picture = utils.colorize(np.append(np.linspace(0, 1, 96), [5, 6, 7, 8, 9])[None])[0]
    white = [252, 253, 191]
    np.testing.assert_allclose(picture[[0, 47, 95, 100]], [[0, 0, 4], [183, 55, 121], white, white],
                               atol=4)


def test_normalize_image_stretches_to_0_and_1_and_survives_a_constant():
    assert utils.normalize_image(torch.tensor([2.0, 3, 4])).tolist() == [0, 0.5, 1]
    assert utils.normalize_image(torch.full((3,), 7.0)).tolist() == [0, 0, 0]


def test_times_are_written_as_hours_minutes_and_seconds():
    assert utils.sec_to_hm_str(10239) == "02h50m39s"


def test_text_that_is_none_is_named(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="bytes cannot be read as text"):
        utils.readlines(tmp_path / "bytes")
    with pytest.raises(DataError, match="nothing is missing"):
        utils.readlines(tmp_path / "nothing")

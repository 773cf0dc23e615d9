"""--ext_disp_to_eval: each format gives one table, impossible values are refused."""
import cv2
import numpy as np
import pytest
from conftest import one_line

GT = [np.random.default_rng(i).uniform(2, 40, (24, 60)).astype(np.float32) for i in range(12)]
DISPS = np.stack([np.round(256 * 8 / depth) / 256 for depth in GT]).astype(np.float32)


@pytest.fixture
def evaluate(tmp_path, script):
    """Evaluate a file or folder against the maps of GT, of which image i is i of the list."""
    (tmp_path / "split").mkdir()
    (tmp_path / "split/test_files.txt").write_text("a l: 0-11\n")
    np.savez(tmp_path / "split/gt_depths.npz", *GT)

    def call(path):
        return script("evaluate_depth", "--eval_mono", "--eval_split", tmp_path / "split",
                      "--ext_disp_to_eval", path, "--eval_out_dir", tmp_path / "out")
    return call


def write_pngs(folder):
    folder.mkdir()
    for i, disp in enumerate(DISPS):
        cv2.imwrite(str(folder / f"{i}.png"), (disp * 256).astype(np.uint16))


@pytest.mark.parametrize("write", [
    lambda path: np.save(path, DISPS.astype(float)), lambda path: np.save(path, DISPS),
    lambda path: np.savez(path, disps=DISPS), lambda path: np.savez(path, *DISPS), write_pngs],
    ids=["float64", "npy", "one array", "an array an image", "16-bit PNGs"])
def test_every_format_gives_the_same_table(evaluate, tmp_path, write):
    path = tmp_path / "disps"
    write(path)
    outcome = evaluate(path if path.exists() else next(tmp_path.glob("disps.np*")))
    assert outcome.status == 0, outcome.err
    assert outcome.out.rstrip().splitlines()[-1].startswith("&   0.00")  # nearly perfect
    assert "warning" not in outcome.out


@pytest.mark.parametrize("value", [0, -0.5, np.nan, np.inf, 1e300, 1e-40])
def test_impossible_disparities_are_refused_with_image_and_count(evaluate, tmp_path, value):
    disps = DISPS.astype(float)
    disps[[7, 11], 2, 3:5] = value
    np.save(tmp_path / "disps.npy", disps)
    line = one_line(evaluate(tmp_path / "disps.npy"), status=1)
    assert ("no disparities in 2 images; the first is image 7 (a 7 l), with 2 of 1440 pixels, "
            "such as ") in line
    assert not (tmp_path / "out").exists()


def test_negative_disparities_give_no_table(evaluate, tmp_path):
    np.save(tmp_path / "disps.npy", -DISPS)
    outcome = evaluate(tmp_path / "disps.npy")
    assert "no disparities in 12 images; the first is image 0 " in one_line(outcome, status=1)
    assert "abs_rel" not in outcome.out


def test_depth_in_place_of_disparity_is_warned_of(evaluate, tmp_path):
    np.save(tmp_path / "depths.npy", np.stack(GT))
    outcome = evaluate(tmp_path / "depths.npy")
    assert outcome.status == 0
    assert "warning: the values of" in outcome.out
    assert "depths.npy grow with the true depth, so they look like depth" in outcome.out


def test_disparities_of_several_sizes_or_whole_numbers_are_refused(evaluate, tmp_path):
    np.savez(tmp_path / "disps.npz", *DISPS[:11], DISPS[11, 1:])
    assert "disps.npz has maps of shapes (23, 60) and (24, 60); expected" in one_line(
        evaluate(tmp_path / "disps.npz"), status=1)
    np.save(tmp_path / "disps.npy", (256 * DISPS).astype(np.uint16))
    assert "disps.npy is uint16 of shape (12, 24, 60); expected floats" in one_line(
        evaluate(tmp_path / "disps.npy"), status=1)
    (tmp_path / "empty").mkdir()
    assert "empty has no maps; expected floats written by np.save" in one_line(
        evaluate(tmp_path / "empty"), status=1)

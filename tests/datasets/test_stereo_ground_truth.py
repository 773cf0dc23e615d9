"""Ground-truth disparity: KITTI 2015's layout and calibration, or an intrinsics.json."""
import json

import cv2
import numpy as np
import pytest
from conftest import filled_weights, one_line, read_results

from datasets.intrinsics import read_intrinsics
from datasets.stereo_ground_truth import read_depth_of_disparity
from runtime.errors import DataError

# P_rect_02 and P_rect_03 of two cameras 0.5 m apart, the left one 0.1 m left of the origin
CALIBRATION = ("calib_time: 09-Jan-2012 14:00:15\n"
               "P_rect_02: 700 0 600 70 0 700 180 0 0 0 1 0\n"
               "P_rect_03: 700 0 600 -280 0 700 180 0 0 0 1 0\n")


def write_png(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.asarray(values))


def kitti_2015(root, count):
    """Write stereo scenes of one depth each, 5, 10, 15 m, ...; return disp_occ_0."""
    training = root / "training"
    for i in range(count):
        disp = np.full((40, 120), round(256 * 700 * 0.5 / (5 + 5 * i)), np.uint16)
        disp[:20] = 0
        write_png(training / f"disp_occ_0/{i:06d}_10.png", disp)
        image = np.random.default_rng(i).integers(0, 255, (40, 120, 3), np.uint8)
        write_png(training / f"image_2/{i:06d}_10.png", image)
        (training / "calib_cam_to_cam").mkdir(exist_ok=True)
        (training / f"calib_cam_to_cam/{i:06d}.txt").write_text(CALIBRATION)
    (root / "split").mkdir()
    (root / "split/test_files.txt").write_text(f"training l: 0-{count - 1}\n")
    return training / "disp_occ_0"


def test_depth_is_focal_length_times_baseline_over_disparity(tmp_path):
    folder = kitti_2015(tmp_path, 1)
    write_png(folder / "000000_10.png", np.array([[0, 256, 35 * 256, 7 * 128]], np.uint16))
    depth = read_depth_of_disparity(folder / "000000_10.png")
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[0, 350, 10, 100]])


def test_intrinsics_with_a_baseline_serve_as_calibration(tmp_path):
    write_png(tmp_path / "disps/1.png", np.array([[0, 512]], np.uint16))
    camera = {"fx": 100, "fy": 90, "cx": 1, "cy": 0.5, "width": 2, "height": 1}
    for fields, found in ((None, "data_scene_flow_calib.zip, 1 MB"), (camera, "has no baseline"),
                          ({**camera, "baseline": 0.2, "width": 4}, "2 pixels wide.* is for 4")):
        if fields:
            (tmp_path / "intrinsics.json").write_text(json.dumps(fields))
        with pytest.raises(DataError, match=found):
            read_depth_of_disparity(tmp_path / "disps/1.png")
    (tmp_path / "disps/intrinsics.json").write_text(json.dumps({**camera, "baseline": 0.2}))
    np.testing.assert_allclose(read_depth_of_disparity(tmp_path / "disps/1.png"), [[0, 10]])


def test_a_baseline_in_millimetres_is_warned_of_once(tmp_path, capsys):
    camera = {"fx": 100, "fy": 90, "cx": 1, "cy": 0.5, "width": 2, "height": 1}
    for baseline, count in ((0.54, 0), (540, 1), (540, 0)):
        (tmp_path / "intrinsics.json").write_text(json.dumps({**camera, "baseline": baseline}))
        assert read_intrinsics(tmp_path / "intrinsics.json").baseline == baseline
        err = capsys.readouterr().err
        assert err.count("intrinsics.json: a baseline of 540 metres") == count
        assert err.count("if these are millimetres, write 0.54\n") == count


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_intrinsics_of_windows_are_read(tmp_path, encoding):
    camera = {"fx": 100, "fy": 90, "cx": 1, "cy": 0.5, "width": 2, "height": 1}
    (tmp_path / "intrinsics.json").write_bytes(json.dumps(camera).encode(encoding))
    assert read_intrinsics(tmp_path / "intrinsics.json")[:6] == tuple(camera.values())


@pytest.mark.parametrize("content", [
    "", "P_rect_02: 1 2\nP_rect_03: 1 2\n",
    CALIBRATION.replace("-280", "70"), CALIBRATION.replace("P_rect_02: 700", "P_rect_02: 0")])
def test_a_broken_calibration_is_named(tmp_path, content):
    folder = kitti_2015(tmp_path, 1)
    (tmp_path / "training/calib_cam_to_cam/000000.txt").write_text(content)
    with pytest.raises(DataError, match=r"000000\.txt has no P_rect_02 and P_rect_03"):
        read_depth_of_disparity(folder / "000000_10.png")


def evaluate(script, root, *flags):
    return script("evaluate_depth", "--data_path", root, "--dataset", "kitti_2015", "--eval_split",
                  root / "split", "--num_workers", 0, "--no_cuda", *flags)


def test_stereo_scenes_are_evaluated_by_their_disparity(tmp_path, script):
    folder = kitti_2015(tmp_path, 12)
    depths = 5 + 5 * np.arange(12)
    np.save(tmp_path / "disps.npy", np.broadcast_to(
        (1 / depths).astype(np.float32)[:, None, None], (12, 4, 8)))
    outcome = evaluate(script, tmp_path, "--gt_disparity", folder, "--eval_mono",
                       "--disable_median_scaling", "--ext_disp_to_eval", tmp_path / "disps.npy")
    assert outcome.status == 0, outcome.err
    assert "ground truth: 12 PNGs of" in outcome.out
    found = read_results(tmp_path)
    assert found["images"]["pixels"] == [20 * 120] * 12  # no crop
    assert max(found["images"]["abs_rel"]) < 1e-3


def test_the_images_of_stereo_scenes_are_predicted(tmp_path, script):
    folder = kitti_2015(tmp_path, 2)
    weights = filled_weights(tmp_path / "weights")
    outcome = evaluate(script, tmp_path, "--gt_disparity", folder, "--eval_stereo",
                       "--load_weights_folder", weights)
    assert outcome.status == 0, outcome.err
    assert "are .png, and are read as such" in outcome.out
    assert read_results(weights)["alignment"] == "fixed"


def test_a_map_missing_for_a_line_is_refused(tmp_path, script):
    folder = kitti_2015(tmp_path, 3)
    np.save(tmp_path / "disps.npy", np.ones((3, 4, 8), np.float32))
    flags = "--eval_mono", "--ext_disp_to_eval", tmp_path / "disps.npy", "--gt_disparity"
    (folder / "000001_10.png").unlink()
    assert "has 2 PNGs for the 3 lines" in one_line(
        evaluate(script, tmp_path, *flags, folder), status=1)
    assert "data_scene_flow.zip, 2 GB" in one_line(
        evaluate(script, tmp_path, *flags, tmp_path / "none"), status=1)

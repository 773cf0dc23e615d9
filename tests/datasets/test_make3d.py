"""Make3D: the central crop of images and scans, and the published errors, on a made layout."""
import os

import cv2
import numpy as np
import pytest
import scipy.io
from conftest import filled_weights, one_line, read_results
from PIL import Image

from datasets import Make3DDataset, make3d

NAMES = ("math7-p-313t000", "op2-p-015t000", "op10-p-015t000")


@pytest.fixture
def layout(tmp_path):
    """Write three images of 96 x 128 pixels, and scans of 1 to 81 m."""
    for folder in (make3d.IMAGES, make3d.SCANS):
        (tmp_path / "make3d" / folder).mkdir(parents=True)
    for name in NAMES:
        Image.fromarray(np.random.randint(0, 255, (128, 96, 3), np.uint8)).save(
            tmp_path / "make3d" / make3d.IMAGES / f"img-{name}.jpg")
        grid = np.random.uniform(1, 81, (55, 305, 4))
        scipy.io.savemat(tmp_path / "make3d" / make3d.SCANS / f"depth_sph_corr-{name}.mat",
                         {"Position3DGrid": grid})
    return tmp_path / "make3d"


def grids(layout):
    """Return the depth of each scan, (55, 305), in the order of the images."""
    return [scipy.io.loadmat(layout / make3d.SCANS / f"depth_sph_corr-{name}.mat")
            ["Position3DGrid"][..., 3] for name in NAMES]


def test_the_published_sizes_give_the_published_crop():
    assert make3d.central_rows(2272) == slice(710, 1562)  # 852 = 1704 / 2 rows
    assert make3d.central_rows(55) == slice(17, 38)


def test_the_images_are_the_centre_twice_as_wide_as_high(layout):
    lines = make3d.list_images(layout)
    assert lines == [f"img-{name} 0" for name in NAMES]  # op2 before op10
    dataset = Make3DDataset(layout, lines, 48, 96, [0], 1)
    whole = np.array(Image.open(layout / make3d.IMAGES / f"img-{NAMES[1]}.jpg"))
    found = dataset.load(1)["color", 0, 0].permute(1, 2, 0).numpy()
    assert (found == whole[40:88]).all()


def test_a_scan_is_its_central_rows_nearer_than_70_m(layout):
    grid = grids(layout)[0]
    found = make3d.read_scan(layout, f"img-{NAMES[0]} 0")
    assert found.shape == (21, 305)
    assert 0 < (found == 0).mean() < 0.2
    np.testing.assert_array_equal(
        found, np.where(grid[17:38] < 70, grid[17:38], 0).astype(np.float32))


def test_errors_are_c1_of_predictions_limited_to_70_m(layout, script):
    disps = np.random.uniform(0.01, 1, (3, 24, 48)).astype(np.float32)
    np.save(layout / "disps.npy", disps)
    outcome = script("evaluate_depth", "--eval_mono", "--data_path", layout, "--eval_split",
                     "make3d", "--ext_disp_to_eval", layout / "disps.npy")
    assert outcome.status == 0, outcome.err
    assert "3 of the 134 test images" in outcome.out
    found = read_results(layout)
    assert found["ground_truth"]["kind"] == "laser scans up to 70 m, central rows"
    for i, (disp, grid) in enumerate(zip(disps, grids(layout), strict=True)):
        gt = grid[17:38].astype(np.float32)
        pred = 1 / cv2.resize(disp, (305, 21))
        near = gt < 70
        gt, pred = gt[near], pred[near]
        pred = np.minimum(pred * (np.median(gt) / np.median(pred)), 70)
        assert (pred == 70).any()
        images = found["images"]
        assert images["abs_rel"][i] == pytest.approx((abs(gt - pred) / gt).mean(), rel=1e-5)
        assert images["sq_rel"][i] == pytest.approx(((gt - pred) ** 2 / gt).mean(), rel=1e-5)
        assert images["rmse"][i] == pytest.approx(((gt - pred) ** 2).mean() ** 0.5, rel=1e-5)
        assert images["log10"][i] == pytest.approx(
            abs(np.log10(gt / pred)).mean(), rel=1e-5)
        assert images["holes"][i] == pytest.approx((pred[gt < 40] == 70).mean())


def test_a_network_is_evaluated_on_make3d(layout, tmp_path, script):
    outcome = script(
        "evaluate_depth", "--eval_mono", "--no_cuda", "--num_workers", 0, "--data_path", layout,
        "--eval_split", "make3d", "--save_figures", "--clouds", "--load_weights_folder",
        filled_weights(tmp_path / "w", use_stereo=False))
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "w/figure_images_make3d_median.png").is_file()
    assert read_results(tmp_path / "w")["lines"] == [f"img-{name} 0" for name in NAMES]


@pytest.mark.parametrize(("change", "found"), [
    (lambda folder: (folder / make3d.IMAGES).rename(folder / "x"), "Test134 has no images"),
    (lambda folder: (folder / make3d.SCANS / f"depth_sph_corr-{NAMES[1]}.mat").unlink(),
     f"{NAMES[1]}.mat is missing; download"),
    (lambda folder: os.truncate(folder / make3d.SCANS / f"depth_sph_corr-{NAMES[1]}.mat", 9000),
     f"{NAMES[1]}.mat cannot be read as a scan"),
    (lambda folder: scipy.io.savemat(folder / make3d.SCANS / f"depth_sph_corr-{NAMES[1]}.mat",
                                     {"depthMap": np.ones((55, 305))}), "expected MATLAB's")])
def test_a_missing_or_broken_file_gets_one_line(layout, script, change, found):
    change(layout)
    np.save(layout / "disps.npy", np.ones((3, 24, 48), np.float32))
    assert found in one_line(script("evaluate_depth", "--eval_mono", "--data_path", layout,
                                    "--eval_split", "make3d", "--ext_disp_to_eval",
                                    layout / "disps.npy"), 1)


def test_an_image_that_lies_on_its_side_is_refused(layout, tmp_path, script):
    path = layout / make3d.IMAGES / f"img-{NAMES[0]}.jpg"
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    assert "128x96 pixels, and Make3D's images are upright" in one_line(script(
        "evaluate_depth", "--eval_mono", "--no_cuda", "--num_workers", 0, "--data_path", layout,
        "--eval_split", "make3d", "--load_weights_folder",
        filled_weights(tmp_path / "w", use_stereo=False)), 1)

"""synthetic/demo.py: the parts that are not command lines of the project."""
import cv2
import numpy as np
import pytest
from conftest import HEIGHT, WIDTH

from datasets import KITTIRAWDataset
from datasets.splits import read_split
from synthetic.demo import FAR, parse_abs_rel, save_constant_disparities, save_picture


def test_abs_rel_is_read_from_the_printed_table():
    assert parse_abs_rel("  abs_rel | ...\n&   0.187  &   1.019  &   4.814  \\\\\n") == 0.187


def test_the_constant_disparity_is_the_median_of_the_training_depths(drive, tmp_path):
    split = drive / "splits" / "tiny"
    save_constant_disparities(drive, split, tmp_path / "constant.npy")
    disps = np.load(tmp_path / "constant.npy")
    assert disps.shape == (4, HEIGHT, WIDTH)
    dataset = KITTIRAWDataset(drive, [line for line in read_split(split / "train_files.txt")
                                      if line.endswith("l")], HEIGHT, WIDTH, [0], 1)
    dataset.full_res_shape = (WIDTH, HEIGHT)
    depths = np.stack([dataset[i]["depth_gt"][0].numpy() for i in range(len(dataset))])
    row, column = np.argwhere((depths > 0).all(0))[0]
    assert 1 / disps[2, row, column] == pytest.approx(np.median(depths[:, row, column]), rel=1e-3)
    row, column = np.argwhere((depths == 0).all(0))[0]
    assert 1 / disps[0, row, column] == pytest.approx(FAR)


def test_the_picture_has_the_image_on_the_left(tmp_path):
    cv2.imwrite(str(tmp_path / "street.jpg"), np.full((8, 16, 3), 200, np.uint8))
    cv2.imwrite(str(tmp_path / "street_disp.jpeg"), np.zeros((8, 16, 3), np.uint8))
    save_picture(tmp_path / "street.jpg", tmp_path / "demo.png")
    picture = cv2.imread(str(tmp_path / "demo.png"))
    assert picture.shape == (16, 64, 3)
    assert picture[:, :30].min() > 190
    assert picture[:, 34:].max() < 10

"""prepare_data.py kitti: the report of missing files, and wrong flags of all commands."""
import os
import re
from functools import cache
from pathlib import Path

import pytest
from conftest import one_line

from datasets import KITTIDepthDataset, KITTIOdomDataset, KITTIRAWDataset, KITTITestDataset
from datasets.splits import SPLITS, parse_line, read_split
from preparation import inventory
from preparation.inventory import find_files, list_needed_files

IMAGE_LISTS = {"eigen_zhou": ["train", "val"], "eigen_full": ["train", "val"], "eigen": ["test"],
               "eigen_benchmark": ["test"], "benchmark": ["train", "val"]}


def paths(dataset, folder, *lists, kind="get_image_path", ext=".jpg"):
    """Return the paths, below the data path, of the files that a dataset reads for split lists."""
    lines = [line for name in lists for line in read_split(SPLITS / folder / f"{name}_files.txt")]
    get = getattr(dataset("", lines, 192, 640, [0], 4, img_ext=ext), kind)
    return {str(get(*parse_line(line))) for line in lines}


@cache
def all_needed_files():
    """Return the needed files of all splits, read once."""
    return list_needed_files()


def needed(split, title):
    """Return the paths of the files that the report lists, with the first accepted ending."""
    return {os.path.join(folder, name) + files.kind.endings[0]
            for files in all_needed_files() if (files.split, files.kind.title) == (split, title)
            for folder, names in files.names.items() for name in names}


@pytest.mark.parametrize("split", IMAGE_LISTS)
def test_the_listed_images_of_a_split_are_those_its_dataset_reads(split):
    assert needed(split, "images") == paths(KITTIRAWDataset, split, *IMAGE_LISTS[split])


def test_other_listed_files_are_those_that_datasets_read():
    lines = read_split(SPLITS / "eigen" / "test_files.txt")
    path = KITTIRAWDataset("", lines, 192, 640, [0], 4)._scan_path
    scans = {str(path(*parse_line(line)[:2])) for line in lines}
    assert needed("eigen", "velodyne scans") == scans
    assert needed("eigen_benchmark", "depth maps") == paths(
        KITTIDepthDataset, "eigen_benchmark", "test", kind="_depth_path")
    assert needed("benchmark", "test images") == paths(KITTITestDataset, "benchmark", "test")
    assert needed("odom", "images") == paths(KITTIOdomDataset, "odom", "train", "val")
    assert needed("odom", "poses") == {f"poses/{i:02d}.txt" for i in range(9)}
    assert needed("odom_9", "poses") == {"poses/09.txt"}
    assert len(needed("odom_10", "images")) == 1200
    assert needed("eigen", "calibration") == {
        f"{date}/calib_cam_to_cam.txt" for date in
        ("2011_09_26", "2011_09_28", "2011_09_29", "2011_09_30", "2011_10_03")}


def test_depth_maps_are_found_in_their_archives_layout(tmp_path):
    folder, frame, _ = parse_line(read_split(SPLITS / "eigen_benchmark/test_files.txt")[0])
    place = tmp_path / "val" / Path(folder).name / "proj_depth/groundtruth/image_02"
    place.mkdir(parents=True)
    (place / f"{frame:010d}.png").touch()
    (maps,) = [one for one in find_files(tmp_path, list_needed_files("eigen_benchmark"))
               if one.needed.kind.title == "depth maps"]
    assert maps.endings[".png"] == 1


def test_every_archive_of_the_raw_splits_is_on_the_download_list():
    known = {url.rpartition("/")[2]
             for url in (SPLITS / "kitti_archives_to_download.txt").read_text().split()}
    needed = {archive for files in all_needed_files() if files.split in IMAGE_LISTS
              for archive in files.archives.values()}
    assert needed - known == {"data_depth_annotated.zip", "data_depth_selection.zip"}
    assert known <= needed


@pytest.fixture
def show(script, tmp_path):
    """Return the printed report on a folder."""
    def call(*flags):
        outcome = script("prepare_data", "kitti", "--data_path", tmp_path, *flags)
        assert outcome.status == 0, outcome
        return outcome.out
    return call


def touch(folder, names):
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_in_an_empty_folder_everything_is_missing(show):
    out = show()
    rows = re.findall(r"^  (\w+) +(\w[\w ]+?) +0 of +([\d,]+)$", out, re.MULTILINE)
    assert rows == [
        ("eigen_zhou", "images", "44,234"), ("eigen_zhou", "calibration", "5"),
        ("eigen_full", "images", "46,976"), ("eigen_full", "calibration", "5"),
        ("eigen", "images", "697"), ("eigen", "velodyne scans", "697"),
        ("eigen", "calibration", "5"),
        ("eigen_benchmark", "images", "652"), ("eigen_benchmark", "depth maps", "652"),
        ("benchmark", "images", "78,144"), ("benchmark", "calibration", "5"),
        ("benchmark", "test images", "500"),
        ("odom", "images", "40,746"), ("odom", "calibration", "9"), ("odom", "poses", "9"),
        ("odom_9", "images", "1,590"), ("odom_9", "poses", "1"),
        ("odom_10", "images", "1,200"), ("odom_10", "poses", "1")]
    first = "2011_09_26_drive_0001_sync.zip, 2011_09_26_drive_0005_sync.zip, "
    assert re.search(rf"eigen_zhou +images.*\n      get {first}\S+\.zip and \d\d more\n", out)
    assert "--png" not in out


def test_in_a_complete_folder_nothing_is_missing(show, tmp_path):
    files = {*needed("eigen", "images"), *needed("eigen", "velodyne scans"),
             *needed("eigen", "calibration")}
    touch(tmp_path, files)
    out = show("--split", "eigen")
    assert re.search(r"eigen +images +697 of +697  jpg\n", out)
    assert re.search(r"eigen +velodyne scans +697 of +697\n", out)
    assert out.endswith("nothing is missing\n")
    assert "get" not in out


def test_the_report_names_missing_archives_and_the_flag_for_pngs(show, tmp_path):
    images = sorted(needed("odom_9", "images"))
    touch(tmp_path, [*images[:1000], *(image.replace(".jpg", ".png") for image in images[500:])])
    out = show("--split", "odom_9")
    assert re.search(r"odom_9 +images +1,590 of +1,590  1,000 jpg, 590 png\n", out)
    assert re.search(r"odom_9 +poses +0 of +1\n      get data_odometry_poses.zip\n", out)
    assert "PNG images are read with --png" in out
    (tmp_path / images[0]).unlink()
    assert re.search(r"1,589 of +1,590  999 jpg, 590 png\n      get data_odometry_color.zip\n",
                     show("--odometry"))


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    touch(tmp_path, sorted(needed("eigen", "images")))
    listed, list_folder = [], inventory._list_folder
    monkeypatch.setattr(inventory, "_list_folder",
                        lambda path: listed.append(path) or list_folder(path))
    find_files(tmp_path, all_needed_files())
    assert sorted(listed) == sorted({
        os.path.join(tmp_path, place) for files in all_needed_files()
        for folder in files.names for place in (folder, *files.elsewhere[folder])})
    assert len(listed) < 300


EIGEN = ("--split", "eigen")


@pytest.mark.parametrize(("words", "status", "found"), [
    ([], 2, "required: COMMAND"),
    (["nothing"], 2, "invalid choice: 'nothing'"),
    (["kitti"], 2, "required: --data_path"),
    (["kitti", "--data_path", "x", "--odometry", *EIGEN], 2,
     "--split eigen is not a split of odometry"),
    (["kitti", "--data_path", "x", "--split", "eigen_2"], 2,
     "--split eigen_2 is not a split of KITTI; choose one of eigen_zhou, eigen_full, eigen, "),
    (["kitti", "--data_path", "nowhere", *EIGEN], 1, "--data_path nowhere does not exist"),
    (["kitti", "--data_path", "nowhere", "--convert", *EIGEN], 1,
     "--data_path nowhere does not exist"),
    (["kitti", "--data_path", __file__, "--download", *EIGEN], 1, "cannot be made: File exists")])
def test_a_wrong_command_line_gets_one_line(script, words, status, found):
    assert found in one_line(script("prepare_data", *words), status)

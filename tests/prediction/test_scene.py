"""Videos become scenes: a cloud of what neighbouring views agree on, and the camera's path."""
import sys

import numpy as np
import pytest
import torch
import trimesh
from conftest import HEIGHT, WIDTH, filled_weights, one_line
from PIL import Image

from experiments.scene import fuse, read_drive
from metrics.clouds import cloud_errors
from networks import Monodepth2
from prediction.motions import MotionStream
from prediction.scene import SceneCloud, View
from prediction.video import VideoFile
from prediction.voxels import VoxelCloud
from prediction.write import POINT
from synthetic.render import HELD_OUT

TIMES = [0, 0.1, 0.2, 0.35, 0.45, 0.6]
K = torch.tensor([[60.0, 0, 48, 0], [0, 60, 32, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_a_scene_of_true_depth_has_the_true_surfaces(drive):
    images, depths, poses = read_drive(drive)
    surfaces, cloud = (fuse(images, depths, poses, far=25, voxel=0.2, votes=votes)
                       for votes in (False, True))
    errors = cloud_errors(surfaces, cloud, 10**6)
    assert errors["cloud_precision_10cm"] > 0.99
    assert errors["cloud_f_25cm"] > 0.945  # moving cars and edges are left out
    turned = fuse(images, depths, np.linalg.inv(poses), far=25, voxel=0.2)
    assert cloud_errors(surfaces, turned, 10**6)["cloud_f_25cm"] < 0.7


def test_sky_and_what_moves_are_left_out():
    scene = SceneCloud(far=50, voxel=0.01)
    for i in range(4):
        pose = np.eye(4)
        pose[2, 3] = 0.5 * i  # towards a wall at 20 m
        depth = torch.full((64, 96), 20 - 0.5 * i)
        depth[:10] = 1000  # sky
        depth[30:40, 40:50] = 12 - 1.5 * i  # comes towards the camera, 1 m a frame
        scene.add(View(depth, torch.full((3, 64, 96), 100, dtype=torch.uint8), K, pose))
    points, colours = scene.means()
    # a pixel at the edge may mix the near and the far disparity to the expected one
    assert (np.abs(points[:, 2] - 20) < 1e-3).mean() > 0.9999
    assert (colours == 100).all()
    assert np.ptp(points[:, 0]) > 30


def test_voxels_hold_the_means_of_their_points():
    points, colours = np.random.uniform(-3, 3, (5000, 3)), np.random.randint(0, 256, (5000, 3))
    cloud = VoxelCloud(1.0)
    for part in np.split(np.arange(5000), 10):
        cloud.add(points[part], colours[part])
        cloud._merge()
    found = {tuple(np.floor(point).astype(int)): (point, colour)
             for point, colour in zip(*cloud.means(), strict=True)}
    voxels = np.floor(points).astype(int)
    assert found.keys() == set(map(tuple, voxels.tolist()))
    for voxel, (point, colour) in found.items():
        inside = (voxels == voxel).all(1)
        np.testing.assert_allclose(point, points[inside].mean(0), atol=1e-5)
        np.testing.assert_allclose(colour, colours[inside].mean(0), atol=0.51)


def test_voxels_grow_so_that_their_number_is_bounded():
    cloud = VoxelCloud(0.01, max_voxels=1000)
    for _ in range(20):
        cloud.add(np.random.uniform(-1, 1, (2000, 3)), np.zeros((2000, 3)))
        cloud._merge()
    assert len(cloud.means()[0]) <= 1000
    assert cloud.size == pytest.approx(0.01 * 2**5)


@pytest.mark.parametrize("frames", [None, [0, -1, 1]])
def test_motions_of_a_stream_are_those_of_the_whole(frames):
    torch.manual_seed(0)
    model = Monodepth2(pose_model_input="all" if frames else "pairs").eval()
    images = list(torch.rand(7, 3, 64, 96))
    whole = MotionStream(model, frames, "weights").add(images)
    stream = MotionStream(model, frames, "weights")
    parts = [stream.add(images[start:end]) for start, end in ((0, 1), (1, 2), (2, 5), (5, 7))]
    assert [len(part) for part in parts] == ([0, 0, 4, 2] if frames else [0, 1, 3, 2])
    inner = slice(0, 3) if frames else slice(None)  # else over the nearest target in the stream
    np.testing.assert_allclose(np.concatenate(parts)[inner], whole[inner], atol=1e-6)


@pytest.fixture
def video(drive, tmp_path):
    with VideoFile(tmp_path / "ride.mp4", 10) as file:
        for i, time in enumerate(TIMES):
            path = drive / HELD_OUT / f"image_02/data/{i + 2:010d}.jpg"
            file.write(np.array(Image.open(path)), time)
    return file.path


def read_ply(path):
    header, _, content = path.read_bytes().partition(b"end_header\n")
    return header.decode(), np.frombuffer(content, POINT)


def test_a_video_becomes_a_scene(video, weights, script):
    outcome = script("test_simple", "--image_path", video, "--load_weights_folder", weights,
                     "--no_cuda", "--scene", "--batch_size", 4)
    assert outcome.status == 0, outcome.err
    assert sorted(path.name for path in video.parent.iterdir()) == [
        "ride.mp4", "ride_scene.glb", "ride_scene.ply", "ride_trajectory.txt"]
    header, points = read_ply(video.with_name("ride_scene.ply"))
    assert "comment unit: metres: 5.4 x the network's depth" in header
    rows = np.loadtxt(video.with_name("ride_trajectory.txt"))
    np.testing.assert_allclose(rows[:, 0], TIMES, atol=1e-3)
    np.testing.assert_array_equal(rows[0, 1:], [0, 0, 0, 0, 0, 0, 1])
    scene = trimesh.load(video.with_name("ride_scene.glb"))
    cloud, path = scene.geometry["cloud"], scene.geometry["path"]
    xyz = np.stack([points["x"], -points["y"], -points["z"]], 1)  # y is up in glTF
    np.testing.assert_allclose(cloud.vertices, xyz, atol=1e-5)
    np.testing.assert_array_equal(cloud.colors[:, 0], points["red"])
    np.testing.assert_allclose(np.ptp(path.vertices, 0), np.ptp(rows[:, 1:4], 0), atol=1e-5)
    assert f"{len(points)} points of 6 frames, in voxels of" in outcome.out


def test_a_folder_of_images_becomes_a_scene_beside_other_outputs(drive, weights, script, tmp_path):
    outcome = script("test_simple", "--image_path", drive / HELD_OUT / "image_02/data",
                     "--load_weights_folder", weights, "--no_cuda", "--scene", "--output", "disp",
                     "--output_dir", tmp_path)
    assert outcome.status == 0, outcome.err
    assert len(list(tmp_path.glob("*_disp.npy"))) == 12
    assert len(np.loadtxt(tmp_path / "data_trajectory.txt")) == 12


def test_a_scene_that_cannot_be_made_gets_one_line(video, weights, script, monkeypatch, tmp_path):
    def refused(source, folder):
        outcome = script("test_simple", "--image_path", source, "--load_weights_folder", folder,
                         "--no_cuda", "--scene", "--output_dir", tmp_path / "out")
        assert not list((tmp_path / "out").glob("*scene*"))
        return one_line(outcome, 1)

    assert "pose.pth does not exist" in refused(video, filled_weights(tmp_path / "no_pose"))
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "one.jpg")
    line = refused(tmp_path / "one.jpg", weights)
    assert "--scene needs at least 2 consecutive frames, and " in line
    assert " has 1; give a video" in line
    monkeypatch.setitem(sys.modules, "trimesh", None)
    assert "pip install -r requirements-scene.txt" in refused(video, weights)

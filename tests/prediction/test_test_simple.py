"""test_simple.py from its command line: images, folders, videos, units, wrong input."""
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from conftest import HEIGHT, SHARED, WIDTH, needs_shared, one_line, train_flags
from PIL import Image

import test_simple
from checkpoints.architecture import load_model
from checkpoints.training_camera import Unit
from datasets.footage import Footage
from layers import disp_to_depth
from options import MonodepthOptions
from prediction.images import Frame
from prediction.predict import write_batches
from prediction.predictor import Predictor
from prediction.video import VideoFile
from prediction.write import POINT, FrameWriter, OutputOptions
from runtime import downloads
from synthetic.render import HELD_OUT
from trainer import Trainer


@pytest.fixture
def image(drive, tmp_path):
    """Write an image of another size than the network's to a folder of its own."""
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "street.jpg"
    frame = Image.open(drive / HELD_OUT / "image_02/data/0000000005.jpg")
    frame.resize((200, 100)).save(path)
    return path


def test_an_image_gets_a_disparity_map_and_a_picture(image, weights, script):
    outcome = script("test_simple", "--image_path", image, "--load_weights_folder", weights)
    assert outcome.status == 0, outcome.err
    names = ["street.jpg", "street_disp.jpeg", "street_disp.npy"]
    assert sorted(path.name for path in image.parent.iterdir()) == names
    disp = np.load(image.with_name("street_disp.npy"))
    assert disp.shape == (1, 1, HEIGHT, WIDTH)
    model, _ = load_model(weights)
    resized = np.array(Image.open(image).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    with torch.no_grad():
        raw = model.disparity(torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255)
    np.testing.assert_allclose(disp, disp_to_depth(raw, 0.1, 100)[0], rtol=1e-4)
    with Image.open(image.with_name("street_disp.jpeg")) as picture:
        assert picture.size == (200, 100)


def test_metric_depth_is_5_4_over_disparity(image, weights, script):
    for flags in ([], ["--pred_metric_depth"]):
        outcome = script("test_simple", "--image_path", image, "--load_weights_folder", weights,
                         *flags)
    depth = np.load(image.with_name("street_depth.npy"))
    np.testing.assert_allclose(depth, 5.4 / np.load(image.with_name("street_disp.npy")), rtol=1e-5)
    assert "warning" not in outcome.out


def test_metric_depth_of_a_mono_model_prints_a_warning(drive, image, tmp_path, script):
    Trainer(MonodepthOptions().parse(
        train_flags(drive, "--log_dir", tmp_path, "--model_name", "mono"))).train()
    outcome = script("test_simple", "--image_path", image, "--pred_metric_depth",
                     "--load_weights_folder", tmp_path / "mono/models/weights_0")
    assert "trained without stereo; its depth has an unknown scale" in outcome.out
    depth = np.load(image.with_name("street_depth.npy"))
    script("test_simple", "--image_path", image, "--output", "disp",
           "--load_weights_folder", tmp_path / "mono/models/weights_0")
    np.testing.assert_allclose(depth, 5.4 / np.load(image.with_name("street_disp.npy")), rtol=1e-5)


def test_pictures_of_earlier_predictions_are_skipped(image, weights, script):
    Image.open(image).save(image.with_name("other.png"))
    Image.open(image).save(image.with_name("other_disp.jpg"))
    outcome = script("test_simple", "--image_path", image.parent, "--load_weights_folder", weights)
    assert "street.jpg: wrote" in outcome.out
    assert "other" not in outcome.out
    assert "other_disp" not in outcome.out
    assert "left out 1 output of an earlier run, such as other_disp.jpg" in outcome.err
    outcome = script("test_simple", "--image_path", image.parent, "--load_weights_folder", weights,
                     "--ext", "png")
    assert "other.png: wrote" in outcome.out


@pytest.fixture
def folder(drive, tmp_path):
    """Write five frames of the drive, each of another size."""
    (tmp_path / "frames").mkdir()
    for i in range(5):
        frame = Image.open(drive / HELD_OUT / f"image_02/data/{5 + i:010d}.jpg")
        frame.resize((150 + 7 * i, 90 + i)).save(tmp_path / "frames" / f"{i}.jpg")
    return tmp_path / "frames"


def test_the_batch_size_does_not_change_the_outputs(folder, weights, script):
    written = {}
    for batch_size in (1, 3):
        outcome = script("test_simple", "--image_path", folder, "--load_weights_folder", weights,
                         "--batch_size", batch_size)
        *lines, last = outcome.out.splitlines()
        assert [line.partition(":")[0] for line in lines] == [
            str(folder / f"{i}.jpg") for i in range(5)]
        assert last.startswith("5 frames in ")
        written[batch_size] = {
            path.name: np.load(path) if path.suffix == ".npy" else np.array(Image.open(path))
            for path in folder.glob("*_disp.*")}
    assert written[1].keys() == written[3].keys()
    assert len(written[1]) == 10
    for i in range(5):
        npy, jpeg = f"{i}_disp.npy", f"{i}_disp.jpeg"
        np.testing.assert_allclose(written[3][npy], written[1][npy], atol=1e-5, rtol=0)
        assert written[3][jpeg].shape == (90 + i, 150 + 7 * i, 3)
        assert np.abs(written[3][jpeg].astype(float) - written[1][jpeg]).mean() < 0.1


def test_the_images_before_a_broken_image_are_written(folder, weights, script):
    (folder / "3.jpg").write_bytes(b"no image")
    outcome = script("test_simple", "--image_path", folder, "--load_weights_folder", weights)
    assert "3.jpg cannot be read as an image" in one_line(outcome, status=1)
    assert outcome.out.count("wrote") == 3
    assert sorted(path.name for path in folder.glob("*.npy")) == [
        "0_disp.npy", "1_disp.npy", "2_disp.npy"]


@needs_shared
def test_a_real_frame_is_predicted(tmp_path, weights, script):
    frame = SHARED / "real/kitti_raw/2011_09_26/2011_09_26_drive_0052_sync/image_02/data"
    path = tmp_path / "frame.png"
    path.write_bytes((frame / "0000000008.png").read_bytes())
    outcome = script("test_simple", "--image_path", path, "--load_weights_folder", weights)
    assert outcome.status == 0, outcome.err
    with Image.open(tmp_path / "frame_disp.jpeg") as picture:
        assert picture.size == (1242, 375)


def test_a_downloaded_model_is_found_by_its_name(image, weights, tmp_path, script, monkeypatch):
    monkeypatch.setattr(downloads, "MODELS_DIR", tmp_path)
    (tmp_path / "mono_640x192").symlink_to(weights)
    outcome = script("test_simple", "--image_path", image, "--model_name", "mono_640x192")
    assert outcome.status == 0, outcome.err
    assert image.with_name("street_disp.npy").exists()


def test_min_and_max_depth_set_the_range_of_disparities(image, weights, script):
    script("test_simple", "--image_path", image, "--load_weights_folder", weights,
           "--min_depth", 1, "--max_depth", 50)
    disp = np.load(image.with_name("street_disp.npy"))
    assert 1 / 50 < disp.min() < disp.max() < 1


def test_wrong_input_gets_one_line(image, weights, tmp_path, script):
    def call(path, *flags):
        return script("test_simple", "--image_path", path, *flags)
    loaded = ("--load_weights_folder", weights)
    assert "nowhere does not exist" in one_line(call("nowhere", *loaded), status=1)
    assert "has no *.bmp" in one_line(call(image.parent, "--ext", "bmp", *loaded), status=1)
    assert "nowhere does not exist" in one_line(
        call(image, "--load_weights_folder", "nowhere"), status=1)
    assert "invalid choice: 'mono'" in one_line(call(image, "--model_name", "mono"), status=2)
    image.write_bytes(b"no image")
    assert "street.jpg cannot be read as an image" in one_line(call(image, *loaded), status=1)
    assert [path.name for path in image.parent.iterdir()] == ["street.jpg"]


def test_parsed_args_run_as_in_the_original(image, weights):
    args = test_simple.parse_args(["--image_path", str(image), "--load_weights_folder",
                                   str(weights), "--no_cuda"])
    test_simple.test_simple(args)
    assert np.load(image.with_name("street_disp.npy")).shape == (1, 1, HEIGHT, WIDTH)


def predict(script, path, weights, *flags):
    outcome = script("test_simple", "--image_path", path, "--load_weights_folder", weights, *flags)
    assert outcome.status == 0, outcome.err
    return outcome


def test_outputs_have_the_folder_and_size_of_the_flags(image, weights, tmp_path, script):
    out = tmp_path / "out"
    predict(script, image, weights, "--output", "disp", "depth", "png", "--size", "image",
            "--output_dir", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "street_depth.npy", "street_depth.png", "street_disp.npy"]
    assert [path.name for path in image.parent.iterdir()] == ["street.jpg"]
    disp, depth = (np.load(out / f"street_{kind}.npy") for kind in ("disp", "depth"))
    assert disp.shape == depth.shape == (1, 1, 100, 200)
    np.testing.assert_allclose(depth, 5.4 / disp, rtol=1e-4)
    png = cv2.imread(str(out / "street_depth.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    np.testing.assert_allclose(png, (depth[0, 0] * 256).clip(1, 65535), atol=0.51)


def test_points_of_a_cloud_lie_on_the_rays_of_their_pixels(image, weights, script):
    predict(script, image, weights, "--ply", "--output", "depth", "--size", "image",
            "--intrinsics", 150, 140, 90, 45)
    header, _, content = image.with_name("street_cloud.ply").read_bytes().partition(
        b"end_header\n")
    assert b"element vertex 20000\n" in header
    assert b"comment unit: metres: 5.4 x" in header
    points = np.frombuffer(content, POINT)
    v, u = np.indices((100, 200))
    np.testing.assert_allclose(150 * points["x"] / points["z"] + 90, u.ravel(), atol=1e-3)
    np.testing.assert_allclose(140 * points["y"] / points["z"] + 45, v.ravel(), atol=1e-3)
    depth = np.load(image.with_name("street_depth.npy"))
    np.testing.assert_allclose(points["z"], depth.ravel(), rtol=1e-6)
    pixels = np.array(Image.open(image)).reshape(-1, 3)
    np.testing.assert_array_equal(np.stack([points["red"], points["green"], points["blue"]], 1),
                                  pixels)


def test_a_cloud_without_given_intrinsics_uses_trainings(image, weights, script):
    words = ["--image_path", image, "--load_weights_folder", weights]
    outcome = script("test_simple", *words, "--ply")
    assert "of training had another aspect ratio, 96x64; give --intrinsics" in one_line(outcome, 1)
    Image.open(image).resize((150, 100)).save(image)
    predict(script, image, weights, "--ply")
    content = image.with_name("street_cloud.ply").read_bytes().partition(b"end_header\n")[2]
    last = np.frombuffer(content, POINT)[-1]
    # KITTI's published intrinsics, at the middle of the last pixel
    assert last["x"] / last["z"] == pytest.approx((149.5 / 150 - 0.5) / 0.58, rel=1e-5)
    assert last["y"] / last["z"] == pytest.approx((99.5 / 100 - 0.5) / 1.92, rel=1e-5)


def test_the_scale_is_given_or_fitted_to_ground_truth(folder, weights, tmp_path, script):
    predict(script, folder, weights, "--output", "depth", "--scale", 1, "--size", "image")
    plain = [np.load(folder / f"{i}_depth.npy")[0, 0] for i in range(5)]
    predict(script, folder, weights, "--output", "depth", "--scale", 3, "--size", "image")
    np.testing.assert_allclose(np.load(folder / "0_depth.npy")[0, 0], 3 * plain[0], rtol=1e-6)
    sparse = [np.where(np.random.rand(*depth.shape) < 0.1, 7 * depth, 0) for depth in plain]
    np.savez(tmp_path / "gt.npz", *[depth.astype(np.float32) for depth in sparse])
    outcome = predict(script, folder, weights, "--output", "depth", "--size", "image",
                      "--scale_from", tmp_path / "gt.npz")
    np.testing.assert_allclose(np.load(folder / "4_depth.npy")[0, 0], 7 * plain[4], rtol=1e-4)
    assert "depth is metres: 7 x the network's depth, fitted to" in outcome.out
    np.savez(tmp_path / "gt.npz", sparse[0].astype(np.float32))
    outcome = script("test_simple", "--image_path", folder, "--load_weights_folder", weights,
                     "--scale_from", tmp_path / "gt.npz")
    assert "has 1 map, which is not the number of images" in one_line(outcome, 1)


@pytest.fixture
def video(drive, tmp_path):
    """Write a video of the held-out drive whose second half is nearly black."""
    with VideoFile(tmp_path / "drive.mp4", 10) as file:
        for i in range(8):
            frame = np.array(Image.open(drive / HELD_OUT / f"image_02/data/{i:010d}.jpg"))
            file.write(frame if i < 4 else frame // 8)
    return file.path


def test_a_video_becomes_a_video_with_disparities_beside_it(video, weights, script):
    outcome = predict(script, video, weights, "--batch_size", 3)
    assert sorted(path.name for path in video.parent.glob("drive*.*")) == [
        "drive.mp4", "drive_disp.mp4"]
    made = Footage(video.with_name("drive_disp.mp4"))
    assert (made.count, made.fps) == (8, 10)
    for still, source in zip(made, Footage(video), strict=True):
        image, frame = still.read().astype(float), source.read().astype(float)
        assert image.shape == (3, HEIGHT, 2 * WIDTH)
        assert np.abs(image[:, :, :WIDTH] - frame).mean() < 12
        assert np.abs(image[:, :, WIDTH:] - frame).mean() > 20
    assert "8 frames in " in outcome.out


WHITE = 252, 253, 191  # of magma


def paint(disp, low, high):
    level = np.clip((disp - low) / (high - low), 0, 1)
    return cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_MAGMA)


@pytest.mark.parametrize("flags", [[], ["--disp_range", 0.2, 0.8]])
def test_all_frames_of_a_video_share_one_colour_range(video, weights, script, flags):
    out = video.parent / "out"
    predict(script, video, weights, "--output", "picture", "disp", "--max_frames", 6,
            "--batch_size", 2, "--output_dir", out, *flags)
    folder = out / "drive"
    disps = [(np.load(folder / f"{i:06d}_disp.npy")[0, 0] - 0.01) / 9.99 for i in range(6)]
    # without --disp_range, the first batch fixes the range
    low, high = flags[1:] or (np.min(disps[:2]), np.percentile(disps[:2], 95))
    for i in range(6):
        picture = cv2.imread(str(folder / f"{i:06d}_disp.jpeg")).astype(float)
        assert np.abs(picture - paint(disps[i], low, high)).mean() < 15  # JPEG blurs colours


def test_the_first_batch_fixes_the_colour_range_of_a_video(video, weights, tmp_path):
    footage = Footage(video, max_frames=2)
    batches = [[Frame(still.label, still.name, still.read(),
                      np.linspace(*ends, HEIGHT * WIDTH, dtype=np.float32).reshape(
                          1, 1, HEIGHT, WIDTH))]
               for still, ends in zip(footage, ((0.2, 0.4), (0.6, 0.9)), strict=True)]
    writer = FrameWriter(OutputOptions({"picture"}, tmp_path / "out"), Predictor(weights),
                         Unit(1, "none"), is_video=True)
    with ThreadPoolExecutor() as pool:
        assert write_batches(footage, batches, writer, pool) == 2
    first, second = (np.array(Image.open(tmp_path / f"out/drive/{i:06d}_disp.jpeg")).astype(float)
                     for i in range(2))
    assert first[0].mean() < 20  # its farthest is black
    assert np.abs(first[-1] - WHITE).mean() < 6
    assert np.abs(second - WHITE).mean() < 6  # all of it is nearer than anything in the first


@pytest.mark.parametrize(("flags", "found", "status"), [
    (["--disp_range", 0.5, 0.5], "it must ascend, between 0 and 1", 2),
    (["--pred_metric_depth", "--output", "disp"], "leave one out", 2),
    (["--scale", 2, "--scale_from", "x.npz"], "not allowed with argument --scale", 2),
    (["--scale_from", "nowhere.npz"], "nowhere.npz does not exist; give a gt_depths.npz", 1),
    (["--min_depth", 200], "--min_depth 200.0 is not below --max_depth 100.0", 1)])
def test_wrong_flags_get_one_line_and_write_nothing(image, weights, script, flags, found, status):
    outcome = script("test_simple", "--image_path", image, "--load_weights_folder", weights, *flags)
    assert found in one_line(outcome, status)
    assert [path.name for path in image.parent.iterdir()] == ["street.jpg"]


@pytest.mark.parametrize("name", test_simple.COLORMAPS)
def test_colormap_sets_the_colours_of_pictures(image, weights, script, name):
    predict(script, image, weights, "--output", "disp", "picture", "--size", "image", "--colormap",
            name)
    disp = np.load(image.with_name("street_disp.npy"))[0, 0]
    level = (disp - disp.min()) / (np.percentile(disp, 95) - disp.min())
    expected = cv2.applyColorMap((255 * level.clip(0, 1)).astype(np.uint8),
                                 getattr(cv2, f"COLORMAP_{name.upper()}"))
    picture = cv2.imread(str(image.with_name("street_disp.jpeg"))).astype(float)
    assert np.abs(picture - expected).mean() < 15  # JPEG blurs colours

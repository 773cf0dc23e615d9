"""The public names: parameters, results and attributes that code written for Monodepth2 expects."""
from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

B, H, W = 2, 64, 96
CHANNELS = np.array([64, 64, 128, 256, 512])  # of ResNet-18's feature maps
DATASET = "data_path, filenames, height, width, frame_idxs, num_scales, is_train=False, " \
          "img_ext='.jpg'"
MAP, POSE = f"float32 ({B}, 1, {H}, {W})", f"float32 ({B}, 4, 4)"
IMAGE, GRID = f"float32 ({B}, 3, {H}, {W})", f"float32 ({B}, {H}, {W}, 2)"
POINTS = f"float32 ({B}, 4, {H * W})"


class Row(NamedTuple):
    """A public name: its first parameters, a call, and what the call returns.

    Attributes:
        name: dotted, from the module on.
        parameters: as in a `def` line; further ones must have defaults.
        call: gets the object and a folder with files in KITTI's formats; None: only the signature.
        result: type or dtype and shape of what the call returns.
        span: least and greatest value that may be returned.
    """

    name: str
    parameters: str
    call: Callable | None = None
    result: object = None
    span: tuple[float, float] = (-np.inf, np.inf)


def rand(*shape):
    return torch.rand(*shape)


def intrinsics():
    K = torch.eye(4).repeat(B, 1, 1)
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = 0.58 * W, 1.92 * H, W / 2, H / 2
    return K


def features(batch=B):
    return [rand(batch, int(c), H >> i, W >> i) for i, c in enumerate(CHANNELS, 1)]


def still(points):
    return points(B, H, W)(1 + 9 * rand(B, 1, H, W), torch.linalg.inv(intrinsics()))


def small_dataset(path):
    """Return a training dataset of one stereo pair and its scan."""
    return find("datasets.KITTIRAWDataset")(path, ["date/drive 7 l"], H, W, [0, "s"], 2, True)


def reprojected(grid, **options):
    points = still(import_module("layers").BackprojectDepth)
    return grid(B, H, W, **options)(points, intrinsics(), torch.eye(4).repeat(B, 1, 1))


ROWS = [
    Row("layers.disp_to_depth", "disp, min_depth, max_depth",
        lambda f, _: f(disp=rand(B, 1, H, W), min_depth=0.1, max_depth=100), [MAP, MAP],
        (0.01, 100)),
    Row("layers.transformation_from_parameters", "axisangle, translation, invert=False",
        lambda f, _: f(axisangle=rand(B, 1, 3), translation=rand(B, 1, 3), invert=True), POSE),
    Row("layers.get_translation_matrix", "translation_vector",
        lambda f, _: f(translation_vector=rand(B, 1, 3)), POSE, (0, 1)),
    Row("layers.rot_from_axisangle", "vec", lambda f, _: f(vec=rand(B, 1, 3)), POSE, (-1, 1)),
    Row("layers.ConvBlock", "in_channels, out_channels",
        lambda f, _: f(in_channels=3, out_channels=5)(rand(B, 3, H, W)),
        f"float32 ({B}, 5, {H}, {W})", (-1, np.inf)),
    Row("layers.Conv3x3", "in_channels, out_channels, use_refl=True",
        lambda f, _: f(3, 5, use_refl=False)(rand(B, 3, H, W)), f"float32 ({B}, 5, {H}, {W})"),
    Row("layers.BackprojectDepth", "batch_size, height, width", lambda f, _: still(f), POINTS),
    Row("layers.BackprojectDepth.forward", "self, depth, inv_K"),
    Row("layers.Project3D", "batch_size, height, width, eps=1e-7",
        lambda f, _: reprojected(f), GRID, (-1 - 1e-5, 1 + 1e-5)),
    Row("layers.Project3D.forward", "self, points, K, T"),
    Row("layers.upsample", "x", lambda f, _: f(x=rand(B, 1, H // 2, W // 2)), MAP, (0, 1)),
    Row("layers.get_smooth_loss", "disp, img",
        lambda f, _: f(disp=rand(B, 1, H, W), img=rand(B, 3, H, W)), "float32 ()", (0, 2)),
    Row("layers.SSIM", "", lambda f, _: f()(rand(B, 3, H, W), rand(B, 3, H, W)), IMAGE, (0, 1)),
    Row("layers.SSIM.forward", "self, x, y"),
    Row("layers.compute_depth_errors", "gt, pred",
        lambda f, _: f(gt=1 + rand(9), pred=1 + rand(9)), ["float32 ()"] * 7, (0, 1)),

    Row("utils.readlines", "filename", lambda f, path: f(filename=path / "list.txt"),
        ["str", "str"]),
    Row("utils.normalize_image", "x", lambda f, _: f(x=5 * rand(3, H, W) - 2),
        f"float32 (3, {H}, {W})", (0, 1)),
    Row("utils.sec_to_hm", "t", lambda f, _: f(t=10239.5), ["int", "int", "int"], (0, 59)),
    Row("utils.sec_to_hm_str", "t", lambda f, _: f(t=10239.5), "str"),
    Row("utils.download_model_if_doesnt_exist", "model_name"),

    Row("kitti_utils.load_velodyne_points", "filename",
        lambda f, path: f(filename=path / "scan.bin"), "float32 (3, 4)", (-5, 10)),
    Row("kitti_utils.read_calib_file", "path",
        lambda f, path: f(path=path / "calib_velo_to_cam.txt"),
        {"R": "float64 (9,)", "T": "float64 (3,)"}),
    Row("kitti_utils.sub2ind", "matrixSize, rowSub, colSub",
        lambda f, _: f(matrixSize=(3, 4), rowSub=np.array([0, 2]), colSub=np.array([1, 3])),
        "int64 (2,)", (0, 8)),
    Row("kitti_utils.generate_depth_map", "calib_dir, velo_filename, cam=2, vel_depth=False",
        lambda f, path: f(calib_dir=path, velo_filename=path / "scan.bin", vel_depth=True),
        "float32 (6, 8)", (0, 10)),

    Row("networks.ResnetEncoder", "num_layers, pretrained, num_input_images=1",
        lambda f, _: f(18, False, num_input_images=2)(rand(B, 6, H, W)),
        [f"float32 ({B}, {c}, {H >> i}, {W >> i})" for i, c in enumerate(CHANNELS, 1)]),
    Row("networks.ResnetEncoder.forward", "self, input_image"),
    Row("networks.DepthDecoder", "num_ch_enc, scales=range(4), num_output_channels=1, "
        "use_skips=True", lambda f, _: f(CHANNELS)(features()),
        {("disp", s): f"float32 ({B}, 1, {H >> s}, {W >> s})" for s in (3, 2, 1, 0)}, (0, 1)),
    Row("networks.DepthDecoder.forward", "self, input_features"),
    Row("networks.PoseDecoder", "num_ch_enc, num_input_features, num_frames_to_predict_for=None, "
        "stride=1", lambda f, _: f(CHANNELS, 1, num_frames_to_predict_for=2)([features()]),
        [f"float32 ({B}, 2, 1, 3)"] * 2, (-0.1, 0.1)),
    Row("networks.PoseDecoder.forward", "self, input_features"),
    Row("networks.PoseCNN", "num_input_frames", lambda f, _: f(3)(rand(B, 9, H, W)),
        [f"float32 ({B}, 2, 1, 3)"] * 2, (-0.1, 0.1)),
    Row("networks.PoseCNN.forward", "self, out"),

    *(Row(f"datasets.{name}", DATASET) for name in (
        "MonoDataset", "KITTIDataset", "KITTIRAWDataset", "KITTIOdomDataset",
        "KITTIDepthDataset")),
    Row("datasets.MonoDataset.get_color", "self, folder, frame_index, side, do_flip"),
    Row("datasets.MonoDataset.get_depth", "self, folder, frame_index, side, do_flip"),
    Row("datasets.MonoDataset.check_depth", "self"),
    Row("datasets.MonoDataset.preprocess", "self, inputs, color_aug"),
    Row("datasets.KITTIRAWDataset.__getitem__", "self, index",
        lambda f, path: f(small_dataset(path), 0),
        {**{(name, f, s): f"float32 (3, {H >> s}, {W >> s})" for name in ("color", "color_aug")
            for f in (0, "s") for s in (0, 1)},
         **{(name, s): "float32 (4, 4)" for name in ("K", "inv_K") for s in (0, 1)},
         "stereo_T": "float32 (4, 4)", "depth_gt": "float32 (1, 375, 1242)"}, (-1, 200)),
    Row("datasets.KITTIRAWDataset.get_image_path", "self, folder, frame_index, side"),

    Row("evaluate_depth.evaluate", "opt"),
    Row("evaluate_depth.compute_errors", "gt, pred",
        lambda f, _: f(gt=np.ones(9), pred=np.full(9, 1.1)), ["float64"] * 7, (0, 1)),
    Row("evaluate_depth.batch_post_process_disparity", "l_disp, r_disp",
        lambda f, _: f(l_disp=np.ones((B, H, W)), r_disp=np.ones((B, H, W))),
        f"float64 ({B}, {H}, {W})", (1 - 1e-9, 1 + 1e-9)),
    Row("evaluate_pose.evaluate", "opt"),
    Row("evaluate_pose.dump_xyz", "source_to_target_transformations",
        lambda f, _: f([np.eye(4)] * 4), "float64 (5, 3)", (0, 0)),
    Row("evaluate_pose.compute_ate", "gtruth_xyz, pred_xyz_o",
        lambda f, _: f(gtruth_xyz=np.eye(3), pred_xyz_o=np.eye(3)), "float", (0, 0)),
    Row("test_simple.parse_args", ""),
    Row("test_simple.test_simple", "args"),
    Row("export_gt_depth.export_gt_depths_kitti", ""),
    Row("options.MonodepthOptions", "",
        lambda f, _: [f().parser.parse_args([]), f().parse([])], ["Namespace", "Namespace"]),
    Row("trainer.Trainer", "options"),
    Row("trainer.Trainer.train", "self"),
]


def find(name):
    """Return the object of a dotted name."""
    module, *attributes = name.split(".")
    found = import_module(module)
    for attribute in attributes:
        found = getattr(found, attribute)
    return found


def describe(result):
    """Return the dtype and shape of an array, or the type of a value; of each part of a result."""
    if isinstance(result, dict):
        return {key: describe(value) for key, value in result.items()}
    if isinstance(result, (tuple, list)):
        return [describe(value) for value in result]
    if isinstance(result, (torch.Tensor, np.ndarray)):
        return f"{str(result.dtype).removeprefix('torch.')} {tuple(result.shape)}"
    return type(result).__name__


def numbers_of(result):
    """Yield the arrays of all numbers in a result."""
    if isinstance(result, (dict, tuple, list)):
        for value in (result.values() if isinstance(result, dict) else result):
            yield from numbers_of(value)
    elif isinstance(result, torch.Tensor):
        yield result.detach().numpy()
    elif isinstance(result, (np.ndarray, float, int)):
        yield np.asarray(result)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Write a list, a calibration and a scan of three points, one of them behind the camera."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "list.txt").write_text("a 1 l\nb 2 r\n")
    (folder / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 8 6\nR_rect_00: 1 0 0 0 1 0 0 0 1\n"
        "P_rect_02: 4 0 4 0 0 4 3 0 0 0 1 0\n")
    (folder / "calib_velo_to_cam.txt").write_text(
        "calib_time: 15-Mar-2012 11:37:16\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
    np.array([[5, 0, 0, 0.3], [10, -5, 1, 0.2], [-1, 0, 0, 0.1]], np.float32).tofile(
        folder / "scan.bin")
    for name in ("image_02/data/0000000007.jpg", "image_03/data/0000000007.jpg"):
        path = folder / "date/drive" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (200, 100), (255, 0, 0)).save(path)
    scan = folder / "date/drive/velodyne_points/data/0000000007.bin"
    scan.parent.mkdir(parents=True)
    for source, target in (("calib_cam_to_cam.txt", folder / "date/calib_cam_to_cam.txt"),
                           ("calib_velo_to_cam.txt", folder / "date/calib_velo_to_cam.txt"),
                           ("scan.bin", scan)):
        shutil.copy(folder / source, target)
    return folder


rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


@rows
def test_a_public_name_has_the_parameters_of_the_original(row):
    found = [p for p in inspect.signature(find(row.name)).parameters.values()
             if p.kind is not p.VAR_POSITIONAL and p.kind is not p.VAR_KEYWORD]
    expected = inspect.signature(eval(f"lambda {row.parameters}: 0")).parameters.values()
    assert [(p.name, p.default) for p in found[:len(expected)]] == [
        (p.name, p.default) for p in expected]
    assert [p.name for p in found[len(expected):] if p.default is p.empty] == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.call], ids=lambda row: row.name)
def test_a_call_returns_the_originals_shapes_types_and_ranges(row, files):
    result = row.call(find(row.name), files)
    assert describe(result) == row.result
    low, high = row.span
    for numbers in numbers_of(result):
        assert np.isfinite(numbers).all()
        assert numbers.min() >= low
        assert numbers.max() <= high


@pytest.mark.parametrize(("make", "attributes"), [
    ("layers.BackprojectDepth(2, 64, 96)", {"batch_size": 2, "height": 64, "width": 96}),
    ("layers.Project3D(2, 64, 96)", {"batch_size": 2, "height": 64, "width": 96, "eps": 1e-7}),
    ("layers.Project3D(2, 64, 96, eps=0.1)", {"eps": 0.1}),
    ("networks.ResnetEncoder(18, False)", {"num_ch_enc": CHANNELS}),
    ("networks.ResnetEncoder(50, False)", {"num_ch_enc": np.array([64, 256, 512, 1024, 2048])}),
    ("networks.DepthDecoder(CHANNELS, scales=[0, 2], num_output_channels=3, use_skips=False)",
     {"num_ch_enc": CHANNELS, "num_ch_dec": np.array([16, 32, 64, 128, 256]), "scales": [0, 2],
      "num_output_channels": 3, "use_skips": False}),
    ("networks.PoseDecoder(CHANNELS, 3)",
     {"num_ch_enc": CHANNELS, "num_input_features": 3, "num_frames_to_predict_for": 2}),
    ("networks.PoseDecoder(CHANNELS, 1, 2)", {"num_frames_to_predict_for": 2}),
    ("networks.PoseCNN(3)", {"num_input_frames": 3}),
    ("datasets.KITTIRAWDataset('nowhere', ['a/b 1 l'], 64, 96, [0], 4)",
     {"data_path": "nowhere", "filenames": ["a/b 1 l"], "height": 64, "width": 96,
      "num_scales": 4, "frame_idxs": [0], "is_train": False, "img_ext": ".jpg",
      "interp": Image.Resampling.LANCZOS, "full_res_shape": (1242, 375),
      "brightness": (0.8, 1.2), "contrast": (0.8, 1.2), "saturation": (0.8, 1.2),
      "hue": (-0.1, 0.1), "load_depth": False,
      "side_map": {"2": 2, "3": 3, "l": 2, "r": 3}}),
    ("evaluate_depth", {"STEREO_SCALE_FACTOR": 5.4})])
def test_objects_have_the_originals_attributes(make, attributes):
    module = make.partition(".")[0]
    found = eval(make, {module: import_module(module), "CHANNELS": CHANNELS})
    for name, expected in attributes.items():
        value = getattr(found, name)
        assert np.array_equal(value, expected), name
        assert isinstance(value, type(expected)), name


def test_a_datasets_helpers_read_resize_and_convert_images(files):
    dataset = small_dataset(files)
    image = dataset.loader(dataset.get_image_path("date/drive", 7, "l"))
    assert (image.mode, image.size) == ("RGB", (200, 100))
    assert [dataset.resize[s](image).size for s in (0, 1)] == [(W, H), (W // 2, H // 2)]
    tensor = dataset.to_tensor(image)
    assert describe(tensor) == "float32 (3, 100, 200)"
    assert tensor.amax((1, 2)).tolist() == pytest.approx([1, 0, 0], abs=0.02)
    assert isinstance(dataset.get_color("date/drive", 7, "r", True), Image.Image)


def test_encoders_widths_are_multiplied_as_an_array():
    # a list would be repeated instead
    encoder = find("networks.ResnetEncoder")(18, False)
    encoder.num_ch_enc[1:] *= 4
    assert encoder.num_ch_enc.tolist() == [64, 256, 512, 1024, 2048]
    assert encoder.encoder.layer4[1].conv2.out_channels == 512  # torchvision's ResNet


def test_project3d_divides_by_depth_plus_eps():
    grids = [reprojected(find("layers.Project3D"), eps=eps) for eps in (1e-7, 1e3)]
    assert grids[0].abs().max() > 0.99
    assert (grids[1] + 1).abs().max() < 0.05  # every point falls near pixel (0, 0)


def test_sub2ind_numbers_as_kittis_matlab_code_does():
    sub2ind = find("kitti_utils.sub2ind")
    rows, columns = np.mgrid[:3, 1:5]
    assert (sub2ind((3, 4), rows, columns) == rows * 3 + columns - 1).all()
    # the confusion of a row's last column with the next row's first one
    assert sub2ind((3, 4), 0, 3) == sub2ind((3, 4), 1, 0)


def test_a_depth_map_has_scan_points_at_their_pixels(files):
    # by hand: column 4 x / z + 4 and row 4 y / z + 3 of the camera, rounded, minus 1
    depth = find("kitti_utils.generate_depth_map")(files, files / "scan.bin")
    assert {tuple(pixel): depth[tuple(pixel)] for pixel in np.argwhere(depth)} == {
        (2, 3): 5, (2, 5): 10}


@pytest.mark.parametrize("module", ["layers", "utils", "kitti_utils", "networks", "datasets",
                                    "evaluate_depth", "evaluate_pose", "options", "trainer"])
def test_a_star_import_gives_the_public_names(module):
    names: dict = {}
    exec(f"from {module} import *", names)  # as it stands in code written for the original
    listed = {row.name.split(".")[1] for row in ROWS if row.name.startswith(f"{module}.")}
    assert listed <= names.keys()


def test_star_imports_of_a_trainer_do_not_hide_each_other():
    names: dict = {}
    exec("from utils import *\nfrom kitti_utils import *\nfrom layers import *\n"
         "import datasets\nimport networks", names)
    assert names["readlines"] is find("utils.readlines")
    assert {"np", "torch", "nn", "F", "SSIM", "sec_to_hm_str", "datasets", "networks"} <= (
        names.keys())


def test_the_table_has_every_name_of_the_design_page():
    page = (ROOT / "docs/design.md").read_text().partition("\n## Names for code")[2]
    listed = {(module, name) for module, names in re.findall(
        r"^\| `(\w+)` \| (.+) \|$", page.partition("\n## ")[0], re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names.partition(":")[0])}
    tested = {tuple(row.name.split(".")[:2]) for row in ROWS}
    assert listed == tested | {("evaluate_depth", "STEREO_SCALE_FACTOR")}

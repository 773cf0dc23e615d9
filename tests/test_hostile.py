"""Every parser returns a value or raises the project's own error, whatever its input holds.

Each test tries hundreds of inputs; `make faults` tries 20,000.
"""
import io
import json
import re
import warnings
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import Malicious
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as safetensors

from checkpoints.architecture import load_model, pose_frames
from checkpoints.frames_seen import read_frames_seen
from checkpoints.state_file import read_state
from checkpoints.training_camera import TrainingCamera, parse_training_camera
from checkpoints.weights import load_adam
from datasets import KITTIRAWDataset
from datasets.ground_truth import load_gt_depths
from datasets.intrinsics import Intrinsics, parse_intrinsics
from datasets.splits import parse_line, read_split
from evaluation.results import parse_results
from evaluation.trajectory_files import read_five_frame_error, read_times, read_trajectory
from experiments.lists import check_line, read_experiments
from kitti_utils import generate_depth_map, load_velodyne_points, read_calib_file, read_poses
from metrics.trajectory import score_trajectory
from options import DEPTH, POSE, TRAIN, MonodepthOptions
from runtime.errors import DataError
from runtime.files import read_array
from training.states import TrainingStates


@st.composite
def mutated(draw, valid):
    """Draw random bytes, or a valid file with a few bytes changed, removed or inserted."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=300))
    content = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.sampled_from([0, 1, 1, 1, 2, 4, 50]))
        content[start:end] = draw(st.binary(max_size=8) | st.sampled_from(
            [b"\xff\xff\xff\xff", b"\x00", b"-1", b"1e999", b"nan", b"9" * 12, b"\n", b":"]))
    return bytes(content)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def tried(parse, *arguments, refusal=DataError):
    """Call a parser; return its value, or None if it raises `refusal` with a message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about input that they accept
        try:
            return parse(*arguments)
        except refusal as error:
            words = str(error)
    assert words
    assert "\n" not in words or refusal is not DataError
    return None


SPLITS = [b"2011_09_26/drive_0001_sync 5 l\n", b"a/b l: 1-5 7 9-20\n# c\nimage: 0-499\n"]
CALIBRATION = [b"calib_time: 09-Jan-2012 13:57:47\nS_rect_02: 1.2e1 8\nR_rect_00: 1 0 0 0 1 0 0 0 1"
               b"\nP_rect_02: 7 0 6 0 0 7 4 0 0 0 1 0\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n"]
POSES = [b"1 0 0 5 0 1 0 6 0 0 1 7\n1.0e+00 0 0 -5 0 1 0 6 0 0 1 7\n"]
SCANS = [np.tile(np.float32([5, 0, 0, 0.3]), 3).tobytes()]


@given(mutated(SPLITS))
def test_split_lists(place, content):
    path = place / "files.txt"
    path.write_bytes(content)
    for line in (tried(read_split, path) or [])[:100]:
        folder, frame, _ = parse_line(line)
        assert ".." not in folder.split("/")
        assert not folder.startswith("/")
        assert frame >= 0


@given(st.text(max_size=60))
def test_split_lines(line):
    tried(parse_line, line)


@given(mutated(CALIBRATION), mutated(SCANS))
def test_calibrations_and_scans(place, calibration, scan):
    for name in ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt"):
        (place / name).write_bytes(calibration)
    (place / "scan.bin").write_bytes(scan)
    tried(read_calib_file, place / "calib_cam_to_cam.txt")
    points = tried(load_velodyne_points, place / "scan.bin")
    assert points is None or np.isfinite(points).all()
    depth = tried(generate_depth_map, place, place / "scan.bin")
    assert depth is None or np.isfinite(depth).all()


@given(mutated(POSES))
def test_poses(place, content):
    (place / "09.txt").write_bytes(content)
    poses = tried(read_poses, place / "09.txt")
    assert poses is None or (poses.shape[1:] == (4, 4) and np.isfinite(poses).all())


TRAJECTORIES = [*POSES, b"4 1 0 0 5 0 1 0 6 0 0 1 7\n6 1.0e+00 0 0 -5 0 1 0 6 0 0 1 7\n"]


@given(mutated(TRAJECTORIES), st.sampled_from(["none", "scale", "6dof", "7dof"]))
def test_trajectories(place, content, alignment):
    (place / "estimate.txt").write_bytes(content)
    found = tried(read_trajectory, place / "estimate.txt")
    if found is not None:
        frames, poses = found
        assert poses.shape == (len(frames), 4, 4)
        assert (np.diff(frames) > 0).all()
        scores = tried(score_trajectory, poses, np.arange(len(poses)), poses, alignment)
        assert scores is None or np.isfinite(scores.ate)


@given(mutated([b"0.0\n1.037120e-01\n"]))
def test_times(place, content):
    (place / "times.txt").write_bytes(content)
    times = tried(read_times, place / "times.txt")
    assert times is None or np.isfinite(times).all()


@given(mutated([b'{"five_frame_error": 0.017, "t_err": null}\n', b'{"five_frame_error": null}\n']))
def test_errors_of_trajectories(place, content):
    (place / "trajectory_09.json").write_bytes(content)
    error = tried(read_five_frame_error, place / "trajectory_09.json")
    assert error is None or isinstance(error, float)


@given(mutated([b'python train.py --model_name a_$SEED --log_dir "$OUT" && python '
                b'evaluate_depth.py --eval_mono --load_weights_folder w --eval_out_dir '
                b'"$OUT"/a_$SEED\n']))
def test_lists_of_experiments(place, content):
    (place / "list.sh").write_bytes(content)
    experiments = tried(read_experiments, place / "list.sh", refusal=(DataError, SystemExit))
    for name, line in (experiments or {}).items():
        assert re.fullmatch(r"\w+", name)
        assert check_line(line, "list.sh, line 1") == name


CAMERAS = [json.dumps(camera._asdict()).encode() for camera in (
    Intrinsics(720.5, 721, 609, 172.5, 1242, 375, 0.54),
    TrainingCamera("stereo", 0.1, 100.0, 0.54,
                   [[0.58, 0, 0.5], [0, 1.92, 0.5], [0, 0, 1]], [1242, 375]))]


@given(mutated(CAMERAS))
def test_cameras(content):
    camera = tried(parse_intrinsics, content, "intrinsics.json")
    if camera is not None:
        assert np.isfinite(camera.normalised).all()
        assert camera.width > 0
    camera = tried(parse_training_camera, content, "camera.json")
    if camera is not None:
        assert camera.unit().words
        assert camera.intrinsics(64, 32) is None or np.isfinite(
            camera.intrinsics(64, 32)[:6]).all()


RESULTS = [json.dumps({"lines": ["drive 0 l", "drive 1 l"], "images": {
    "abs_rel": [0.1, None], "scaling_ratio": [30.5, 31.5], "pixels": [900, 1000]}}).encode()]


@given(mutated(RESULTS))
def test_results(content):
    found = tried(parse_results, content, "results.json")
    if found is not None:
        lines, columns = found
        assert all(values.shape == (len(lines),) for values in columns.values())


PARSERS = {script: MonodepthOptions(script) for script in (TRAIN, DEPTH, POSE)}
FLAGS = sorted({flag for parser in PARSERS.values()
                for flag in parser.parser._option_string_actions if flag not in ("-h", "--help")})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([TRAIN, DEPTH, POSE]), st.lists(
    st.sampled_from(FLAGS) | st.sampled_from(["0", "-1", "1", "32", "nan", "inf", "1e999", "auto"])
    | st.integers().map(str) | st.floats().map(str) | st.text(max_size=9), max_size=9))
def test_command_lines(capsys, script, words):
    opts = tried(PARSERS[script].parse, words, refusal=SystemExit)
    error = capsys.readouterr().err
    if opts is not None:
        assert opts.batch_size > 0
    elif error:  # -h and its longer forms print no error
        assert "error: " in error
        assert error.count("\n") == 1 or any("\n" in word for word in words)


def array_file(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def objects(*arrays):
    held = np.empty(len(arrays), object)
    held[:] = arrays
    return held


ARRAYS = [array_file(np.arange(6, dtype=np.float32).reshape(1, 2, 3)), array_file(np.zeros((0, 3))),
          array_file(objects(np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)))]


@given(mutated(ARRAYS))
def test_arrays(content):
    array = tried(read_array, content, True, refusal=ValueError)
    assert getattr(array, "nbytes", 0) <= len(content) + 1000


@given(mutated(ARRAYS), st.booleans(), st.data())
def test_ground_truth(place, content, is_zip_damaged, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth_000000.npy", content)
    packed = buffer.getvalue()
    (place / "gt.npz").write_bytes(data.draw(mutated([packed])) if is_zip_damaged else packed)
    for depth in tried(load_gt_depths, place / "gt.npz") or []:
        assert depth.ndim == 2


def image_file(kind, mode="RGB"):
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (20, 24, 3), np.uint8)).convert(
        mode).save(buffer, kind)
    return buffer.getvalue()


IMAGES = [image_file(*how) for how in (("JPEG",), ("PNG",), ("JPEG", "L"), ("PNG", "P"), ("BMP",),
                                       ("GIF",), ("TIFF",), ("WEBP",))]


@given(mutated(IMAGES))
def test_images(place, content):
    folder = place / "drive/image_02/data"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "0000000000.jpg").write_bytes(content)
    dataset = KITTIRAWDataset(place, ["drive 0 l"], 64, 96, [0], 1)
    for read in (dataset.load, dataset.__getitem__):
        item = tried(read, 0)
        assert item is None or item["color", 0, 0].shape == (3, 64, 96)


def state_file(state, **how):
    buffer = io.BytesIO()
    torch.save(state, buffer, **how)
    return buffer.getvalue()


STATE = {"encoder.conv1.weight": torch.zeros(2, 3, 2, 2), "height": 64, "width": 96,
         "use_stereo": False}
WRAPPED = {"epoch": np.int64(3), "loss": np.float32(0.5), "opt": Namespace(lr=1e-4),
           "model": {f"module.{key}": value for key, value in STATE.items()}}
STATES = [state_file(state, _use_new_zipfile_serialization=is_zip)
          for state in (STATE, WRAPPED) for is_zip in (True, False)]


@given(mutated(STATES))
def test_weights(place, content):
    for name in ("encoder", "depth"):
        (place / f"{name}.pth").write_bytes(content)
    tried(read_state, place / "encoder.pth")
    assert tried(load_model, place) is None  # no mutation is a whole ResNet


OTHERS = json.dumps({"height": 64, "width": 96, "use_stereo": False, "encoder_name": "a"})
SAFETENSORS = [safetensors({"encoder.conv1.weight": torch.zeros(2, 3, 2, 2, dtype=dtype)},
                           {"monodepth2": OTHERS}) for dtype in (torch.float32, torch.int64)]


@given(mutated(SAFETENSORS))
def test_safetensors(place, content):
    folder = place / "safetensors"
    folder.mkdir(exist_ok=True)
    for name in ("encoder", "depth"):
        (folder / f"{name}.safetensors").write_bytes(content)
    tried(read_state, folder / "encoder.safetensors")
    assert tried(load_model, folder) is None


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["height", "width", "use_stereo", "encoder_name", "model",
                                         "encoder.conv1.weight"]), inner, max_size=4), max_leaves=6)


@given(JSON.map(json.dumps) | st.text(max_size=30) | st.sampled_from(["[" * 5000, "9" * 5000]))
def test_safetensors_metadata(place, words):
    folder = place / "metadata"
    folder.mkdir(exist_ok=True)
    for name in ("encoder", "depth"):
        (folder / f"{name}.safetensors").write_bytes(
            safetensors({"encoder.conv1.weight": torch.zeros(64, 3, 7, 7)}, {"monodepth2": words}))
    assert tried(load_model, folder) is None


VALUES = st.sampled_from([
    torch.zeros(1).expand(10**12), torch.zeros(64, 3, 7, 7), torch.zeros(1, 16, 3, 3),
    torch.zeros(0), torch.zeros(2, 2).to_sparse(), torch.zeros((), dtype=torch.bool),
    torch.empty(5, device="meta"), torch.zeros(1).expand(64, 3 * 10**9, 7, 7), 64, -32, 10**30,
    True, None, 0.5, "text", [1], {"a": 1}, np.float64(64), np.bool_(True), np.str_("a"),
    {"module.encoder.conv1.weight": torch.zeros(64, 3, 7, 7)}, {"model": {}}])
KEYS = st.sampled_from([
    "encoder.conv1.weight", "encoder.layer3.0.conv1.weight", "encoder.layer3.", "height", "width",
    "encoder.layer1.0.conv3.weight", "use_stereo", "decoder.10.conv.weight", "pose_conv.weight",
    "net.0.weight", "decoder.11.conv.weight", "", 5, "model", "state_dict", "module.",
    "module.encoder.conv1.weight"])
MADE = st.dictionaries(KEYS, VALUES, max_size=6)


@given(MADE, MADE, MADE, st.none() | MADE)
def test_weights_of_strange_parts(place, encoder, depth, pose, pose_encoder):
    folder = place / "weights_0"
    folder.mkdir(exist_ok=True)
    for name, state in (("encoder", encoder), ("depth", depth), ("pose", pose),
                        ("pose_encoder", pose_encoder)):
        (folder / f"{name}.pth").unlink(missing_ok=True)
        if state is not None:
            torch.save(state, folder / f"{name}.pth")
    for with_pose in (False, True):
        assert tried(lambda with_pose=with_pose: load_model(folder, with_pose=with_pose)) is None


@given(st.binary(max_size=60) | st.sampled_from([
    b"[" * 5000, b"null", *(b'{"num_layers": %s}' % n for n in (b"[]", b"1e400", b"true", b"19"))]))
def test_options_beside_weights(place, content):
    folder = place / "run" / "weights_0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "opt.json").write_bytes(content)
    for name in ("encoder", "depth"):
        torch.save(STATE, folder / f"{name}.pth")
    assert tried(load_model, folder) is None
    (folder / "config.json").write_bytes(content)
    for read in (load_model, read_frames_seen, lambda folder: pose_frames(folder, 3)):
        tried(read, folder)
    (folder / "config.json").unlink()


PARTS = st.dictionaries(
    st.sampled_from([0, 1, 7, "step", "exp_avg", "exp_avg_sq", "lr", "params", "betas"]),
    st.sampled_from([torch.zeros(2), torch.zeros(3), 0, [0], [0, 1], [[0]], None, (0.9, 0.99), {}]))


@given(st.dictionaries(st.sampled_from(["state", "param_groups", "more"]),
                       st.dictionaries(st.sampled_from([0, 1, 2, "a"]), PARTS)
                       | st.lists(PARTS, max_size=2) | st.none()))
def test_adams_state(place, state):
    torch.save(state, place / "adam.pth")
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    tried(load_adam, place, optimizer)


@given(st.dictionaries(st.sampled_from(sorted(TrainingStates.FORM)), st.sampled_from(
    [0, -1, [], [{}], {}, None, "text", torch.zeros(1)])))
def test_training_states(place, state):
    folder = place / "states"
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "training_state_00000001.pth")
    tried(TrainingStates(folder, 1).load)


def test_pickles_that_would_run_code_are_refused(place):
    for name in ("encoder", "adam", "training_state_00000002"):
        torch.save({"deep": [{"er": Malicious(place / "trap")}]}, place / f"{name}.pth")
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)])
    for parse in (lambda: load_model(place), lambda: load_adam(place, optimizer),
                  lambda: TrainingStates(place, 1).load()):
        with pytest.raises(DataError, match="cannot be read as weights"):
            parse()
    assert not (place / "trap").exists()

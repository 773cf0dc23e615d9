"""Test weights as other people's code saves them: wrapped, with more keys, or of other networks."""
import os
import pickle
import subprocess
import sys
import zipfile
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import ROOT, figures, one_line
from PIL import Image
from torch import nn
from torch.testing import assert_close

from checkpoints.architecture import load_model
from checkpoints.network_weights import read_weights
from checkpoints.state_file import read_state
from checkpoints.weights import InputFormat, load_weights, save_weights
from networks import Monodepth2
from runtime.errors import DataError

NAMES = ["encoder", "depth", "pose_encoder", "pose"]
DEPTH = NAMES[:2]
PUBLISHED = {"encoder": "encoder18", "depth": "depth18", "pose_encoder": "pose_encoder18x2",
             "pose": "pose18"}
IMAGES = torch.linspace(0, 1, 3 * 64 * 96).view(1, 3, 64, 96)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a folder of weights and the disparity that they predict."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    model = Monodepth2()
    save_weights(folder, model, torch.optim.Adam(model.parameters()), InputFormat(64, 96, True))
    with torch.no_grad():
        return folder, load_model(folder)[0].disparity(IMAGES)


@pytest.fixture
def changed(original, tmp_path):
    """Save each network as `change(name, state)` returns it; return the new folder."""
    def call(change, names=DEPTH):
        for name in names:
            state = torch.load(original[0] / f"{name}.pth", weights_only=True)
            torch.save(change(name, state), tmp_path / f"{name}.pth")
        return tmp_path
    return call


def prefixed(state, prefix):
    return {key if key in InputFormat._fields else prefix + key: value
            for key, value in state.items()}


def with_profile(state):
    """Add what a profiler of FLOPs leaves in every module, layer3 itself included."""
    counts = {f"{key.rpartition('.')[0]}.total_ops" for key in state if "." in key}
    counts |= {"total_ops", "total_params", "encoder.layer3.total_ops"}
    return state | {key: torch.zeros(1, dtype=torch.float64) for key in counts}


def nested(state, key):
    return {"epoch": 7, "optimizer": {"state": {}, "param_groups": []}, key: state}


def without(state, *endings):
    return {key: value for key, value in state.items() if not key.endswith(endings)}


WRAPPED = {
    "DataParallel": (lambda state: prefixed(state, "module."), "removed module. (nn.DataParallel"),
    "compiled": (lambda state: prefixed(state, "module._orig_mod."), "removed module._orig_mod."),
    "state_dict": (lambda state: nested(state, "state_dict"),
                   "took the weights in its 'state_dict'; skipped what the network lacks (epoch, "
                   "optimizer)"),
    "model": (lambda state: nested({"state_dict": prefixed(state, "module.")}, "model"),
              "took the weights in its 'model'; took the weights in its 'state_dict'; removed mod"),
    "thop": (with_profile, "skipped what the network lacks ("),
    "numbers": (lambda state: state | {"epoch": np.int64(3), "best": np.float32(0.1),
                                       "opt": Namespace(lr=1e-4, path="x"), "name": "a"},
                "skipped what the network lacks (best, epoch, name and 1 more)"),
}


@pytest.mark.parametrize(("change", "words"), WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_predict_the_same_and_say_so_once(original, changed, capsys, change, words):
    folder = changed(lambda name, state: change(state))
    model, form = load_model(folder)
    assert form == (64, 96, True)
    with torch.no_grad():
        assert torch.equal(model.disparity(IMAGES), original[1])
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["note", str(folder / f"{name}.pth")] for name in DEPTH]
    assert all(words in line for line in lines)
    fresh = Monodepth2(frame_ids=[0])
    lines = load_weights(folder, fresh, DEPTH)
    assert [line.split(": ")[0] for line in lines] == ["loaded encoder", "loaded depth"]
    assert all(words in line for line in lines)
    assert_close(fresh.state_dict(), model.state_dict())


def test_a_size_beside_nested_weights_is_read(changed):
    folder = changed(lambda name, state: {"height": 96, "width": 128,
                                          "model": without(state, "height", "width")})
    assert load_model(folder)[1] == (96, 128, True)


@pytest.mark.parametrize(("height", "width", "use_stereo"), [
    (64.0, 96.0, 1), (np.int64(64), np.float64(96), np.bool_(True)),
    (torch.tensor(64), torch.tensor([96.0]), torch.tensor(True)),
    (np.array(64, ">i2")[()], np.uint8(96), 1.0)], ids=["floats", "numpy", "tensors", "big endian"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_sizes_of_any_number_type_are_read(changed, height, width, use_stereo, is_zip):
    folder = changed(lambda name, state: state, ["depth"])
    encoder = torch.load(changed(lambda name, state: state, ["encoder"]) / "encoder.pth",
                         weights_only=True)
    torch.save(encoder | {"height": height, "width": width, "use_stereo": use_stereo},
               folder / "encoder.pth", _use_new_zipfile_serialization=is_zip)
    form = load_model(folder)[1]
    assert form == (64, 96, True)
    assert [type(value) for value in form] == [int, int, bool]


@pytest.mark.parametrize("height", [64.5, float("nan"), float("inf"), None, "tall", 10**400,
                                    torch.zeros(2), torch.zeros(1, device="meta")], ids=str)
def test_a_size_that_is_no_whole_number_is_refused(changed, height):
    folder = changed(lambda name, state: state | {"height": height}, DEPTH)
    with pytest.raises(DataError, match=r"encoder\.pth gives the input size 96x"):
        load_model(folder)


def test_missing_values_that_nothing_reads_are_filled_in(original, changed, capsys):
    folder = changed(lambda name, state: without(state, "fc.weight", "fc.bias",
                                                 "num_batches_tracked"))
    model, _ = load_model(folder)
    with torch.no_grad():
        assert torch.equal(model.disparity(IMAGES), original[1])
    (line,) = capsys.readouterr().err.splitlines()  # depth.pth lacks nothing
    assert line == (f"note: {folder / 'encoder.pth'}: filled in what the network does not "
                    "use (encoder.bn1.num_batches_tracked, encoder.fc.bias, encoder.fc.weight and "
                    "19 more)")


@pytest.mark.parametrize(("name", "value"), list(zip(
    NAMES, [float("nan"), float("inf"), -float("inf"), float("nan")], strict=True)))
def test_weights_that_are_not_finite_are_refused(changed, name, value):
    def spoil(of, state):
        if of == name:
            state[key := next(k for k in state if k.endswith(".bias"))].flatten()[-1] = value
            keys.append(key)
        return state
    keys = []
    folder = changed(spoil, NAMES)
    for load in (lambda: load_model(folder, with_pose=True),
                 lambda: load_weights(folder, Monodepth2(), NAMES)):
        with pytest.raises(DataError, match=rf"{name}\.pth has NaN or inf in {keys[0]}: "):
            load()


@pytest.mark.parametrize("change", [torch.Tensor.char, lambda value: value + 0j],
                         ids=["int8", "complex"])
def test_integer_and_complex_weights_are_refused(changed, change):
    folder = changed(lambda name, state: {
        key: change(value) if torch.is_floating_point(value) else value
        for key, value in state.items()} if name == "depth" else state)
    with pytest.raises(DataError, match=r"depth\.pth has numbers of another type .* in 28 keys"):
        load_model(folder)


def test_an_averaged_count_of_batches_is_read(original, changed):
    folder = changed(lambda _, state: {
        key: value + 0.5 if key.endswith("num_batches_tracked") else value
        for key, value in state.items()})
    with torch.no_grad():
        assert load_model(folder)[0].disparity(IMAGES).equal(original[1])


def test_a_variance_below_0_is_refused(changed):
    def damage(name, state):
        if name == "encoder":
            state["encoder.layer1.0.bn1.running_var"][3] = -0.1
        return state
    with pytest.raises(DataError, match=r"below 0 in encoder\.layer1\.0\.bn1\.running_var"):
        load_model(changed(damage))


def test_float64_weights_too_large_for_float32_are_refused(changed):
    folder = changed(lambda name, state: state | {
        "decoder.0.conv.conv.bias": torch.full((256,), 1e300, dtype=torch.float64)}, ["depth"])
    with pytest.raises(DataError, match=r"has NaN or inf in decoder\.0\.conv\.conv\.bias"):
        load_weights(folder, Monodepth2(), ["depth"])


def test_large_finite_weights_and_half_precision_are_loaded(original, changed):
    folder = changed(lambda name, state: {
        key: value.half() if isinstance(value, torch.Tensor) else value
        for key, value in state.items()})
    with torch.no_grad():
        assert_close(load_model(folder)[0].disparity(IMAGES), original[1], atol=1e-2, rtol=0)
    large = torch.full((256,), 3e38)  # their sum overflows
    changed(lambda name, state: state | {"decoder.0.conv.conv.bias": large}, ["depth"])
    model = Monodepth2()
    load_weights(folder, model, ["depth"])
    assert torch.equal(model.depth.decoder[0].conv.conv.bias, large)


def test_weights_saved_on_another_gpu_are_loaded(original, changed, tmp_path):
    source = original[0] / "encoder.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "encoder.pth", "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("data.pkl"):  # where each storage was: a pickled string
                content = content.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:7")
            new.writestr(item, content)
    with pytest.raises((RuntimeError, pickle.UnpicklingError), match="CUDA"):
        torch.load(tmp_path / "encoder.pth", weights_only=True)
    changed(lambda name, state: state, ["depth"])
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)[0].disparity(IMAGES), original[1])


class Plain(nn.Module):
    """Parameters under given names, as in a module that knows nothing of this project."""

    def __init__(self, keys, shapes):
        super().__init__()
        for key in keys:
            *parents, own = key.split(".")
            module = self
            for parent in parents:
                if parent not in dict(module.named_children()):
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.register_buffer(own, torch.rand(shapes[key].shape).to(shapes[key].dtype))


def test_files_of_ours_load_into_plain_modules_and_the_reverse(original, tmp_path):
    published = figures("networks.npz")
    for name, tag in PUBLISHED.items():
        ours = torch.load(original[0] / f"{name}.pth", weights_only=True)
        weights = without(ours, *InputFormat._fields)
        plain = Plain(published[f"{tag}/keys"].tolist(), weights)
        own = {key: value.clone() for key, value in plain.state_dict().items()}
        torch.save({**plain.state_dict(), **{k: v for k, v in ours.items() if k not in weights}},
                   tmp_path / f"{name}.pth")
        plain.load_state_dict(weights, strict=True)
        network = dict(load_model_of(tmp_path, name).named_children())[name]
        assert_close(network.state_dict(), own)


def load_model_of(folder, name):
    model = Monodepth2()
    assert load_weights(folder, model, [name]) == [f"loaded {name}"]
    return model


class HighResolutionDecoder(nn.Module):
    """A decoder with another paper's names."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleDict({f"X_{i}{j}": nn.Conv2d(8, 8, 3)
                                    for i in range(4) for j in range(4)})


STRANGERS = {
    "decoder": ("depth", lambda state: HighResolutionDecoder().state_dict(),
                "depth.pth misses 28 keys (decoder.0.conv.conv.bias, "),
    "transformer": ("encoder", lambda state: {"patch_embed.weight": torch.rand(2, 3, 4, 4)},
                    "encoder.pth is no ResNet of 18, 34, 50, 101 or 152 layers: its third stage "
                    "has 0 blocks"),
    "more layers": ("encoder", lambda state: state | {
        "encoder.attention.weight": torch.rand(3), "encoder.attention.bias": torch.rand(3)},
        "encoder.pth has 2 unknown keys (encoder.attention.bias, encoder.attention.weight)"),
    "uncertainty": ("depth", lambda state: state | {
        "decoder.10.conv.weight": torch.rand(2, 16, 3, 3)},
        "depth.pth has other shapes of 1 key (decoder.10.conv.weight)"),
}


@pytest.mark.parametrize(("name", "change", "words"), STRANGERS.values(), ids=STRANGERS)
def test_another_papers_network_gets_a_line_that_says_so(changed, name, change, words):
    folder = changed(lambda of, state: change(state) if of == name else state)
    with pytest.raises(DataError) as error:
        load_model(folder)
    assert words in str(error.value)
    assert "it is not a network of Monodepth2" in str(error.value)


def test_fine_tuning_tells_strangers_from_other_flags(changed):
    folder = changed(lambda name, state: HighResolutionDecoder().state_dict(), ["depth"])
    with pytest.raises(DataError, match="it is not a network of Monodepth2"):
        load_weights(folder, Monodepth2(), ["depth"])
    folder = changed(lambda name, state: state)
    with pytest.raises(DataError, match="another architecture: match the model's flags"):
        load_weights(folder, Monodepth2(50), ["encoder"])


@pytest.mark.parametrize(("content", "words"), [
    ({"epoch": 3, "name": "a"}, "holds no weights, but epoch, name; expected the state dict"),
    ({}, "holds no weights, but nothing; expected"),
    (nn.Linear(2, 2), "cannot be read as weights: it holds torch.nn.modules.linear.Linear, and "
                      "loading other objects than tensors and numbers can run code"),
    ({"w": np.zeros(3)}, r"it holds numpy\._?core\.multiarray\._reconstruct, and loading"),
    ([torch.zeros(1)], "holds a list, expected a state dict")], ids=str)
def test_a_file_without_weights_is_told_by_its_content(tmp_path, content, words):
    torch.save(content, tmp_path / "encoder.pth")
    with pytest.raises(DataError, match=words):
        load_model(tmp_path)


def test_a_torchscript_archive_is_named_without_a_warning(tmp_path, recwarn):
    with zipfile.ZipFile(tmp_path / "encoder.pth", "w") as archive:
        for name in ("constants.pkl", "data.pkl", "version"):
            archive.writestr(f"encoder/{name}", b"3\n")
    # PyTorch 2.4's error does not speak of TorchScript
    with pytest.raises(DataError, match=r"read as weights: it is (a TorchS|cut off)"):
        load_model(tmp_path)
    assert not recwarn


def test_names_with_and_without_a_prefix_are_not_mixed(changed):
    folder = changed(lambda name, state: state | {"module.decoder.0.conv.conv.bias": torch.ones(1)},
                     ["depth"])
    with pytest.raises(DataError, match=r"has 1 unknown key \(module\.decoder\.0\.conv\.conv\.b"):
        load_weights(folder, Monodepth2(), ["depth"])


def test_a_dict_that_contains_itself_is_read(tmp_path):
    state = {"weight": torch.zeros(1)}
    state["model"] = state["state_dict"] = state
    torch.save(state, tmp_path / "encoder.pth")
    assert read_weights(tmp_path / "encoder.pth").tensors == {"weight": torch.zeros(1)}


def test_reading_leaves_what_the_process_allows_unchanged(tmp_path):
    before = set(map(str, torch.serialization.get_safe_globals()))
    torch.save({"height": np.int64(64)}, tmp_path / "encoder.pth")
    assert read_state(tmp_path / "encoder.pth") == {"height": 64}
    assert set(map(str, torch.serialization.get_safe_globals())) == before
    with pytest.raises(Exception, match="numpy"):
        torch.load(tmp_path / "encoder.pth", weights_only=True)


def test_a_file_or_a_long_name_for_the_folder_is_one_line(original, script, tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "x.png")
    for folder, words in ((original[0] / "encoder.pth", "encoder.pth is a file; "),
                          ("y" * 300, "yyy does not exist; ")):
        error = one_line(script("test_simple", "--image_path", tmp_path / "x.png",
                                "--load_weights_folder", folder), 1)
        assert words in error
        with pytest.raises(DataError, match=words):
            load_weights(folder, Monodepth2(frame_ids=[0]), DEPTH)


def test_a_note_is_printed_once_by_the_processes_of_torchrun(changed, tmp_path):
    folder = changed(lambda name, state: prefixed(state, "module."))
    (tmp_path / "load.py").write_text(
        "import sys\nfrom checkpoints.architecture import load_model\n"
        "from runtime.distributed import init_distributed, shut_down_distributed\n"
        "init_distributed(no_cuda=True)\nload_model(sys.argv[1])\nshut_down_distributed()\n")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         tmp_path / "load.py", folder], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("note: ") == 2  # encoder.pth and depth.pth

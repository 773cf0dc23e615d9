"""Train, resume, fine-tune, evaluate and export with encoders that are no ResNets."""
import sys
from importlib import import_module

import pytest
import torch
from conftest import HEIGHT, WIDTH, one_line, train_flags
from torchvision.models import get_model

import hubconf
from checkpoints.architecture import TRUSTED_FILE, load_model
from networks import Monodepth2
from options import MonodepthOptions
from prediction.onnx import PACKAGES, differences_from_pytorch, onnx_bytes
from prediction.predictor import Predictor
from runtime.errors import DataError
from trainer import Trainer
from training.build import load_imagenet_weights

timm = pytest.importorskip("timm", reason="needs timm")
import_module("tiny")  # registers --num_layers 2, a tiny encoder for poses
LITE0 = "tf_efficientnet_lite0"
# of timm's own tests: five maps, four maps, token maps
SMALL = ["test_efficientnet", "test_convnext", "test_vit"]


def flags(drive, tmp_path, *more):
    return train_flags(drive, "--num_layers", 2, "--scales", 0, "--log_dir", tmp_path,
                       "--model_name", "m", *more)


@pytest.fixture
def trained(drive, tmp_path):
    """Train an encoder for three steps; return its weights folder."""
    def call(name, *more):
        opts = MonodepthOptions().parse(flags(drive, tmp_path, "--encoder", name, *more))
        Trainer(opts).train()
        return tmp_path / "m" / "models" / "weights_0"
    return call


@pytest.mark.parametrize("name", SMALL)
def test_weights_folders_of_any_encoder_are_read_and_evaluated(trained, drive, script, name):
    folder = trained(name)
    stored = torch.load(folder / "encoder.pth", weights_only=True)
    assert stored["encoder_name"] == name
    model, form = load_model(folder, with_pose=True)
    assert form[:2] == (HEIGHT, WIDTH)
    assert model.encoder_names == {"encoder": name, "pose_encoder": 2}
    outcome = script("evaluate_depth", "--eval_mono", "--data_path", drive, "--eval_split",
                     drive / "splits" / "tiny", "--num_workers", 0, "--load_weights_folder", folder)
    assert outcome.status == 0, outcome.err
    prediction = hubconf.monodepth2(folder).predict(torch.rand(3, 50, 70))
    assert prediction.depth.shape == (1, 1, 50, 70)


def test_token_maps_are_exported(trained):  # `make encoders` exports the other kinds
    for package in PACKAGES:
        pytest.importorskip(package)
    predictor = Predictor(trained("test_vit"))
    assert differences_from_pytorch(onnx_bytes(predictor, 18), predictor).disp < 1e-4


def test_a_run_with_an_encoder_resumes_and_is_tuned(trained, drive, tmp_path, script):
    folder = trained("test_convnext")
    outcome = script("train", *flags(drive, tmp_path, "--encoder", "test_convnext", "--resume",
                                     "--num_epochs", 2))
    assert outcome.status == 0, outcome.err
    assert "with a feature map at 1/2 made by a convolution" in outcome.out
    changed = script("train", *flags(drive, tmp_path, "--resume"))
    assert "--encoder was test_convnext, is None" in one_line(changed, 2)
    other = script("train", *flags(drive, tmp_path, "--model_name", "other",
                                   "--load_weights_folder", folder))
    assert "encoder.pth is of the encoder test_convnext, the model has another; pass --encoder " \
           "test_convnext" in one_line(other, 1)
    tuned = script("train", *flags(drive, tmp_path, "--model_name", "tuned", "--encoder",
                                   "test_convnext", "--load_weights_folder", folder))
    assert "loaded encoder\nloaded depth\n" in tuned.out


def test_an_encoder_without_its_file_or_timm_gets_a_line(trained, tmp_path, monkeypatch):
    own = tmp_path / "own.py"
    own.write_text("from tiny import TinyEncoder")
    folder = trained(f"{own}:TinyEncoder")
    monkeypatch.delenv(TRUSTED_FILE, raising=False)
    with pytest.raises(DataError, match=rf"to run such a file, set the variable {TRUSTED_FILE}"):
        load_model(folder)
    moved = own.rename(tmp_path / "moved.py")
    monkeypatch.setenv(TRUSTED_FILE, str(moved))
    load_model(folder)
    moved.unlink()
    with pytest.raises(DataError, match=r"moved.py:TinyEncoder is in a file that does not exist"):
        load_model(folder)
    state = torch.load(folder / "encoder.pth", weights_only=True)
    torch.save(state | {"encoder_name": LITE0}, folder / "encoder.pth")
    with pytest.raises(DataError, match=r"encoder.pth misses"):
        load_model(folder)
    monkeypatch.setitem(sys.modules, "timm", None)  # an import then fails
    with pytest.raises(DataError, match=r"pip install -r requirements-timm.txt"):
        load_model(folder)


def test_a_resnets_file_says_nothing_of_its_name(trained):
    stored = torch.load(trained("resnet18") / "encoder.pth", weights_only=True)
    assert stored.keys() - {"height", "width", "use_stereo"} == (
        Monodepth2(frame_ids=[0]).encoder.state_dict().keys())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["resnet18", LITE0])
def test_both_encoders_start_from_a_local_file(drive, tmp_path, name, suffix):
    whole = get_model(name) if name == "resnet18" else timm.create_model(name)
    path = tmp_path / f"imagenet{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": whole.state_dict()}, path)
    else:
        import_module("safetensors.torch").save_file(whole.state_dict(), path)
    model = Trainer(MonodepthOptions().parse(flags(
        drive, tmp_path, "--encoder", name, "--pose_encoder", name, "--encoder_weights", path,
        "--weights_init", "pretrained"))).model  # local weights: nothing is downloaded
    first = "conv1" if name == "resnet18" else "conv_stem"
    weight = getattr(whole, first).weight
    assert torch.equal(getattr(model.encoder.encoder, first).weight, weight)
    torch.testing.assert_close(getattr(model.pose_encoder.encoder, first).weight,
                               torch.cat([weight, weight], 1) / 2)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("resnet18", None, "w.pth does not exist; give a .pth or .safetensors file with the weights"),
    ("resnet18", "resnet34", "w.pth has 48 unknown keys"),
    ("resnet34", "resnet18", "w.pth misses"),
    (LITE0, "resnet18", "w.pth: the weights do not fit the encoder tf_efficientnet_lite0"),
    ("resnet18", {}, "w.pth holds no weights"),
    (LITE0, {"conv_stem.weight": torch.zeros(32, 3, 3, 3)}, "w.pth misses .* weights of tf_")])
def test_weights_of_another_network_are_one_line(tmp_path, name, content, words):
    path = tmp_path / "w.pth"
    if content is not None:
        torch.save(get_model(content).state_dict() if isinstance(content, str) else content, path)
    encoder = Monodepth2(frame_ids=[0], encoder=name, image_size=(HEIGHT, WIDTH)).encoder
    with pytest.raises(DataError, match=words):
        load_imagenet_weights(encoder, str(path))


def test_a_broken_safetensors_file_is_one_line(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"broken")
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load_imagenet_weights(Monodepth2(frame_ids=[0]).encoder, str(tmp_path / "w.safetensors"))


def test_weights_that_cannot_be_downloaded_are_one_line(drive, tmp_path, script, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    outcome = script("train", *flags(drive, tmp_path, "--encoder", "test_convnext",
                                     "--weights_init", "pretrained"))
    assert "give local ones with --encoder_weights FILE" in one_line(outcome, 1)

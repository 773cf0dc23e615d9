"""Test weights folders: published keys, strict loading, fine-tuning, broken and malicious files."""
import os
import pickle

import pytest
import torch
from conftest import Malicious, figures
from torch import nn
from torch.testing import assert_close

from checkpoints.architecture import load_model
from checkpoints.weights import InputFormat, load_adam, load_weights, save_weights
from networks import ENCODERS, Monodepth2
from runtime.errors import DataError

FORM = InputFormat(64, 96, True)


def untrained(**arguments):
    """Return a model and its Adam, which has no moments yet and so takes no disk space."""
    model = Monodepth2(**arguments)
    return model, torch.optim.Adam(model.parameters(), 1e-3)


def trained(**arguments):
    """Return a model and its Adam after one step."""
    model, optimizer = untrained(**arguments)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_0"
    model, optimizer = trained()
    save_weights(folder, model, optimizer, FORM)
    return folder, model, optimizer


def raw(path):
    return torch.load(path, weights_only=True)


def test_a_weights_folder_has_the_published_files_and_keys(saved):
    # Faithful 17
    folder, published = saved[0], figures("networks.npz")
    assert sorted(path.name for path in folder.iterdir()) == [
        "adam.pth", "depth.pth", "encoder.pth", "pose.pth", "pose_encoder.pth"]
    for name, key in (("depth", "depth18"), ("pose", "pose18"),
                      ("pose_encoder", "pose_encoder18x2")):
        assert sorted(raw(folder / f"{name}.pth")) == sorted(published[f"{key}/keys"].tolist())
    encoder = raw(folder / "encoder.pth")
    extra = set(encoder) - set(published["encoder18/keys"].tolist())
    assert extra == {"height", "width", "use_stereo"}
    assert (encoder["height"], encoder["width"], encoder["use_stereo"]) == (64, 96, True)


def test_saving_removes_only_its_own_abandoned_files(saved, tmp_path):
    for name in ("encoder.pth.0a1b2c3d.tmp", "results.json.0a1b2c3d.tmp"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (0, 0))
    save_weights(tmp_path, *saved[1:], FORM)
    assert [path.name for path in tmp_path.glob("*.tmp")] == ["results.json.0a1b2c3d.tmp"]


def test_adam_numbers_its_parameters_as_published(saved):
    # Faithful 17: the published encoders' idle classifiers have numbers too
    folder, model, _ = saved
    state = raw(folder / "adam.pth")
    assert len(state["param_groups"][0]["params"]) == sum(1 for _ in model.parameters())
    encoder_size = sum(1 for _ in model.encoder.parameters())
    assert encoder_size == 62
    assert {60, 61} & set(state["state"]) == set()
    first_of_depth = next(model.depth.parameters())
    assert state["state"][encoder_size]["exp_avg"].shape == first_of_depth.shape


def test_loaded_weights_predict_what_the_saved_model_predicts(saved):
    folder, model, _ = saved
    loaded, form = load_model(folder, with_pose=True)
    images = torch.rand(2, 3, 64, 96)
    assert form == FORM
    assert not loaded.training
    assert_close(loaded.disparity(images), model.eval().disparity(images))
    assert_close(loaded.motion(images, images.flip(3)), model.motion(images, images.flip(3)))


def test_files_as_pytorch_0_4_wrote_them_are_loaded(saved, tmp_path):
    for name in ("encoder", "depth"):
        torch.save(raw(saved[0] / f"{name}.pth"), tmp_path / f"{name}.pth",
                   _use_new_zipfile_serialization=False)
    assert load_model(tmp_path)[1] == FORM


@pytest.mark.parametrize("arguments", [
    {"num_layers": 34}, {"num_layers": 50}, {"num_layers": 101}, {"scales": [0, 2]},
    {"pose_model_type": "posecnn"}, {"pose_model_type": "shared"},
    {"pose_model_input": "all"},
    {"pose_model_input": "all", "pose_model_type": "shared", "frame_ids": [0, -2, -1, 1]},
], ids=str)
def test_the_architecture_is_inferred_from_the_weights(tmp_path, arguments):
    model, optimizer = untrained(**arguments)
    save_weights(tmp_path, model, optimizer, FORM)
    loaded, _ = load_model(tmp_path, with_pose=True)
    assert loaded.depth.scales == list(model.depth.scales)
    assert loaded.pose_model_type == model.pose_model_type
    assert loaded.pose_model_input == model.pose_model_input
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_a_stereo_folder_has_no_pose_and_says_so(tmp_path):
    save_weights(tmp_path, *untrained(frame_ids=[0, "s"]), FORM)
    load_model(tmp_path)
    with pytest.raises(DataError, match=r"pose\.pth does not exist"):
        load_model(tmp_path, with_pose=True)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist; expected a weights folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(("file", "change", "found"), [
    ("depth", lambda s: s.pop("decoder.3.conv.conv.weight"), "misses 1 key "),
    ("depth", lambda s: s.update({"more.weight": torch.zeros(1)}), "has 1 unknown key "),
    ("depth", lambda s: s.update({"decoder.3.conv.conv.bias": torch.zeros(3)}), "has other shapes"),
    ("encoder", lambda s: s.pop("height"), "has no height; expected an encoder.pth"),
    ("encoder", lambda s: s.pop("encoder.bn1.bias"), "misses 1 key "),
    ("encoder", lambda s: s.pop("encoder.layer3.1.conv1.weight"), "misses 1 key "),
    ("encoder", lambda s: [s.pop(k) for k in list(s) if "layer3" in k], "is no ResNet"),
    ("depth", lambda s: s.update({"decoder.conv.weight": torch.zeros(1)}), "has 1 unknown key "),
    ("depth", lambda s: s.update({"decoder.10.conv.weight": torch.zeros(9)}), "has")])
def test_a_checkpoint_of_other_keys_is_refused(saved, tmp_path, file, change, found):
    for name in ("encoder", "depth"):
        state = raw(saved[0] / f"{name}.pth")
        if name == file:
            change(state)
        torch.save(state, tmp_path / f"{name}.pth")
    with pytest.raises(DataError, match=rf"{file}\.pth {found}"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", pickle.dumps([1, 2])])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "encoder.pth").write_bytes(content)
    with pytest.raises(DataError, match=r"encoder\.pth"):
        load_model(tmp_path)


def test_a_users_backbone_is_found_in_opt_json(tmp_path, monkeypatch):
    class Half(nn.Module):
        """Five features of 8 channels, one line in ENCODERS."""

        def __init__(self, pretrained, num_input_images=1):
            super().__init__()
            self.num_ch_enc = [8] * 5
            self.convs = nn.ModuleList(nn.Conv2d(8 if i else 3 * num_input_images, 8, 3, 2, 1)
                                       for i in range(5))

        def forward(self, x):
            features = []
            for conv in self.convs:
                x = conv(x)
                features.append(x)
            return features

    monkeypatch.setitem(ENCODERS, 7, Half)
    save_weights(tmp_path / "weights_0", *untrained(num_layers=7), FORM)
    with pytest.raises(DataError, match="is no ResNet"):
        load_model(tmp_path / "weights_0")
    (tmp_path / "opt.json").write_text('{"num_layers": 7}')
    model, _ = load_model(tmp_path / "weights_0", with_pose=True)
    assert model.disparity(torch.rand(1, 3, 64, 96)).shape == (1, 1, 64, 96)


def test_a_malicious_checkpoint_is_refused_and_nothing_runs(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"encoder.conv1.weight": Malicious(trap)}, tmp_path / "encoder.pth")
    with pytest.raises(DataError, match=r"encoder\.pth cannot be read"):
        load_model(tmp_path)
    assert not trap.exists()


NAMES = ["encoder", "depth", "pose_encoder", "pose"]


def test_fine_tuning_loads_what_exists_and_says_what_it_skipped(saved, tmp_path):
    folder, model, _ = saved
    for name in ("encoder", "depth"):
        (tmp_path / f"{name}.pth").write_bytes((folder / f"{name}.pth").read_bytes())
    fresh = Monodepth2(frame_ids=[0, -1, 1])
    lines = load_weights(tmp_path, fresh, NAMES)
    assert [line.split(":")[0] for line in lines] == [
        "loaded encoder", "loaded depth", "skipped pose_encoder", "skipped pose"]
    assert_close(fresh.encoder.state_dict(), model.encoder.state_dict())
    stereo = Monodepth2(frame_ids=[0, "s"])
    assert "skipped pose: this model has no such network" in load_weights(folder, stereo, NAMES)


def test_fine_tuning_from_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing was loaded from .*give a weights_<epoch> folder"):
        load_weights(tmp_path, Monodepth2(), NAMES)


def test_fine_tuning_refuses_weights_of_another_architecture(saved):
    with pytest.raises(DataError, match=r"encoder\.pth (misses|has).*--models_to_load"):
        load_weights(saved[0], Monodepth2(50), NAMES)


def test_adam_is_resumed_and_the_learning_rate_of_the_flag_wins(saved):
    # Faithful 2
    folder, _, optimizer = saved
    fresh = torch.optim.Adam(Monodepth2().parameters(), 3e-5)
    assert load_adam(folder, fresh) == "loaded Adam's state"
    assert fresh.param_groups[0]["lr"] == fresh.param_groups[0]["initial_lr"] == 3e-5
    stored, loaded = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert_close(loaded[0]["exp_avg"], stored[0]["exp_avg"])
    scheduler = torch.optim.lr_scheduler.StepLR(fresh, 1, 0.1)
    fresh.step()
    scheduler.step()
    assert fresh.param_groups[0]["lr"] == pytest.approx(3e-6)


def test_adams_state_as_pytorch_0_4_wrote_it_is_loaded(saved, tmp_path):
    state = raw(saved[0] / "adam.pth")
    for moments in state["state"].values():
        moments["step"] = int(moments["step"])
    old = {"lr", "betas", "eps", "weight_decay", "amsgrad", "params", "initial_lr"}
    state["param_groups"] = [{"initial_lr": 1e-4, **{k: v for k, v in group.items() if k in old}}
                             for group in state["param_groups"]]
    torch.save(state, tmp_path / "adam.pth", _use_new_zipfile_serialization=False)
    model = Monodepth2()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    assert load_adam(tmp_path, optimizer) == "loaded Adam's state"
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    optimizer.step()


def test_adams_state_from_before_pytorch_1_6_is_loaded_by_position(saved, tmp_path):
    folder, _, optimizer = saved
    state = raw(folder / "adam.pth")
    count = len(state["param_groups"][0]["params"])
    addresses = [140_000_000_000_000 + 64 * (i * 37 % count) for i in range(count)]
    state["param_groups"][0]["params"] = addresses
    state["state"] = {addresses[i]: moments for i, moments in reversed(state["state"].items())}
    torch.save(state, tmp_path / "adam.pth", _use_new_zipfile_serialization=False)
    fresh = torch.optim.Adam(Monodepth2().parameters(), 1e-4)
    assert load_adam(tmp_path, fresh) == "loaded Adam's state"
    loaded, stored = fresh.state_dict()["state"], optimizer.state_dict()["state"]
    assert loaded.keys() == stored.keys()
    for i in stored:
        assert torch.equal(loaded[i]["exp_avg"], stored[i]["exp_avg"])
    state["state"][addresses[0]], state["state"][addresses[3]] = (
        state["state"][addresses[3]], state["state"][addresses[0]])
    torch.save(state, tmp_path / "adam.pth")
    assert "belongs to other networks" in load_adam(tmp_path, fresh)


def test_adams_state_that_is_not_finite_is_refused(saved, tmp_path):
    state = raw(saved[0] / "adam.pth")
    state["state"][0]["exp_avg_sq"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "adam.pth")
    optimizer = torch.optim.Adam(Monodepth2().parameters(), 1e-4)
    with pytest.raises(DataError, match=r"adam\.pth has NaN or inf in exp_avg_sq of parameter 0"):
        load_adam(tmp_path, optimizer)
    assert not optimizer.state


def test_saved_tensors_are_contiguous_whatever_the_layout_of_training(tmp_path):
    model = Monodepth2().to(memory_format=torch.channels_last)
    assert not model.depth.decoder[0].conv.conv.weight.is_contiguous()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    save_weights(tmp_path, model, optimizer, FORM)
    moments = raw(tmp_path / "adam.pth")["state"]
    for state in (*(raw(tmp_path / f"{name}.pth") for name in NAMES), *moments.values()):
        tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
        assert all(value.is_contiguous() and value.device.type == "cpu" for value in tensors)
        assert all(value.untyped_storage().nbytes() == value.nbytes for value in tensors)
    assert torch.equal(moments[0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    loaded = Monodepth2()
    load_weights(tmp_path, loaded, NAMES)
    assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)


def test_adams_state_of_other_networks_is_skipped_and_said(saved, tmp_path):
    folder = saved[0]
    for other in (Monodepth2(34), Monodepth2(frame_ids=[0, "s"])):
        optimizer = torch.optim.Adam(other.parameters(), 1e-4)
        assert "belongs to other networks; Adam starts" in load_adam(folder, optimizer)
        assert not optimizer.state
    optimizer = torch.optim.Adam(Monodepth2().parameters(), 1e-4)
    assert "does not exist; Adam starts without moments" in load_adam(tmp_path, optimizer)

"""Compare networks/ with published figures, and train what the original accepts but cannot do."""
import io
from copy import deepcopy

import pytest
import recipe
import torch
from conftest import figures
from torch.testing import assert_close

from networks import DepthDecoder, Monodepth2, PoseCNN, PoseDecoder, ResnetEncoder
from networks.cpu import FastELU, prepare_for_cpu
from networks.depth_decoder import UpConvBlock

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def parity():
    return figures("networks.npz")


def filled(network, tag):
    network.load_state_dict(recipe.filled_state_dict(network.state_dict(), tag))
    return network.eval()


def image(name="net"):
    return recipe.images(name, 2, 64, 96)


def check(found, expected):
    assert_close(found, torch.from_numpy(expected), **TOLERANCE)


@pytest.mark.parametrize("layers", [18, 34, 50])
@torch.no_grad()
def test_encoders_give_the_published_features(parity, layers):
    features = filled(ResnetEncoder(layers, False), f"encoder{layers}")(image())
    for i, feature in enumerate(features):
        mean_std = torch.stack([feature.double().mean(), feature.double().std(correction=0)])
        assert_close(mean_std, torch.from_numpy(parity[f"encoder{layers}/f{i}/mean_std"]),
                     **TOLERANCE)
    check(features[4], parity[f"encoder{layers}/f4"])


@pytest.mark.parametrize("layers", [18, 50])
@torch.no_grad()
def test_decoders_give_the_published_disparities(parity, layers):
    encoder = filled(ResnetEncoder(layers, False), f"encoder{layers}")
    depth = filled(DepthDecoder(encoder.num_ch_enc), f"depth{layers}")
    features = encoder(image())
    for trains in (False, True):
        with torch.set_grad_enabled(trains):
            for (_, s), disp in depth(features).items():
                check(disp.detach(), parity[f"depth{layers}/disp{s}"])


@torch.no_grad()
def test_masks_and_decoders_without_skips_match_the_figures(parity):
    encoder = filled(ResnetEncoder(18, False), "encoder18")
    features = encoder(image())
    mask = filled(DepthDecoder(encoder.num_ch_enc, [0, 2], num_output_channels=2), "mask18")
    outputs = mask(features)
    assert list(outputs) == [("disp", 2), ("disp", 0)]
    check(outputs["disp", 0], parity["mask18/disp0"])
    check(outputs["disp", 2], parity["mask18/disp2"])
    plain = filled(DepthDecoder(encoder.num_ch_enc, use_skips=False), "noskip18")
    check(plain(features)["disp", 0], parity["noskip18/disp0"])


def prepared(network):
    """Return a copy of a network, prepared for a CPU."""
    copy = deepcopy(network)
    prepare_for_cpu(copy)
    return copy


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 7)])
@pytest.mark.parametrize("skipped", [0, 3])
def test_folding_upsampling_keeps_outputs_and_gradients(size, skipped):
    two_steps = UpConvBlock(4 + skipped, 5).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(2, skipped, 2 * size[0], 2 * size[1]).double() if skipped else None
    blocks = prepared(two_steps), two_steps
    found, expected = (block(x, skip) for block in blocks)
    assert_close(found, expected, atol=1e-12, rtol=0)
    assert not torch.equal(found, expected)  # equal bits would mean that both blocks are the same
    weight = torch.randn_like(found)
    gradients = (torch.autograd.grad(out, [x, *block.parameters()], weight)
                 for out, block in zip((found, expected), blocks, strict=True))
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, atol=1e-12, rtol=0)


def test_fast_elu_and_its_gradient_are_pytorchs():
    x = torch.cat([torch.randn(4000) * scale for scale in (1e-6, 1e-3, 1, 30)]
                  + [torch.tensor([0.0, -0.0, -float("inf"), float("inf")])]).requires_grad_()
    again = x.detach().clone().requires_grad_()
    found, expected = FastELU(inplace=True)(x), torch.nn.functional.elu(again)
    assert_close(found, expected, atol=1e-7, rtol=0)
    weight = torch.randn(len(x))
    found.backward(weight)
    expected.backward(weight)
    assert_close(x.grad, again.grad, atol=1e-6, rtol=1e-6)
    assert FastELU()(torch.tensor(float("nan"))).isnan()
    half = torch.randn(100, dtype=torch.bfloat16)
    assert torch.equal(FastELU()(half), torch.nn.functional.elu(half))


@torch.no_grad()
def test_a_prepared_model_keeps_its_keys_parameters_and_output():
    model = Monodepth2(predictive_mask=True).eval()
    before, parameters = model.disparity(image()), list(model.parameters())
    keys = list(model.state_dict())
    prepare_for_cpu(model)
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert_close(model.disparity(image()), before, atol=1e-6, rtol=0)
    assert not torch.equal(model.disparity(image()), before)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)
    assert torch.equal(loaded.disparity(image()), model.disparity(image()))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # torch 2.4 traces for ONNX
@pytest.mark.parametrize("transform", [
    lambda block, *args: torch.compile(block, backend="eager"),
    lambda block, *args: torch.export.export(block, args).module(),
    lambda block, *args: torch.jit.trace(block, args)], ids=["compile", "export", "trace"])
def test_a_prepared_block_runs_two_steps_where_it_is_compiled(transform):
    two_steps = UpConvBlock(7, 5)
    x, skip = torch.randn(2, 4, 6, 7), torch.randn(2, 3, 12, 14)
    folded = prepared(two_steps)
    assert torch.equal(transform(folded, x, skip)(x, skip), two_steps(x, skip))
    assert not torch.equal(folded(x, skip), two_steps(x, skip))


@pytest.mark.parametrize("frames", [2, 3])
@pytest.mark.parametrize("layers", [18, 50])
@torch.no_grad()
def test_pose_networks_give_the_published_poses(parity, layers, frames):
    encoder = filled(ResnetEncoder(layers, False, frames), f"pose_encoder{layers}x{frames}")
    decoder = filled(PoseDecoder(encoder.num_ch_enc, 1, 2), f"pose{layers}")
    images = torch.cat([image(f"net{i}") for i in range(frames)], 1)
    axisangle, translation = decoder([encoder(images)])
    check(axisangle, parity[f"pose{layers}x{frames}/axisangle"])
    check(translation, parity[f"pose{layers}x{frames}/translation"])


@pytest.mark.parametrize("frames", [2, 3])
@torch.no_grad()
def test_posecnn_gives_the_published_poses(parity, frames):
    network = filled(PoseCNN(frames), f"posecnn{frames}")
    images = torch.cat([image(f"net{i}") for i in range(frames)], 1)
    axisangle, translation = network(images)
    check(axisangle, parity[f"posecnn{frames}/axisangle"])
    check(translation, parity[f"posecnn{frames}/translation"])


@torch.no_grad()
def test_a_shared_encoder_gives_the_published_poses(parity):
    encoder = filled(ResnetEncoder(18, False), "encoder18")
    decoder = filled(PoseDecoder(encoder.num_ch_enc, 2), "pose_shared")
    features = encoder(image())
    axisangle, translation = decoder([features, [f.flip(0) for f in features]])
    check(axisangle, parity["pose_shared/axisangle"])
    check(translation, parity["pose_shared/translation"])


@pytest.mark.parametrize(("name", "make"), [
    ("encoder18", lambda: ResnetEncoder(18, False)),
    ("encoder34", lambda: ResnetEncoder(34, False)),
    ("encoder50", lambda: ResnetEncoder(50, False)),
    ("pose_encoder18x2", lambda: ResnetEncoder(18, False, 2)),
    ("depth18", lambda: DepthDecoder([64, 64, 128, 256, 512])),
    ("pose18", lambda: PoseDecoder([64, 64, 128, 256, 512], 1, 2)),
    ("posecnn2", lambda: PoseCNN(2)),
    ("posecnn3", lambda: PoseCNN(3)),
])
def test_state_dicts_have_exactly_the_published_keys(parity, name, make):
    assert sorted(make().state_dict()) == sorted(parity[f"{name}/keys"].tolist())


def test_images_are_normalised_by_one_mean_and_deviation():
    # Faithful 13: (x - 0.45) / 0.225
    encoder = ResnetEncoder(18, False).eval()
    seen = []
    encoder.encoder.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(torch.full((1, 3, 64, 64), 0.9))
    assert_close(seen[0], torch.full((1, 3, 64, 64), 2.0))


def pretrained_cache(tmp_path, monkeypatch, layers, url_name):
    """Save a ResNet of known weights under the path of torchvision's download."""
    from torchvision import models
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = models.get_model(f"resnet{layers}").state_dict()
    torch.save(state, folder / url_name)
    return state


def test_pretrained_pose_encoders_repeat_conv1_and_divide_it(tmp_path, monkeypatch):
    # Faithful 13
    state = pretrained_cache(tmp_path, monkeypatch, 18, "resnet18-f37072fd.pth")
    wide = ResnetEncoder(18, True, 3).encoder
    assert_close(wide.conv1.weight, torch.cat([state["conv1.weight"]] * 3, 1) / 3)
    assert_close(wide.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert_close(ResnetEncoder(18, True).encoder.conv1.weight, state["conv1.weight"])


def test_the_classifier_is_frozen():
    model = Monodepth2()
    idle = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert idle == ["encoder.encoder.fc.weight", "encoder.encoder.fc.bias",
                    "pose_encoder.encoder.fc.weight", "pose_encoder.encoder.fc.bias"]


def inputs(frame_ids):
    batch = recipe.training_batch(frame_ids)
    return {key: value for key, value in batch.items()
            if isinstance(key, str) or key[0] != "color"}


@pytest.mark.parametrize("arguments", [
    {"num_layers": 34}, {"num_layers": 101}, {"num_layers": 152},
    {"frame_ids": [0, -1, 1, "s"], "pose_model_type": "posecnn"},
    {"frame_ids": [0, -1, 1, "s"], "pose_model_type": "shared"},
    {"frame_ids": [0, -2, -1, 1, 2], "pose_model_input": "all"},
    {"frame_ids": [0, 1], "pose_model_input": "all"},
    {"frame_ids": [0, -2, -1, 1, 2], "pose_model_input": "all", "pose_model_type": "posecnn"},
    {"frame_ids": [0, -2, -1, 1, 2], "pose_model_input": "all", "pose_model_type": "shared"},
], ids=str)
def test_what_the_original_accepts_but_cannot_do_trains(arguments):
    frame_ids = arguments.get("frame_ids", [0, -1, 1])
    model = Monodepth2(**arguments)
    outputs = model(inputs(frame_ids))
    for f in frame_ids[1:]:
        assert outputs["cam_T_cam", 0, f].shape == (2, 4, 4)
    sum(value.sum() for value in outputs.values()).backward()
    unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


def test_pairs_enter_in_order_and_poses_to_the_past_are_inverted():
    # Faithful 12
    model, batch = Monodepth2().eval(), inputs([0, -1, 1])
    seen = []
    model.pose_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    outputs = model(batch)
    past, now, future = (batch["color_aug", f, 0] for f in (-1, 0, 1))
    assert_close(seen[0], torch.cat([past, now], 1))
    assert_close(seen[1], torch.cat([now, future], 1))
    assert_close(outputs["cam_T_cam", 0, 1], model.motion(now, future))
    assert_close(outputs["cam_T_cam", 0, -1], torch.linalg.inv(model.motion(past, now)),
                 atol=1e-5, rtol=0)


def test_all_frames_enter_in_order_and_no_pose_is_inverted():
    # Faithful 12
    frame_ids = [0, 1, -1]
    model = Monodepth2(frame_ids=frame_ids, pose_model_input="all").eval()
    batch = inputs([0, -1, 1])
    stacked = torch.cat([batch["color_aug", f, 0] for f in frame_ids], 1)
    axisangle, _ = model.pose([model.pose_encoder(stacked)])
    outputs = model(batch)
    assert_close(outputs["axisangle", 0, 1], axisangle[:, 0])
    assert_close(outputs["axisangle", 0, -1], axisangle[:, 1])


def test_the_stereo_pose_is_the_pose_in_the_batch():
    model, batch = Monodepth2(frame_ids=[0, "s"]), inputs([0, "s"])
    assert model.pose is None
    assert_close(model(batch)["cam_T_cam", 0, "s"], batch["stereo_T"])

"""Test networks/encoders.py and timm_encoder.py: five features of any encoder, its weights."""
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from networks import Monodepth2, ResnetEncoder
from networks.encoders import WithHalfSize, describe_encoder, encoder_key, make_encoder
from networks.timm_encoder import Reassemble, TimmEncoder, convert_sync_batchnorm
from runtime.errors import UsageError

pytest.importorskip("timm", reason="needs timm")
SIZE = 64, 96
FIVE = "tf_efficientnet_lite0"  # feature maps
KINDS = {FIVE: [16, 24, 40, 112, 320], "convnext_atto": [32, 40, 80, 160, 320],  # 4 maps
         "vit_tiny_patch16_224": [32, 24, 48, 96, 192],
         "eva02_tiny_patch14_224": [32, 24, 48, 96, 192],  # 64 and 96 are no multiples of 14
         "swin_tiny_patch4_window7_224": [32, 96, 192, 384, 768],  # channels last
         "maxvit_rmlp_pico_rw_256": [32, 32, 64, 128, 256],  # made for one size
         "vgg11": [128, 256, 512, 512, 512]}  # a map of the image's size too


@pytest.mark.parametrize(("name", "channels"), KINDS.items())
def test_an_encoder_of_timm_gives_five_features(name, channels):
    encoder = make_encoder(name, image_size=SIZE)
    assert list(encoder.num_ch_enc) == channels
    maps = encoder(torch.rand(2, 3, *SIZE))
    assert [tuple(x.shape) for x in maps] == [
        (2, c, SIZE[0] >> n, SIZE[1] >> n) for n, c in enumerate(channels, 1)]
    sum(x.square().mean() for x in maps).backward()
    # a parameter without gradient would stop training on several GPUs
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_a_pose_encoder_of_two_images_has_no_unused_weights(name):
    model = Monodepth2(frame_ids=[0, 1], encoder=18, pose_encoder=name, image_size=SIZE)
    model.motion(*torch.rand(2, 2, 3, *SIZE))[:, :3].square().sum().backward()
    assert [key for key, p in model.pose_encoder.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_features_of_unpadded_convolutions_are_resized():
    maps = make_encoder("inception_v3", image_size=(96, 128))(torch.rand(1, 3, 96, 128))
    assert [tuple(x.shape[2:]) for x in maps] == [(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)]


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
@torch.no_grad()
def test_reassembled_tokens_stay_where_they_were_in_the_image(stride):
    patch, height, width = 14, 192, 640
    rows, columns = -(-height // patch), -(-width // patch)  # of the padded image
    layer = Reassemble(2, 2, patch, stride)
    layer.norm, layer.smooth = nn.Identity(), nn.Identity()
    layer.project.weight.copy_(torch.eye(2)[..., None, None])
    layer.project.bias.zero_()
    y, x = ((torch.arange(n) + 0.5) * patch for n in (rows, columns))  # centres, pixels
    found = layer(torch.stack(torch.meshgrid(y, x, indexing="ij"))[None], (height, width))
    assert found.shape == (1, 2, height // stride, width // stride)
    expected = torch.stack(torch.meshgrid(*((torch.arange(n // stride) + 0.5) * stride
                                            for n in (height, width)), indexing="ij"))
    last = torch.stack([y[-1], x[-1]])[:, None, None]
    inner = ((expected >= patch / 2) & (expected <= last)).all(0)  # the border repeats tokens
    assert_close(found[0][:, inner], expected[:, inner], atol=1e-3, rtol=0)


def test_the_normalisation_of_the_weights_is_used_and_stored():
    encoder = TimmEncoder(FIVE, False, 2, SIZE).eval()
    seen = []
    encoder.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(torch.full((1, 6, *SIZE), 0.75))
    assert_close(seen[0], torch.full((1, 6, *SIZE), 0.5))  # (0.75 - 0.5) / 0.5
    state = encoder.state_dict()
    assert state["mean"].flatten().tolist() == state["std"].flatten().tolist() == [0.5] * 6
    mean = TimmEncoder("convnext_atto", False, 1, SIZE).state_dict()["mean"].flatten()
    assert_close(mean, torch.tensor([0.485, 0.456, 0.406]))


@torch.no_grad()
def test_local_weights_reach_the_encoders_of_one_and_two_images():
    import timm
    whole = timm.create_model(FIVE).eval()
    one, two = (TimmEncoder(FIVE, False, n, SIZE) for n in (1, 2))
    assert one.load_imagenet(whole.state_dict()) == two.load_imagenet(whole.state_dict()) == []
    image = torch.rand(1, 3, *SIZE)
    expected = whole.blocks(whole.bn1(whole.conv_stem((image - 0.5) / 0.5)))
    found = one.eval()(image)[-1]
    assert_close(found, expected)
    assert_close(two.eval()(torch.cat([image, image], 1))[-1], found, atol=1e-4, rtol=1e-4)


def test_weights_that_a_file_lacks_are_named():
    import timm
    state = timm.create_model(FIVE).state_dict()
    # of which two start at 1 and at 0 in every network
    lacking = ["blocks.1.0.conv_pw.weight", "blocks.1.0.bn1.weight", "blocks.1.0.bn1.running_mean"]
    encoder = TimmEncoder(FIVE, False, 1, SIZE)
    given = {key: value for key, value in state.items() if key not in lacking}
    assert encoder.load_imagenet(given) == lacking
    assert all(value.isfinite().all() for value in encoder.state_dict().values())


OWN = """
from __future__ import annotations
from dataclasses import dataclass
import torch
@dataclass
class Settings:
    width: int = 8
class Own(torch.nn.Module):
    def __init__(self, pretrained, num_input_images=1, maps={maps}):
        super().__init__()
        self.num_ch_enc = [8] * maps
        first = torch.nn.Conv2d(3 * num_input_images, 8, 3, 2 ** (6 - maps), 1)
        self.convs = torch.nn.ModuleList(
            [first, *(torch.nn.Conv2d(8, 8, 3, 2, 1) for _ in range(maps - 1))])
    def forward(self, x):
        return [x := conv(x) for conv in self.convs]
"""


@pytest.mark.parametrize("maps", [4, 5])
def test_a_class_in_ones_own_file_is_an_encoder(tmp_path, maps):
    (tmp_path / "own.py").write_text(OWN.format(maps=maps))
    model = Monodepth2(encoder=f"{tmp_path}/own.py:Own", pose_encoder=f"{tmp_path}/own.py:Own")
    assert isinstance(model.encoder, WithHalfSize) == (maps == 4)
    assert ("at 1/2 made by" in describe_encoder("own", model.encoder)) == (maps == 4)
    outputs = model({("color_aug", f, 0): torch.rand(1, 3, *SIZE) for f in (0, -1, 1)})
    assert outputs["disp", 0].shape == (1, 1, *SIZE)
    assert outputs["cam_T_cam", 0, 1].shape == (1, 4, 4)


@pytest.mark.parametrize(("name", "words"), [
    ("convnext_tinny", "is no network of timm .*; choose one such as .*convnext_tiny"),
    ("x" * 10_000, "is no network of timm"), ("", "is no network of timm"),
    ("levit_128", "has feature maps at 1/16, 1/32, 1/64 of the image; expected 1/4"),
    ("nest_tiny", "cannot be built for 96x64 images .*; choose another --height"),
    ("{}/none.py:Own", "is in a file that does not exist; put it at /"),
    ("{}/own.py:Other", "has no class or function Other; expected one that is called with"),
    ("{}/own.py:Own", r"expected five maps, at 1/2 to 1/32 of the image, or four from 1/4 on")])
def test_an_encoder_that_does_not_fit_gets_a_line(tmp_path, name, words):
    (tmp_path / "own.py").write_text(OWN.format(maps=3))
    with pytest.raises(UsageError, match=words):
        make_encoder(name.format(tmp_path), image_size=SIZE)


def test_without_timm_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # an import then fails
    make_encoder(18)
    with pytest.raises(UsageError, match=r"needs timm.* pip install -r requirements-timm.txt"):
        make_encoder("convnext_atto")


def test_names_of_resnets_are_the_keys_of_num_layers():
    assert [encoder_key(name) for name in ("resnet50", "resnet26", 18)] == [50, "resnet26", 18]
    model = Monodepth2(encoder="resnet34", pose_encoder="resnet50")
    assert model.encoder_names == {"encoder": 34, "pose_encoder": 50}
    assert model.pose.net[0].in_channels == 2048
    assert isinstance(model.encoder, ResnetEncoder)
    assert np.array_equal(model.encoder.num_ch_enc, [64, 64, 128, 256, 512])


def test_synchronised_batch_norm_keeps_timms_activations():
    encoder = TimmEncoder(FIVE, False, 1, SIZE).eval()
    image = torch.rand(1, 3, *SIZE)
    before = encoder(image)
    convert_sync_batchnorm(encoder)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in encoder.modules())
    assert_close(encoder(image), before)

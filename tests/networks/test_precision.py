"""Check that half precision does not round the outputs of the networks."""
import pytest
import torch
from torch.testing import assert_close

from networks import DepthDecoder, PoseCNN, PoseDecoder, ResnetEncoder
from networks.pose_decoder import split_pose

CHANNELS = (8, 8, 16, 16, 32)


def features():
    """Return five feature maps of an image of 256x384 pixels."""
    torch.manual_seed(0)
    return [torch.randn(2, channels, 128 >> i, 192 >> i) for i, channels in enumerate(CHANNELS)]


def trained_like(decoder, x):
    """Give the outputs a bias of -2.5 and logits of deviation 1, as trained disparities have."""
    for head in decoder.decoder[10:]:
        logits = []
        hook = head.register_forward_hook(lambda *args, found=logits: found.append(args[2]))
        decoder(x)
        hook.remove()
        head.conv.weight.div_(logits[0].std((0, 2, 3))[:, None, None, None])
        head.conv.bias.fill_(-2.5)
    return decoder


@pytest.mark.parametrize("channels", [1, 2], ids=["disparity", "mask"])
@torch.no_grad()
def test_bfloat16_gives_as_many_disparities_as_float32(channels):
    x = features()
    decoder = trained_like(DepthDecoder(CHANNELS, range(2), channels), x)
    exact = decoder(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = decoder(x)
    for key, disp in exact.items():
        assert_close(disp.logit().std((0, 2, 3)), torch.ones(channels), atol=0.01, rtol=0)
        assert mixed[key].dtype == torch.float32
        assert len(mixed[key].unique()) > 0.95 * len(disp.unique()) > 10_000
        assert_close(mixed[key], disp, atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", ["decoder", "PoseCNN"])
@torch.no_grad()
def test_poses_are_computed_in_float32_from_bfloat16_features(kind):
    torch.manual_seed(0)
    network = PoseCNN(2) if kind == "PoseCNN" else PoseDecoder(CHANNELS, 1, 2)
    head = network.pose_conv if kind == "PoseCNN" else network.net[-1]
    entered = []
    head.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        poses = network(torch.rand(2, 6, 64, 96) if kind == "PoseCNN" else [features()])
    assert torch.equal(entered[0], entered[0].bfloat16().float())
    expected = split_pose(head(entered[0]), head.out_channels // 6)
    assert_close(poses, expected, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_converted_networks_still_predict(dtype):
    maps = [x.to(dtype) for x in features()]
    for outputs in (DepthDecoder(CHANNELS).to(dtype)(maps).values(),
                    PoseDecoder(CHANNELS, 1, 2).to(dtype)([maps])):
        assert {value.dtype for value in outputs} == {torch.float32}


def test_networks_run_without_values_on_the_meta_device():
    with torch.device("meta"):
        encoder, images = ResnetEncoder(18, False), torch.zeros(1, 3, 64, 96)
        features = encoder(images)
        assert DepthDecoder(encoder.num_ch_enc)(features)["disp", 0].shape == (1, 1, 64, 96)
        assert PoseDecoder(encoder.num_ch_enc, 1, 2)([features])[0].shape == (1, 2, 1, 3)

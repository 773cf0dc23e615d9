"""Run training, validation and prediction on a fake GPU, and compile them, on any machine.

Tensors of a fake GPU have a shape, a type, a layout and a device, but no values: whatever would
wait for a real GPU, or mix devices, shows. PyTorch makes them where it was built with CUDA.
"""
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
import tiny  # noqa: F401 - registers --num_layers 2
import torch
import torch.nn.functional as F
from conftest import filled_weights
from recipe import training_batch
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hubconf
import layers
from datasets import Augment, collate
from datasets.augment import pack_matrices
from options import MonodepthOptions
from runtime.distributed import World
from runtime.machine import trains_channels_last
from training.build import PRECISIONS, make_model, make_objective
from training.divergence import Divergence

CUDA, META, CPU = (torch.device(name) for name in ("cuda", "meta", "cpu"))
FIVE = "--frame_ids 0 -2 -1 1 2"
MASK = "--predictive_mask --disable_automasking"
COMBINATIONS = [
    "--num_layers 18", "--frame_ids 0 --use_stereo", "--use_stereo", "--pose_model_type posecnn",
    "--pose_model_type shared", "--pose_model_input all", FIVE, MASK, "--disable_automasking",
    "--v1_multiscale", "--avg_reprojection", "--no_ssim", "--scales 0", "--scales 0 3",
    "--num_layers 50", "--precision bf16", "--precision fp16", "--height 96 --width 128",
    "--use_stereo --pose_model_type posecnn --precision bf16",
    "--use_stereo --pose_model_type shared --scales 0 2", f"--use_stereo --v1_multiscale {MASK}",
    f"{FIVE} --pose_model_type posecnn --pose_model_input all",
    f"{FIVE} --pose_model_type shared --pose_model_input all --precision fp16",
    "--v1_multiscale --avg_reprojection --no_ssim --scales 0 1",
    "--frame_ids 0 --use_stereo --v1_multiscale --precision fp16",
    f"--num_layers 34 --precision bf16 {MASK}", "--frame_ids 0 -1 --no_ssim --avg_reprojection",
    "--velocity_weight 0.1 --precision bf16", "--velocity_weight 1 --pose_model_type posecnn",
    "--mask_dir masks", f"--mask_dir masks --v1_multiscale --use_stereo {MASK}",
    "--encoder resnet18 --pose_encoder resnet34", "--encoder swin_tiny_patch4_window7_224",
    "--encoder test_efficientnet --pose_encoder test_convnext --precision bf16",
    "--encoder vit_tiny_patch16_224 --pose_encoder vit_tiny_patch16_224 --precision fp16",
    "--encoder test_convnext --pose_model_type shared",
    "--learn_intrinsics",
    "--learn_intrinsics --use_stereo --v1_multiscale --pose_model_type posecnn --precision fp16"]


class Watch(TorchDispatchMode):
    """Record what a GPU would do; answer a value that is asked for by one that goes on.

    Attributes:
        waits: operations that read a value of the device.
        to_device: shapes of the tensors copied to the device.
        relayouts: operations that copy their input to another memory format.
        operations: number of calls by name.
        types: data types of the floating results by name.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.to_device, self.relayouts = [], [], []
        self.operations, self.types = Counter(), {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        name = func.overloadpacket.__name__
        self.operations[name] += 1
        if name == "_local_scalar_dense":
            self.waits += [name] * given[0].is_cuda
            return True if given[0].dtype == torch.bool else 0.5
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        self.types.setdefault(name, set()).update(x.dtype for x in made if x.is_floating_point())
        if "copy" in name and any(x.is_cuda for x in made + given):
            if not all(x.is_cuda for x in made):
                self.waits.append(name)
            elif any(x.is_cpu and x.ndim for x in given):
                self.to_device.append(tuple(made[0].shape))
        if (name == "reflection_pad2d" and not given[0].is_contiguous()) or (
                name == "convolution" and is_channels_last(given[1])
                and not is_channels_last(given[0]) and given[0].shape[1] % 3):  # images are NCHW
            self.relayouts.append(name)
        return out


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def gpu(monkeypatch):
    """Make PyTorch believe in an H100; return the mode that makes its tensors."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            torch.zeros(1).to(CUDA)
    except (RuntimeError, AssertionError):
        pytest.skip("this PyTorch has fake CUDA tensors only beside a GPU (2.14 with CUDA has them "
                    "everywhere)")
    return mode


class Parts:
    """Build the parts of a training run by its flags, and a batch as its loader returns it."""

    def __init__(self, flags, device):
        self.opts = opts = MonodepthOptions().parse(
            f"--height 64 --width 96 --weights_init scratch --num_layers 2 {flags}".split())
        self.frames = opts.frame_ids + ["s"] * opts.use_stereo
        with device:
            self.model = make_model(opts, self.frames, False, World(0, 1, device),
                                    ["a", "b"] if opts.learn_intrinsics else [])
        self.objective = make_objective(opts, self.frames)
        self.augment = self.make_augment(device)
        item = {("color", f, 0): torch.randint(256, (3, opts.height, opts.width)).byte()
                for f in self.frames}
        matrices = training_batch(["s"] * opts.use_stereo, 2, opts.height, opts.width)
        if opts.mask_dir:
            item["mask"] = torch.ones(1, opts.height, opts.width, dtype=torch.bool)
        if opts.velocity_weight:
            item["distances"] = np.ones(len(opts.frame_ids) - 1, np.float32)
        if opts.learn_intrinsics:
            item["camera"] = 1
        item |= {key: value[0] for key, value in matrices.items() if key[0] != "color"
                 and key[0] != "color_aug"}
        self.batch = pack_matrices(collate([item, item]))

    def make_augment(self, device):
        return Augment(device, self.model.frames_read, max(self.opts.scales) + 1,
                       self.opts.v1_multiscale)

    def step(self):
        inputs = self.augment(self.batch)
        outputs = self.model(inputs)
        return inputs, outputs, *self.objective(inputs, outputs)


@contextmanager
def on_gpu(gpu, flags):
    """Give the parts of a run to the fake GPU, as `make_model` does to a real one."""
    run = Parts(flags, META)  # without values, which a fake GPU has no use for
    layout = torch.channels_last if trains_channels_last(CUDA, run.model.precision) else (
        torch.contiguous_format)
    run.model.to(memory_format=layout)
    run.augment = run.make_augment(CUDA)
    with gpu:
        run.model.to_empty(device=CUDA)
        yield run


def assert_float32_on_gpu(*tables):
    for table in tables:
        assert {(value.device.type, value.dtype) for value in table.values()} <= {
            ("cuda", torch.float32)}


@pytest.mark.parametrize("flags", COMBINATIONS)
def test_a_step_never_waits_and_keeps_geometry_in_float32(gpu, flags):
    with on_gpu(gpu, flags) as run:
        run.augment(run.batch)  # makes what is made once
        divergence = Divergence(World(0, 1, CUDA))
        with Watch() as watch:
            inputs, outputs, losses, views = run.step()
            divergence.note(losses["loss"], 0)
    assert watch.waits == []
    assert_float32_on_gpu({key: x for key, x in inputs.items()
                           if key not in ("mask", "camera", "flipped")}, outputs, losses, views)
    for name in ("bmm", "grid_sampler_2d", "upsample_bilinear2d", "avg_pool2d"):
        assert watch.types.get(name, {torch.float32}) == {torch.float32}, name
    assert PRECISIONS[run.opts.precision] in watch.types["convolution"]
    # the images, all matrices at once, and what flags add
    added = {"mask", "distances", "camera"} & inputs.keys()
    assert len(watch.to_device) == len(run.frames) + 1 + len(added)
    if run.opts.precision != "bf16":  # PyTorch takes cuDNN without a GPU to have no bfloat16
        assert watch.relayouts == []                    # padding keeps channels_last
    assert watch.operations["sinc"] == 0                # the pyramid's matrices are there
    assert not watch.operations.keys() & {"isnan", "nan_to_num"}


@pytest.mark.parametrize("flags", ["", "--use_stereo --pose_model_type posecnn --precision bf16",
                                   f"--v1_multiscale {MASK} --precision fp16"])
def test_validation_waits_for_its_logs_only(gpu, flags):
    with on_gpu(gpu, flags) as run, torch.no_grad(), Watch() as watch:
        run.model.eval()
        run.augment.eval()
        inputs = run.augment(run.batch)
        outputs = run.model.forward(inputs)
        losses, views = run.objective.forward(inputs, outputs)
    assert watch.waits == []
    assert_float32_on_gpu(inputs, outputs, losses, views)


def test_the_hubs_predictor_waits_once_to_check_the_range(gpu, tmp_path):
    predictor = hubconf.monodepth2(filled_weights(tmp_path))
    with gpu:
        predictor.to(CUDA)
        with Watch() as watch:
            disp = predictor.disparity(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
        assert watch.waits == watch.relayouts == []
        assert (disp.device.type, disp.dtype, disp.shape) == ("cuda", torch.float32, (2, 1, 64, 96))
        with Watch() as watch:
            prediction = predictor.predict(torch.rand(3, 50, 70, device=CUDA))
        assert watch.waits == ["_to_copy"]
        assert prediction.depth.shape == (1, 1, 50, 70)
        assert prediction.depth.is_cuda


@pytest.mark.parametrize("flags", ["", "--pose_model_type shared", "--pose_model_type posecnn"])
def test_odometry_predicts_without_a_wait(gpu, flags):
    with on_gpu(gpu, flags) as run, torch.no_grad():
        images = torch.rand(2, 3, 64, 96, device=CUDA)
        with Watch() as watch:
            motion = run.model.eval().motion(images, images)
    assert watch.waits == []
    assert (motion.device.type, motion.dtype, motion.shape) == ("cuda", torch.float32, (2, 4, 4))


@pytest.mark.parametrize("flags", [
    "--frame_ids 0 1 --use_stereo --scales 0 1 --mask_dir masks --learn_intrinsics",
    "--frame_ids 0 1 --pose_model_type posecnn "
    f"--precision bf16 --v1_multiscale --avg_reprojection --no_ssim --velocity_weight 1 --scales 0 "
    f"{MASK}",
    "--encoder test_convnext --frame_ids 0 --use_stereo --scales 0"])
def test_each_part_compiles_once_to_one_graph(flags):
    torch._dynamo.reset()
    counters.clear()
    run = Parts(flags, CPU)
    for part in (run.augment, run.model, run.objective):  # a graph break would raise
        part.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    for _ in range(2):
        _, _, losses, _ = run.step()
        losses["loss"].backward()
        assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]


def test_padding_in_channels_last_is_padding_with_its_gradient():
    x = torch.rand(2, 5, 6, 7).to(memory_format=torch.channels_last).requires_grad_()
    found, expected = layers._reflect_as_volumes(x), F.pad(x, (1, 1, 1, 1), mode="reflect")
    assert torch.equal(found, expected)
    assert is_channels_last(found)
    assert_close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)))


@pytest.mark.parametrize("key", [("disp", 3), ("cam_T_cam", 0, -1)])
def test_a_nan_reaches_the_loss_though_a_gpu_samples_the_border(key):
    run = Parts("", CPU)
    # grid_sample on CUDA: NaN coordinates count as -1
    run.objective._sample = lambda image, grid: layers._sample_finite(
        image, grid.nan_to_num(nan=-1))
    inputs, outputs, losses, _ = run.step()
    assert losses["loss"].isfinite()
    outputs[key] = outputs[key].detach().clone()
    outputs[key][0, 0, 0] = torch.nan
    assert run.objective(inputs, outputs)[0]["loss"].isnan()


@pytest.mark.parametrize(("capability", "precisions"), [
    ((6, 1), []), ((7, 5), ["fp16"]), ((8, 0), ["fp32", "bf16", "fp16"])])
def test_channels_last_is_for_tensor_cores(monkeypatch, capability, precisions):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert [name for name, precision in PRECISIONS.items()
            if trains_channels_last(CUDA, precision)] == precisions

"""Weights folders as people have them: cut, converted, of other programs; camera.json."""
from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18, resnet34

from tests.odd_files.base import picture
from tests.odd_files.situation import Situation, base, disparity_of

COMMAND = ("test_simple --image_path {base}/picture.png --load_weights_folder m --output disp "
           "--output_dir out")
BATCH_NORM = "encoder.layer1.0.bn1.running_var"


def folder(**files: Callable[[dict], object] | bytes | None) -> Callable[[], None]:
    """Return a builder of the folder m: the shared weights, with some files changed.

    Args:
        files: by name without .pth: a function of the state dict that returns what is saved, the
            bytes of the file, or None for a missing file.
    """
    def build() -> None:
        Path("m").mkdir()
        for name in ("encoder", "depth"):
            source, target = base() / f"w/{name}.pth", Path(f"m/{name}.pth")
            change = files.get(name, ...)
            if change is ...:
                os.symlink(source, target)
            elif callable(change):
                torch.save(change(torch.load(source, weights_only=True)), target)
            elif change is not None:
                target.write_bytes(change)
    return build


def each(change: Callable[[Tensor], Tensor]) -> Callable[[dict], dict]:
    """Return a function that changes every floating tensor of a state dict."""
    return lambda state: {key: change(v) if isinstance(v, Tensor) and v.is_floating_point() else v
                          for key, v in state.items()}


def with_value(**values: object) -> Callable[[dict], dict]:
    return lambda state: state | values


def with_number(key: str, number: float) -> Callable[[dict], dict]:
    """Return a function that sets one number of a tensor."""
    def change(state: dict) -> dict:
        state[key].view(-1)[0] = number
        return state
    return change


def is_like_shared(tolerance: float = 1e-4) -> Callable[[object, str], bool]:
    """Return a check that the disparity is that of the shared weights."""
    return lambda _, __: np.allclose(np.load("out/picture_disp.npy").squeeze(),
                                     disparity_of(np.array(picture())), rtol=tolerance)


def right(words: str, tolerance: float = 1e-4, refused: str | None = None,
          **files: object) -> Situation:
    return Situation(f"weights: {words}", COMMAND, folder(**files), refused,
                     is_like_shared(tolerance))


def refused(words: str, pattern: str, **files: object) -> Situation:
    return Situation(f"weights: {words}", COMMAND, folder(**files), pattern)


def read(name: str) -> bytes:
    return (base() / f"w/{name}.pth").read_bytes()


def swapped() -> None:
    Path("m").mkdir()
    os.symlink(base() / "w/encoder.pth", "m/depth.pth")
    os.symlink(base() / "w/depth.pth", "m/encoder.pth")


def old_format() -> None:
    """Write depth.pth as PyTorch did before its files were zip archives."""
    folder(depth=None)()
    torch.save(torch.load(base() / "w/depth.pth", weights_only=True), "m/depth.pth",
               _use_new_zipfile_serialization=False)


def cut(name: str) -> Callable[[], None]:
    """Return a builder with half of a file."""
    def build() -> None:
        folder(**{name: None})()
        Path(f"m/{name}.pth").write_bytes(read(name)[:10**6])
    return build


def zip_of_text() -> None:
    folder(depth=None)()
    with zipfile.ZipFile("m/depth.pth", "w") as archive:
        archive.writestr("readme.txt", "weights")


def torchscript() -> None:
    folder(depth=None)()
    torch.jit.script(torch.nn.Conv2d(3, 3, 1)).save("m/depth.pth")


def safetensors(name: str) -> Callable[[], None]:
    """Return a builder with depth's weights as safetensors."""
    def build() -> None:
        folder(depth=None)()
        state = torch.load(base() / "w/depth.pth", weights_only=True)
        save_file(dict(state), name)
    return build


def camera(data: object) -> Callable[[], None]:
    """Return a builder with a camera.json."""
    def build() -> None:
        folder()()
        Path("m/camera.json").write_bytes(
            data if isinstance(data, bytes) else json.dumps(data).encode())
    return build


CAMERA = {"training": "mono", "min_depth": 0.1, "max_depth": 100.0, "baseline": None, "K": None,
          "image_size": None}


def camera_refused(words: str, data: object) -> Situation:
    return Situation(f"camera.json: {words}", COMMAND, camera(data), r"camera\.json")


SITUATIONS = [
    refused("depth.pth is missing", r"depth\.pth does not exist", depth=None),
    refused("depth.pth is empty", r"depth\.pth", depth=b""),
    Situation("weights: depth.pth is cut off", COMMAND, cut("depth"), r"depth\.pth.*cut off"),
    Situation("weights: encoder.pth is cut off", COMMAND, cut("encoder"), r"encoder\.pth.*cut off"),
    Situation("weights: a zip without weights", COMMAND, zip_of_text, r"depth\.pth"),
    Situation("weights: encoder and depth swapped", COMMAND, swapped, r"m/(encoder|depth)\.pth"),
    Situation("weights: TorchScript", COMMAND, torchscript, r"depth\.pth.*TorchScript"),
    Situation("weights: safetensors named depth.pth", COMMAND, safetensors("m/depth.pth"),
              r"depth\.pth"),
    Situation("weights: depth.safetensors alone", COMMAND, safetensors("m/depth.safetensors"),
              None, is_like_shared()),
    Situation("weights: depth.safetensors is cut off, depth.pth is whole", COMMAND,
              lambda: [folder()(), Path("m/depth.safetensors").write_bytes(b"cut")],
              r"depth\.safetensors cannot be read as safetensors"),
    Situation("weights: hf: without a user's name", "test_simple --image_path {base}/picture.png "
              "--load_weights_folder hf:name", refused="'name' is no name of a model"),
    Situation("weights: a folder named depth.pth", COMMAND,
              lambda: [folder(depth=None)(), Path("m/depth.pth").mkdir()], r"depth\.pth"),
    Situation("weights: a link to itself", COMMAND,
              lambda: [folder(depth=None)(), os.symlink("depth.pth", "m/depth.pth")],
              r"depth\.pth"),
    Situation("weights: a pipe", COMMAND,
              lambda: [folder(depth=None)(), os.mkfifo("m/depth.pth")], r"depth\.pth"),
    Situation("weights: a file for the folder", COMMAND, lambda: Path("m").write_text(""),
              "m is a file"),
    Situation("weights: an empty folder", COMMAND, lambda: Path("m").mkdir(), r"encoder\.pth"),
    Situation("weights: the run's folder, one above", COMMAND,
              lambda: [Path("m").mkdir(), os.symlink(base() / "w", "m/weights_19")],
              r"encoder\.pth"),
    refused("HTML named depth.pth", r"depth\.pth", depth=b"<!DOCTYPE html><html></html>"),
    refused("a git-lfs pointer", r"depth\.pth", depth=b"version https://git-lfs.github.com/spec/v1"),
    right("float16", 2e-2, encoder=each(Tensor.half), depth=each(Tensor.half)),
    right("bfloat16", 1e-1, encoder=each(Tensor.bfloat16), depth=each(Tensor.bfloat16)),
    right("float64", encoder=each(Tensor.double), depth=each(Tensor.double)),
    right("channels in the last axis of memory", encoder=each(
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t)),
    right("as parameters that need gradients", depth=each(torch.nn.Parameter)),
    Situation("weights: the format of PyTorch 1.5", COMMAND, old_format, None, is_like_shared()),
    refused("int8 numbers", r"depth\.pth.*(int8|integer|type)", depth=each(Tensor.char)),
    refused("complex numbers", r"depth\.pth.*complex", depth=each(lambda t: t + 0j)),
    refused("NaN in the mean of a batch norm", r"encoder\.pth.*bn1\.running_mean",
            encoder=with_number("encoder.layer1.0.bn1.running_mean", float("nan"))),
    refused("inf in depth", r"depth\.pth.*decoder\.0",
            depth=with_number("decoder.0.conv.conv.weight", float("inf"))),
    refused("a variance below 0", r"encoder\.pth.*(running_var|negative|below 0)",
            encoder=with_number(BATCH_NORM, -5.0)),
    refused("torchvision's ResNet-18", r"encoder\.pth", encoder=lambda _: resnet18().state_dict()),
    refused("ResNet-34 without height", r"encoder\.pth.*height", encoder=lambda _: {
        f"encoder.{key}": value for key, value in resnet34().state_dict().items()}),
    refused("a whole network, pickled", r"depth\.pth.*Conv2d", depth=lambda _: torch.nn.Conv2d(
        1, 1, 1)),
    refused("a list of tensors", r"depth\.pth.*list", depth=lambda s: list(s.values())),
    refused("an empty dict", r"depth\.pth", depth=lambda _: {}),
    refused("a dict of numbers", r"depth\.pth.*(epoch|no weights)", depth=lambda _: {"epoch": 3}),
    refused("half of the keys", r"depth\.pth misses",
            depth=lambda s: dict(list(s.items())[::2])),
    refused("other shapes", r"depth\.pth.*shape",
            depth=each(lambda t: t[:1] if t.ndim == 4 else t)),
    refused("shapes of 1, which would broadcast", r"encoder\.pth.*shape",
            encoder=each(lambda t: t.mean(0, keepdim=True) if t.ndim == 1 else t)),
    right("in state_dict, with epoch and optimizer", depth=lambda s: {
        "state_dict": s, "epoch": 3, "optimizer": {"lr": 0.1}}),
    right("in model, with module.", encoder=lambda s: {"model": {
        f"module.{k}" if isinstance(v, Tensor) else k: v for k, v in s.items()}}),
    right("module.module.", depth=lambda s: {f"module.module.{k}": v for k, v in s.items()}),
    right("total_ops and total_params", encoder=with_value(
        total_ops=torch.zeros(1), **{"encoder.conv1.total_params": torch.zeros(1)})),
    right("no fc and no num_batches_tracked", encoder=lambda s: {
        k: v for k, v in s.items() if ".fc." not in k and "num_batches" not in k}),
    right("height as float and numpy integer", encoder=with_value(
        height=64.0, width=np.int64(96))),
    right("height as tensors", encoder=with_value(
        height=torch.tensor(64), width=torch.tensor([96]))),
    right("height as text", encoder=with_value(height="64", width="96"), refused=r"encoder\.pth"),
    refused("height of 65", r"encoder\.pth.*65", encoder=with_value(height=65)),
    refused("height of 0", r"encoder\.pth.*0", encoder=with_value(height=0)),
    refused("height of 64.5", r"encoder\.pth.*64\.5", encoder=with_value(height=64.5)),
    refused("height of NaN", r"encoder\.pth.*nan", encoder=with_value(height=float("nan"))),
    refused("height of 10^9", r"encoder\.pth", encoder=with_value(height=32 * 10**8)),
    refused("height None", r"encoder\.pth.*None", encoder=with_value(height=None)),
    refused("use_stereo of 'yes'", r"encoder\.pth.*use_stereo", encoder=with_value(
        use_stereo="yes")),
    camera_refused("cut off", b'{"training": "mono"'),
    camera_refused("empty", b""),
    camera_refused("a list", [1, 2]),
    camera_refused("minimum above maximum", CAMERA | {"min_depth": 200}),
    camera_refused("min_depth of NaN", CAMERA | {"min_depth": float("nan")}),
    camera_refused("min_depth as text", CAMERA | {"min_depth": "0.1"}),
    camera_refused("min_depth of true", CAMERA | {"min_depth": True}),
    camera_refused("K of text", CAMERA | {"K": [["a"] * 3] * 3}),
    camera_refused("K with NaN", CAMERA | {"K": [[float("nan")] * 3] * 3}),
    camera_refused("K of two rows", CAMERA | {"K": [[1, 0, 0], [0, 1, 0]]}),
    camera_refused("a last row of K other than 0 0 1",
                   CAMERA | {"K": [[0.6, 0, 0.5], [0, 1.9, 0.5], [0.3, 0.2, 7]]}),
    camera_refused("K in pixels", CAMERA | {"K": [[721, 0, 609], [0, 721, 172], [0, 0, 1]]}),
    camera_refused("a baseline below 0", CAMERA | {"baseline": -0.54}),
    camera_refused("training of another word", CAMERA | {"training": "lidar"}),
    camera_refused("an image size of 0", CAMERA | {"image_size": [0, 375]}),
    camera_refused("an image size of three", CAMERA | {"image_size": [1, 2, 3]}),
    camera_refused("bytes that are no text", b"\xff\xfe\0\0"),
    camera_refused("nested 100000 deep", b"[" * 100000),
    Situation("camera.json: BOM", COMMAND, camera(b"\xef\xbb\xbf" + json.dumps(CAMERA).encode()),
              None, is_like_shared()),
    Situation("camera.json: a folder", COMMAND,
              lambda: [folder()(), Path("m/camera.json").mkdir()], r"camera\.json"),
    Situation("weights: export to ONNX of a folder without depth.pth",
              "export_onnx --load_weights_folder m --output out.onnx", folder(depth=None),
              r"depth\.pth"),
    Situation("weights: export to ONNX into a folder that is a file",
              "export_onnx --load_weights_folder {base}/w --output f/out.onnx",
              lambda: Path("f").write_text(""), r"f/out\.onnx|f "),
]

"""Export a depth network to ONNX, and compare the file with PyTorch."""
from __future__ import annotations

import io
import shlex
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from checkpoints.training_camera import format_training_camera
from prediction.onnx_runtime import CAMERA, INPUT, OUTPUTS, open_session
from prediction.predictor import Predictor
from prediction.quantise import Loss, convert
from runtime.errors import DataError
from runtime.files import write_atomically
from runtime.packages import require_packages

PACKAGES, INSTALL = ("onnx", "onnxscript", "onnxruntime"), "-r requirements-export.txt"
TESTED_BATCHES = (1, 3)  # batch sizes that the exported file is run with
MAX_BATCH = 16  # largest batch size in the TensorRT command
TOLERANCE = 1e-4  # absolute, of scaled inverse depth; relative, of depth


class Differences(NamedTuple):
    """Hold the largest differences between the outputs of an ONNX file and of PyTorch.

    Attributes:
        disp: absolute.
        depth: relative to PyTorch's depth.
    """

    disp: float
    depth: float


def export_onnx(weights_folder: Path, path: Path | None, opset: int, kind: str = "float32",
                calibrate: Path | None = None) -> None:
    """Write the depth network of a weights folder to an ONNX file, and print its description.

    Args:
        weights_folder: with the networks encoder and depth.
        path: of the file; None: depth.onnx in the weights folder, or depth_half.onnx ...
        opset: version of the ONNX operators.
        kind: "float32"; "half": float16 weights; "int8": quantised convolutions.
        calibrate: a folder of images for "int8", and for measuring what is lost.

    Raises:
        DataError: a package is missing, the weights are broken, the outputs of the file differ
            from PyTorch's, or there are too few images; nothing is written.
    """
    require_packages(PACKAGES, INSTALL)
    predictor = Predictor(weights_folder)
    content = onnx_bytes(predictor, opset)
    differences = differences_from_pytorch(content, predictor)
    loss = None
    if kind != "float32":
        content, loss = convert(content, kind, (predictor.height, predictor.width), calibrate)
    path = path or predictor.folder / ("depth.onnx" if loss is None else f"depth_{kind}.onnx")
    write_atomically(path, content)
    print(description(path, predictor, differences, kind))
    if loss:
        print(describe_loss(loss, kind))


def onnx_bytes(predictor: Predictor, opset: int) -> bytes:
    """Return the content of an ONNX file that maps image to disp and depth, for any batch size.

    Args:
        predictor: on the CPU.
        opset: version of the ONNX operators.
    """
    import onnx
    image = torch.rand(2, 3, predictor.height, predictor.width)  # a batch of 1 would be fixed
    options = {"input_names": [INPUT], "output_names": OUTPUTS, "opset_version": opset}
    if "dynamic_shapes" in signature(torch.onnx.export).parameters:
        model = torch.onnx.export(predictor, (image,), dynamo=True, verbose=False, **options,
                                  dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}}
                                  ).model_proto
    else:  # torch 2.4
        file = io.BytesIO()
        torch.onnx.export(predictor, (image,), file, **options,
                          dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)})
        model = onnx.load_from_string(file.getvalue())
    # the exporter notes paths of this machine and lines of code
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info,
                 *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
    onnx.helper.set_model_props(model, {
        "unit": predictor.training_camera.unit().words,
        "size": f"{predictor.width}x{predictor.height}",
        CAMERA: format_training_camera(predictor.training_camera).decode()})
    return model.SerializeToString()


def differences_from_pytorch(content: bytes, predictor: Predictor) -> Differences:
    """Run an ONNX file on random images with ONNX Runtime, and compare it with PyTorch.

    Raises:
        DataError: the outputs differ by more than `TOLERANCE`.
    """
    session = open_session(content)
    found = []
    for batch in TESTED_BATCHES:
        image = torch.rand(batch, 3, predictor.height, predictor.width)
        with torch.no_grad():
            disp, depth = (output.numpy() for output in predictor(image))
        onnx_disp, onnx_depth = session.run(OUTPUTS, {INPUT: image.numpy()})
        assert (onnx_disp.shape, onnx_depth.shape) == (disp.shape, depth.shape)
        found.append((np.abs(onnx_disp - disp).max(), (np.abs(onnx_depth - depth) / depth).max()))
    worst = Differences(*map(float, np.max(found, 0)))
    if not all(difference <= TOLERANCE for difference in worst):  # refuses NaN too
        raise DataError(f"the exported network differs from PyTorch's by {worst.disp:.1g} in disp "
                        f"and by {worst.depth:.1g} of depth, more than {TOLERANCE:g}, so nothing "
                        "was written; are all weights finite?")
    return worst


def description(path: Path, predictor: Predictor, differences: Differences,
                kind: str = "float32") -> str:
    """Describe the inputs, outputs, unit and accuracy of an ONNX file to its user."""
    size, training_camera = f"{predictor.height}, {predictor.width}", predictor.training_camera
    shapes = [f"--{which}Shapes={INPUT}:{batch}x3x{predictor.height}x{predictor.width}"
              for which, batch in (("min", 1), ("opt", 1), ("max", MAX_BATCH))]
    trtexec = shlex.join(["trtexec", f"--onnx={path}", *shapes,
                          f"--saveEngine={path.with_suffix('.engine')}"])
    return f"""\
wrote {path} ({path.stat().st_size / 1e6:.0f} MB)
input  image  float32 (batch, 3, {size})  RGB in [0, 1], resized with LANCZOS in training
output disp   float32 (batch, 1, {size})  scaled inverse depth, \
{1 / training_camera.max_depth:g} to {1 / training_camera.min_depth:g}
output depth  float32 (batch, 1, {size})  1 / disp
unit   {training_camera.unit().words}
{"" if kind == "float32" else "float32 is the "}\
same as PyTorch with ONNX Runtime, batches of {' and '.join(map(str, TESTED_BATCHES))}: disp to \
{differences.disp:.1g}, depth to {differences.depth:.1g} of its value
for TensorRT: {trtexec}"""


def describe_loss(loss: Loss, kind: str) -> str:
    """Describe what a converted file loses and gains beside the float32 file."""
    return (f"{kind} differs from float32 by {100 * loss.depth:.2g} % of depth on average, on "
            f"{loss.images}; {loss.speed:.1f} images/s, float32 {loss.float32_speed:.1f}: "
            f"{loss.speed / loss.float32_speed:.2f} times the speed")

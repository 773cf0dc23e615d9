"""Export a depth network to ONNX, and compare the file with PyTorch."""
from __future__ import annotations

import io
import shlex
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from runtime.errors import DataError

if TYPE_CHECKING:  # a wrong command line is answered without torch
    from prediction.predictor import Predictor



PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUTS = "image", ["disp", "depth"]
OPSETS = range(18, 21)  # what PyTorch writes without converting, and all versions of it can
BATCHES = (1, 3)  # that the file is tried on
MANY = 16  # images at once, for which the TensorRT command prepares
TOLERANCE = 1e-4  # of scaled inverse depth; relative, of depth


class Differences(NamedTuple):
    """The largest differences of a file's outputs and PyTorch's: of disp, and relative of depth."""

    disp: float
    depth: float


def check_packages() -> None:
    """Raise a DataError where a package is missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise DataError(f"the export needs {', '.join(missing)}, which is not installed; type: "
                        "pip install -r requirements-export.txt")


def to_onnx(predictor: Predictor, opset: int) -> bytes:
    """Return the content of an ONNX file that maps image to disp and depth, for any batch size.

    Args:
        predictor: on the CPU.
        opset: one of `OPSETS`.
    """
    import onnx
    import torch
    image = torch.rand(2, 3, predictor.height, predictor.width)  # a size of 1 would become fixed
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
    # notes of the exporter: paths of this machine, lines of code
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info,
                 *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
    onnx.helper.set_model_props(model, {"unit": predictor.training_camera.unit()})
    return model.SerializeToString()


def check(content: bytes, predictor: Predictor) -> Differences:
    """Run an ONNX file on random images, with ONNX Runtime, and compare with PyTorch.

    Raises:
        DataError: they differ by more than `TOLERANCE`.
    """
    import onnxruntime
    import torch
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = []
    for batch in BATCHES:
        image = torch.rand(batch, 3, predictor.height, predictor.width)
        with torch.no_grad():
            disp, depth = (output.numpy() for output in predictor(image))
        onnx_disp, onnx_depth = session.run(OUTPUTS, {INPUT: image.numpy()})
        assert (onnx_disp.shape, onnx_depth.shape) == (disp.shape, depth.shape)
        found.append((np.abs(onnx_disp - disp).max(), (np.abs(onnx_depth - depth) / depth).max()))
    worst = Differences(*map(float, np.max(found, 0)))
    if not all(difference <= TOLERANCE for difference in worst):  # NaN is not
        raise DataError(f"the exported network differs from PyTorch's by {worst.disp:.1g} in disp "
                        f"and by {worst.depth:.1g} of depth, more than {TOLERANCE:g}, so nothing "
                        "was written; are all weights finite?")
    return worst


def report(path: Path, predictor: Predictor, differences: Differences) -> str:
    """Return what a user of the file must know."""
    size, camera = f"{predictor.height}, {predictor.width}", predictor.training_camera
    shapes = [f"--{which}Shapes={INPUT}:{batch}x3x{predictor.height}x{predictor.width}"
              for which, batch in (("min", 1), ("opt", 1), ("max", MANY))]
    trtexec = shlex.join(["trtexec", f"--onnx={path}", *shapes,
                          f"--saveEngine={path.with_suffix('.engine')}"])
    return f"""\
wrote {path} ({path.stat().st_size / 1e6:.0f} MB)
input  image  float32 (batch, 3, {size})  RGB in [0, 1], resized with LANCZOS in training
output disp   float32 (batch, 1, {size})  scaled inverse depth, {1 / camera.max_depth:g} to \
{1 / camera.min_depth:g}
output depth  float32 (batch, 1, {size})  1 / disp
unit   {camera.unit()}
same as PyTorch with ONNX Runtime, batches of {' and '.join(map(str, BATCHES))}: disp to \
{differences.disp:.1g}, depth to {differences.depth:.1g} of its value
for TensorRT: {trtexec}"""

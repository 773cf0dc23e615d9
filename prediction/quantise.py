"""Make an ONNX file smaller or faster: float16 weights, int8 convolutions; measure what is lost."""
from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.footage import Footage
from datasets.image_files import resize_array
from prediction.onnx_runtime import INPUT, open_session
from runtime.errors import DataError, counted
from runtime.timing import time_in_turns

MIN_IMAGES = 20  # of --calibrate
MAX_CALIBRATING, MAX_HELD_OUT = 60, 30
FLOAT_CONVS = 3  # the last convolutions, at full size and of few channels, stay float32
SMALLEST_WEIGHT = 256  # values; smaller constants stay float32
ROUNDS = 10  # of timing


class CalibrationImages(NamedTuple):
    """Hold images at the network's size, each (1, 3, h, w) float32 in [0, 1].

    Attributes:
        calibrating: choose the ranges of int8.
        held_out: measure what is lost.
    """

    calibrating: list[np.ndarray]
    held_out: list[np.ndarray]


class Loss(NamedTuple):
    """Hold what a converted file loses and gains beside the float32 file.

    Attributes:
        depth: mean over pixels and images of |difference of depth| / float32's depth.
        images: number and kind of these images, in words.
        speed: images per second, one at a time.
        float32_speed: the same of the float32 file.
    """

    depth: float
    images: str
    speed: float
    float32_speed: float


def convert(float32: bytes, kind: str, size: tuple[int, int],
            folder: Path | None) -> tuple[bytes, Loss]:
    """Convert a float32 ONNX file, and measure what is lost.

    Args:
        float32: content of the file.
        kind: "half" or "int8".
        size: (height, width) of the network's input, pixels.
        folder: of --calibrate; None, for "half": random images measure the loss.

    Raises:
        DataError: there are too few images, or the converted network does not compute.
    """
    if folder is None:
        images, words = random_images(*size), "random images"
    else:
        images, words = read_calibration_images(folder, *size), "held-out images"
    content = (with_half_weights(float32) if kind == "half" else
               with_int8_convolutions(float32, images.calibrating))
    return content, measure_loss(float32, content, images.held_out, words)


def read_calibration_images(folder: Path, height: int, width: int) -> CalibrationImages:
    """Read images evenly spaced in a folder; its last third is held out.

    Raises:
        DataError: the folder has fewer than `MIN_IMAGES` images, or one cannot be read.
    """
    footage = Footage(folder)
    if footage.is_video or footage.count < MIN_IMAGES:
        found = "a video" if footage.is_video else counted(footage.count, "image")
        raise DataError(f"--calibrate {folder} is {found}; give a folder with {MIN_IMAGES} images "
                        "or more, of the scenes that the network will see")
    stills = list(footage)
    border = len(stills) * 2 // 3
    return CalibrationImages(*(
        [resize_array(still.read(), height, width)[None].astype(np.float32) / 255
         for still in part[::-(-len(part) // most)]]
        for part, most in ((stills[:border], MAX_CALIBRATING), (stills[border:], MAX_HELD_OUT))))


def random_images(height: int, width: int) -> CalibrationImages:
    """Return random images, which tell whether a file computes, but little about its loss."""
    return CalibrationImages([], list(np.random.rand(2, 1, 3, height, width).astype(np.float32)))


def with_half_weights(content: bytes) -> bytes:
    """Store the weights of an ONNX file in float16; inputs, outputs and arithmetic stay float32.

    A runtime casts the weights back once, when it loads the file.

    Raises:
        DataError: a weight is too large for float16.
    """
    import onnx
    model = onnx.load_from_string(content)
    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALLEST_WEIGHT:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise DataError(f"the weight {weight.name} reaches {np.abs(values).max():.2g}, more "
                            "than float16 can hold; export without --half")
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast",
                                           to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def with_int8_convolutions(content: bytes, images: list[np.ndarray]) -> bytes:
    """Quantise the convolutions of an ONNX file to int8, statically, with ranges of real images.

    Weights have a scale for each output channel, activations one (8 bits without sign, the fastest
    on x86). All else stays float32: quantised additions and concatenations, whose operands differ
    in range, double the largest errors and gain little speed.

    Args:
        content: of a float32 file.
        images: (1, 3, h, w) float32 in [0, 1], whose activations the ranges must hold.
    """
    import onnx
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        """Hand the images to ONNX Runtime."""

        left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Return the next image; None at the end."""
            image = next(self.left, None)
            return None if image is None else {INPUT: image}

    model = onnx.load_from_string(content)
    convs = [node.name for node in model.graph.node if node.op_type == "Conv"]
    with tempfile.TemporaryDirectory() as folder, _without_warnings():
        path = Path(folder, "int8.onnx")
        q.quantize_static(model, path, Reader(), q.QuantFormat.QDQ, ["Conv"], per_channel=True,
                          activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
                          nodes_to_exclude=convs[-FLOAT_CONVS:])
        return path.read_bytes()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence ONNX Runtime's advice to simplify the graph, which the exporter has done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def measure_loss(float32: bytes, converted: bytes, images: list[np.ndarray],
                 words: str = "images") -> Loss:
    """Compare a converted file with the float32 file, in depth and in speed.

    Args:
        float32: content of the file to compare with.
        converted: content of the file.
        images: (1, 3, h, w) float32 in [0, 1].
        words: name the kind of these images.

    Raises:
        DataError: a depth is not finite.
    """
    sessions = {name: open_session(content)
                for name, content in (("float32", float32), ("converted", converted))}
    differences = []
    for image in images:
        expected, found = (session.run(["depth"], {INPUT: image})[0]
                           for session in sessions.values())
        differences.append(np.mean(np.abs(found - expected) / expected))
    if not np.isfinite(differences).all():
        raise DataError("the converted network predicts depths that are not finite, so nothing was "
                        "written; export without --int8 and --half")
    seconds = time_in_turns({name: lambda session=session: session.run(None, {INPUT: images[0]})
                             for name, session in sessions.items()}, ROUNDS)
    return Loss(float(np.mean(differences)), f"{len(images)} {words}", 1 / seconds["converted"],
                1 / seconds["float32"])

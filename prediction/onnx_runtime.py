"""Predict depth with a file of export_onnx.py, by ONNX Runtime or OpenVINO, without PyTorch."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from checkpoints.training_camera import parse_training_camera
from runtime.errors import DataError
from runtime.packages import require_packages

if TYPE_CHECKING:
    import openvino
    from onnxruntime import InferenceSession

INPUT, OUTPUTS = "image", ["disp", "depth"]
CAMERA = "camera"  # key of the file's metadata: the content of camera.json
EXPORT_AGAIN = "export it again with export_onnx.py"  # what to do about a broken file


class Network(NamedTuple):
    """Hold an ONNX file that a runtime has loaded.

    Attributes:
        run: maps (B, 3, height, width) float32 in [0, 1] to scaled inverse depth (B, 1, h, w).
        size: (height, width) of the input, pixels.
        camera: content of camera.json; None if the file has none.
    """

    run: Callable[[np.ndarray], np.ndarray]
    size: tuple[int, int]
    camera: str | None


class OnnxPredictor:
    """Predict disparities with an ONNX file, as `Predictor` does with a weights folder.

    Args:
        path: of a file of export_onnx.py.
        min_depth: depth at disparity 1 (default: the value used in training).
        max_depth: depth at disparity 0 (default: the value used in training).
        runtime: one of `choices.RUNTIMES`.

    Attributes:
        height, width: size of the network's input, pixels.
        training_camera: depth range, baseline, intrinsics and unit of depth.

    Raises:
        DataError: the runtime is not installed, the file is missing, broken or of another program,
            or `min_depth` is not below `max_depth`.
    """

    def __init__(self, path: str | Path, min_depth: float | None = None,
                 max_depth: float | None = None, runtime: str = "onnxruntime"):
        if not Path(path).is_file():
            raise DataError(f"{path} is missing; give an .onnx file that export_onnx.py wrote")
        self._run, (self.height, self.width), camera = LOADERS[runtime](path)
        if camera is None:
            raise DataError(f"{path} does not say its depth range and unit; {EXPORT_AGAIN}")
        self._range = parse_training_camera(camera.encode(), path, EXPORT_AGAIN)
        self.training_camera = self._range.with_range(min_depth, max_depth)

    def disparity_array(self, images: np.ndarray) -> np.ndarray:
        """Compute disparity.

        Args:
            images: (B, 3, height, width) uint8 RGB.

        Returns:
            (B, 1, height, width) in (0, 1).
        """
        scaled_disp = self._run(images.astype(np.float32) / 255)
        min_disp, max_disp = 1 / self._range.max_depth, 1 / self._range.min_depth
        return (scaled_disp - min_disp) / (max_disp - min_disp)  # before the range was applied

    @staticmethod
    def resize_disp(disp: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize (B, 1, h, w) disparities to (B, 1, height, width), bilinearly."""
        return np.stack([cv2.resize(each, (width, height))[None] for each in disp[:, 0]])


def open_session(model: str | Path | bytes) -> InferenceSession:
    """Load an ONNX file, its path or its content, into ONNX Runtime on the CPU.

    Raises:
        DataError: ONNX Runtime is not installed, or the file is broken.
    """
    require_packages(["onnxruntime"], "onnxruntime")
    import onnxruntime
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # errors are reported here, in one line
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no other class in common
        name = "the exported network" if isinstance(model, bytes) else model
        raise _unreadable(name, error) from None


def _load_into_onnxruntime(path: str | Path) -> Network:
    session = open_session(path)
    return Network(lambda images: session.run(OUTPUTS[:1], {INPUT: images})[0],
                   tuple(session.get_inputs()[0].shape[2:]),
                   session.get_modelmeta().custom_metadata_map.get(CAMERA))


@cache
def openvino_core() -> openvino.Core:
    """Return the one core of OpenVINO that this process uses.

    Each core that compiles for the CPU gives the thread another stack for signals. Of two cores,
    the second to be deleted gives back the first one's, which is freed: the next signal, such as
    Ctrl-C, would end the process with a segmentation fault.
    """
    import openvino
    return openvino.Core()


def _load_into_openvino(path: str | Path) -> Network:
    """Load an ONNX file into OpenVINO, which computes in bfloat16 where the CPU can."""
    require_packages(["openvino"], "openvino")
    core = openvino_core()
    try:
        model = core.read_model(path)
        size = tuple(side.get_length() for side in list(model.input(0).partial_shape)[2:])
        network = core.compile_model(model, "CPU")
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    keys = ["framework", CAMERA]  # where OpenVINO puts the metadata of an ONNX file
    return Network(lambda images: network({INPUT: images})[OUTPUTS[0]], size,
                   model.get_rt_info(keys).astype(str) if model.has_rt_info(keys) else None)


def _unreadable(name: str | Path, error: Exception) -> DataError:
    """Return the error of a file that a runtime rejects, with the first words of the runtime."""
    words = " ".join(str(error).split())[:120]
    return DataError(f"{name} cannot be read as an ONNX file ({words}); {EXPORT_AGAIN}")


LOADERS = {"onnxruntime": _load_into_onnxruntime, "openvino": _load_into_openvino}

"""Predict depth with ONNX Runtime and a file of export_onnx.py: PyTorch is not needed here."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from checkpoints.training_camera import TrainingCamera, parse_training_camera
from runtime.errors import DataError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT, OUTPUTS = "image", ["disp", "depth"]
CAMERA = "camera"  # key of the file's metadata: the content of camera.json


class OnnxPredictor:
    """Predict disparities with an ONNX file, as `Predictor` does with a weights folder.

    Args:
        path: of a file of export_onnx.py.
        min_depth: depth at disparity 1 (default: the value used in training).
        max_depth: depth at disparity 0 (default: the value used in training).

    Attributes:
        height, width: size of the network's input, pixels.
        training_camera: depth range, baseline, intrinsics and unit of depth.

    Raises:
        DataError: ONNX Runtime is not installed, the file is missing, broken or of another
            program, or `min_depth` is not below `max_depth`.
    """

    def __init__(self, path: str | Path, min_depth: float | None = None,
                 max_depth: float | None = None):
        self._session = open_session(path)
        self._range, (self.height, self.width) = _read_description(self._session, path)
        self.training_camera = self._range.with_range(min_depth, max_depth)

    def disparity_array(self, images: np.ndarray) -> np.ndarray:
        """Compute disparity.

        Args:
            images: (B, 3, height, width) uint8 RGB.

        Returns:
            (B, 1, height, width) in (0, 1).
        """
        images = images.astype(np.float32) / 255
        scaled_disp, = self._session.run(OUTPUTS[:1], {INPUT: images})
        min_disp, max_disp = 1 / self._range.max_depth, 1 / self._range.min_depth
        return (scaled_disp - min_disp) / (max_disp - min_disp)  # before the range was applied

    @staticmethod
    def resize_disp(disp: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize (B, 1, h, w) disparities to (B, 1, height, width), bilinearly."""
        return np.stack([cv2.resize(each, (width, height))[None] for each in disp[:, 0]])


def open_session(model: str | Path | bytes, threads: int = 0) -> InferenceSession:
    """Load an ONNX file into ONNX Runtime, on the CPU.

    Args:
        model: path or content of the file.
        threads: that compute; 0: one for each core.

    Raises:
        DataError: ONNX Runtime is not installed, or the file is missing or broken.
    """
    if find_spec("onnxruntime") is None:
        raise DataError("onnxruntime is not installed; type: pip install onnxruntime")
    import onnxruntime
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise DataError(f"{model} is missing; give an .onnx file that export_onnx.py wrote")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4  # errors are reported here, in one line
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no class of their own
        name = "the exported network" if isinstance(model, bytes) else model
        raise DataError(f"{name} cannot be read by ONNX Runtime ({str(error)[:200]}); export it "
                        "again") from None


def _read_description(session: InferenceSession,
                      path: str | Path) -> tuple[TrainingCamera, tuple[int, int]]:
    """Return the camera and the input size, (height, width), of an ONNX file.

    Raises:
        DataError: the file is not one of export_onnx.py.
    """
    camera = session.get_modelmeta().custom_metadata_map.get(CAMERA)
    if camera is None:
        raise DataError(f"{path} does not say its depth range and unit; export it again with "
                        "export_onnx.py")
    height, width = session.get_inputs()[0].shape[2:]
    return parse_training_camera(camera.encode(), path), (height, width)

"""Read and write camera.json: depth range, baseline, intrinsics and unit of a weights folder."""
from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from datasets.intrinsics import Intrinsics, from_normalised
from metrics.depth import STEREO_SCALE_FACTOR, Values, disp_to_depth
from options import MAX_DEPTH, MIN_DEPTH, NOMINAL_BASELINE
from runtime.errors import DataError
from runtime.files import write_atomically

FILE_NAME = "camera.json"
COPY_AGAIN = "copy it again, or delete it to use KITTI's camera"  # what to do about a broken file
MAX_CENTRE = 10  # of the principal point, in image sizes; a larger number is in pixels
TRAININGS = ("mono", "stereo", "mono+stereo", "mono+speed")


class Unit(NamedTuple):
    """Name the unit of depth, and the factor from the network's depth to that unit.

    Attributes:
        factor: multiplies the network's depth.
        words: names the unit and its origin.
    """

    factor: float
    words: str


class TrainingCamera(NamedTuple):
    """Describe the camera that a network was trained with, and the unit of the network's depth.

    Attributes:
        training: "mono", "stereo", "mono+stereo" or "mono+speed".
        min_depth: depth at disparity 1, in the network's unit of length.
        max_depth: depth at disparity 0, in the network's unit of length.
        baseline: metres between the two cameras of the stereo pairs; None if unknown.
        K: (3, 3) intrinsics in units of the image's width and height; None if sequences differ.
        image_size: width and height of the image files before resizing; None if unknown.
    """

    training: str
    min_depth: float = MIN_DEPTH
    max_depth: float = MAX_DEPTH
    baseline: float | None = None
    K: list[list[float]] | None = None
    image_size: list[int] | None = None

    @property
    def metres(self) -> float | None:
        """Metres per unit of the network's depth; None if the scale is unknown."""
        if self.training == "mono+speed":
            return 1.0
        # stereo training uses the nominal baseline 0.1, so the network's unit is ten baselines
        if self.training == "mono" or self.baseline is None:
            return None
        return self.baseline / NOMINAL_BASELINE

    def unit(self, scale: float | None = None, fitted_to: str | None = None,
             assume_kitti: bool = False) -> Unit:
        """Return the unit of depth: metres where the scale is known.

        Args:
            scale: factor chosen by the user or fitted to ground truth; used instead of training's.
            fitted_to: the ground truth file that `scale` was fitted to.
            assume_kitti: use KITTI's 5.4 if the scale is unknown, as --pred_metric_depth does.
        """
        if fitted_to:
            return Unit(scale, f"metres: {scale:g} x the network's depth, fitted to {fitted_to}")
        if scale is not None:
            return Unit(scale, f"{scale:g} x the network's depth, as --scale says")
        if self.training == "mono+speed":
            return Unit(1.0, "metres (trained with speed)")
        if self.metres is not None:
            return Unit(self.metres, f"metres: {self.metres:g} x the network's depth, from a "
                        f"baseline of {self.baseline:g} m that training calls {NOMINAL_BASELINE}")
        if assume_kitti:
            return Unit(STEREO_SCALE_FACTOR, f"{STEREO_SCALE_FACTOR:g} x the network's depth, "
                        "which would be metres only after training with KITTI's stereo pairs")
        return Unit(1.0, "relative: depth up to an unknown scale factor")

    def disp_to_depth(self, disp: Values) -> tuple[Values, Values]:
        """Convert the network's disparity in (0, 1) to scaled inverse depth and depth."""
        return disp_to_depth(disp, self.min_depth, self.max_depth)

    def with_range(self, min_depth: float | None, max_depth: float | None) -> TrainingCamera:
        """Replace the limits of the depth range that are given.

        Raises:
            DataError: the minimum is not below the maximum.
        """
        changed = self._replace(min_depth=min_depth or self.min_depth,
                                max_depth=max_depth or self.max_depth)
        if changed.min_depth >= changed.max_depth:
            raise DataError(f"--min_depth {changed.min_depth} is not below --max_depth "
                            f"{changed.max_depth}; the weights were trained with "
                            f"{self.min_depth:g} and {self.max_depth:g}")
        return changed

    def intrinsics(self, width: int, height: int) -> Intrinsics | None:
        """Scale K to images of this size; None if K is unknown."""
        return None if self.K is None else from_normalised(self.K, width, height)


def write_training_camera(folder: str | Path, training_camera: TrainingCamera,
                          learned: dict | None = None) -> None:
    """Write camera.json into a weights folder; `learned` are further fields, for people."""
    write_atomically(Path(folder, FILE_NAME), format_training_camera(training_camera, learned))


def format_training_camera(training_camera: TrainingCamera, learned: dict | None = None) -> bytes:
    """Return the content of a camera.json; `learned` are further fields, for people."""
    fields = training_camera._asdict() | {"unit": training_camera.unit().words} | (learned or {})
    return (json.dumps(fields, indent=2) + "\n").encode()


def read_training_camera(folder: str | Path, use_stereo: bool) -> TrainingCamera:
    """Read camera.json of a weights folder; without this file, return KITTI's camera.

    Args:
        folder: a weights folder of train.py or a published one.
        use_stereo: whether the weights were trained with stereo pairs, as encoder.pth says.

    Raises:
        DataError: camera.json is broken.
    """
    path = Path(folder, FILE_NAME)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        # imported here: all else in this file works without PyTorch, as prediction with ONNX does
        from datasets.kitti_dataset import KITTIDataset
        return TrainingCamera("stereo" if use_stereo else "mono", baseline=KITTIDataset.baseline,
                              K=KITTIDataset.K[:3, :3].tolist(),
                              image_size=list(KITTIDataset.full_res_shape))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return parse_training_camera(content, path)


def parse_training_camera(content: bytes, name: str | Path,
                          remedy: str = COPY_AGAIN) -> TrainingCamera:
    """Parse and validate the content of a camera.json.

    Args:
        content: JSON with the fields of `TrainingCamera`; other fields are ignored.
        name: of the file, for the error.
        remedy: what to do about a broken file, for the error.

    Raises:
        DataError: the content is broken.
    """
    try:
        fields = json.loads(content)
        found = TrainingCamera(**{field: fields[field] for field in TrainingCamera._fields})
        is_valid = (found.training in TRAININGS
                    and not any(isinstance(value, bool) for value in found)
                    and 0 < found.min_depth < found.max_depth < float("inf")
                    and (found.baseline is None or 0 < found.baseline < float("inf"))
                    and (found.K is None or _is_intrinsics(found.K))
                    and (found.image_size is None or _is_size(found.image_size)))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_valid = False
    if not is_valid:
        raise DataError(f"{name} is broken; {remedy}")
    return found


def _is_intrinsics(K: object) -> bool:
    return [len(row) for row in K] == [3, 3, 3] and all(
        isinstance(v, (int, float)) and abs(v) < 1e6 for row in K for v in row) and (
        min(K[0][0], K[1][1]) > 0) and list(K[2]) == [0, 0, 1] and (
        max(abs(K[0][2]), abs(K[1][2])) < MAX_CENTRE)


def _is_size(size: object) -> bool:
    return len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)

"""What a weights folder says of its depth: how it was trained, its range, its camera, its unit."""
from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from datasets.intrinsics import Intrinsics, from_normalised
from datasets.kitti_dataset import KITTIDataset
from datasets.mono_dataset import NOMINAL_BASELINE
from options import MAX_DEPTH, MIN_DEPTH
from runtime.errors import DataError
from runtime.files import write_atomically

FILE_NAME = "camera.json"
TRAININGS = ("mono", "stereo", "mono+stereo")


class TrainingCamera(NamedTuple):
    """The training mode and the camera of a weights folder.

    Attributes:
        training: "mono", "stereo" or "mono+stereo".
        min_depth: depth at disparity 1, in the network's unit of length.
        max_depth: depth at disparity 0.
        baseline: metres between the cameras of the stereo pairs; None where it is not known.
        K: (3, 3) intrinsics in units of the image's width and height; None where sequences differ.
        image_size: width and height of the images trained on, as they lie on the disk, or None.
    """

    training: str
    min_depth: float = MIN_DEPTH
    max_depth: float = MAX_DEPTH
    baseline: float | None = None
    K: list[list[float]] | None = None
    image_size: list[int] | None = None

    @property
    def metres(self) -> float | None:
        """Metres in the network's unit of length; None where the unit is unknown."""
        # stereo training calls the baseline 0.1, so its unit is ten baselines
        if self.training == "mono" or self.baseline is None:
            return None
        return self.baseline / NOMINAL_BASELINE

    def unit(self) -> str:
        """Say the unit of depth, and why."""
        if self.metres is None:
            return "relative: the network's depth times a constant that nothing tells"
        return (f"metres: {self.metres:g} x the network's depth, from a baseline of "
                f"{self.baseline:g} m that training calls {NOMINAL_BASELINE}")

    def with_range(self, min_depth: float | None, max_depth: float | None) -> TrainingCamera:
        """Return the camera with another depth range, where one is given.

        Raises:
            DataError: the smaller depth is not the smaller one.
        """
        changed = self._replace(min_depth=min_depth or self.min_depth,
                                max_depth=max_depth or self.max_depth)
        if changed.min_depth >= changed.max_depth:
            raise DataError(f"--min_depth {changed.min_depth} is not below --max_depth "
                            f"{changed.max_depth}; the weights were trained with "
                            f"{self.min_depth:g} and {self.max_depth:g}")
        return changed

    def intrinsics(self, width: int, height: int) -> Intrinsics | None:
        """Return the camera for images of this size, if it is known."""
        return None if self.K is None else from_normalised(self.K, width, height)


def write_training_camera(folder: str | Path, camera: TrainingCamera) -> None:
    """Write camera.json into a weights folder."""
    fields = camera._asdict() | {"unit": camera.unit()}
    write_atomically(Path(folder, FILE_NAME), (json.dumps(fields, indent=2) + "\n").encode())


def read_training_camera(folder: str | Path, use_stereo: bool) -> TrainingCamera:
    """Return the camera of a weights folder; one without camera.json is taken for KITTI's.

    Args:
        folder: with camera.json, or a published one.
        use_stereo: what its encoder.pth says.

    Raises:
        DataError: camera.json is broken.
    """
    path = Path(folder, FILE_NAME)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return TrainingCamera("stereo" if use_stereo else "mono", baseline=KITTIDataset.baseline,
                      K=KITTIDataset.K[:3, :3].tolist(),
                      image_size=list(KITTIDataset.full_res_shape))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return parse_training_camera(content, path)


def parse_training_camera(content: bytes, name: str | Path) -> TrainingCamera:
    """Read the content of a camera.json.

    Raises:
        DataError: it is broken.
    """
    try:
        fields = json.loads(content)
        camera = TrainingCamera(**{field: fields[field] for field in TrainingCamera._fields})
        is_whole = (camera.training in TRAININGS
                    and 0 < camera.min_depth < camera.max_depth < float("inf")
                    and (camera.baseline is None or 0 < camera.baseline < float("inf"))
                    and (camera.K is None or _is_matrix(camera.K))
                    and (camera.image_size is None or _is_size(camera.image_size)))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise DataError(f"{name} is broken; copy it again, or delete it, and the weights are taken "
                        "for KITTI's")
    return camera


def _is_matrix(K: object) -> bool:
    return [len(row) for row in K] == [3, 3, 3] and all(
        isinstance(v, (int, float)) and abs(v) < 1e6 for row in K for v in row) and (
        min(K[0][0], K[1][1]) > 0)


def _is_size(size: object) -> bool:
    return len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size)

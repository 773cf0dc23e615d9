"""KITTI in its layouts: raw drives, odometry sequences, depth prediction and its test images."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.images import IMAGE_ERRORS, open_image
from datasets.mono_dataset import NO_SIDE, MonoDataset
from datasets.splits import check_inside, parse_line
from kitti_utils import DEPTH_PNG_SCALE, generate_depth_map
from runtime.errors import DataError


class KITTIDataset(MonoDataset):
    """What all of KITTI shares: the camera, and its two colour sides."""

    # Faithful: near enough for every drive; the principal point at the centre is right under a flip
    K = np.array([[0.58, 0, 0.5, 0],
                  [0, 1.92, 0.5, 0],
                  [0, 0, 1, 0],
                  [0, 0, 0, 1]], dtype=np.float32)
    baseline = 0.54  # metres
    cure = "extract the drive again, or list only frames that are there"
    full_res_shape = (1242, 375)  # width, height of most drives, to which ground truth is brought
    side_map = {"2": 2, "3": 3, "l": 2, "r": 3}  # noqa: RUF012 - a constant

    def camera(self, side: str | None) -> int:
        """Return KITTI's number of the camera on `side`.

        Raises:
            DataError: the split line names no side.
        """
        if side not in self.side_map:
            raise DataError(NO_SIDE)
        return self.side_map[side]

    def to_full_res(self, depth: np.ndarray, do_flip: bool) -> np.ndarray:
        """Bring a depth map to `full_res_shape` by its nearest pixels, so that batches stack."""
        (height, width), (to_width, to_height) = depth.shape, self.full_res_shape
        rows = ((np.arange(to_height) + 0.5) * height / to_height).astype(int)
        columns = ((np.arange(to_width) + 0.5) * width / to_width).astype(int)
        resized = depth[rows[:, None], columns]
        return np.fliplr(resized) if do_flip else resized


class KITTIRAWDataset(KITTIDataset):
    """<data_path>/<date>/<drive>/image_02/data/<10 digits>, ground truth from the velodyne."""

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image."""
        return str(Path(self.data_path, folder, f"image_0{self.camera(side)}/data",
                        f"{frame_index:010d}{self.img_ext}"))

    def _scan_path(self, folder: str, frame_index: int) -> Path:
        return Path(self.data_path, folder, f"velodyne_points/data/{frame_index:010d}.bin")

    def check_depth(self) -> bool:
        """Return whether the first frame has a velodyne scan."""
        folder, frame, _ = parse_line(self.filenames[0])
        return self._scan_path(folder, frame).is_file()

    def get_depth(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> np.ndarray:
        """Return the camera's z at the velodyne's points, (H, W) metres, 0 = none."""
        calib_dir = Path(self.data_path, folder).parent
        scan = self._scan_path(folder, frame_index)
        if not scan.is_file():  # a few of KITTI's frames have none
            return np.zeros(self.full_res_shape[::-1], np.float32)
        check_inside(scan, self.data_path)
        return self.to_full_res(generate_depth_map(calib_dir, scan, self.camera(side)), do_flip)


class KITTIOdomDataset(KITTIDataset):
    """<data_path>/sequences/<2 digits>/image_2/<6 digits>; without ground truth of depth."""

    cure = ("extract data_odometry_color.zip, 65 GB (python prepare_data.py kitti --odometry "
            "--download --data_path KITTI fetches it)")

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image; `folder` is the number of the sequence."""
        if not folder.isdigit():
            raise DataError(f"split line names {folder!r}; odometry lists name a sequence, as in "
                            "`9 0 l`")
        return str(Path(self.data_path, f"sequences/{int(folder):02d}/image_{self.camera(side)}",
                        f"{frame_index:06d}{self.img_ext}"))


class KITTIDepthDataset(KITTIDataset):
    """Raw drives with the improved ground truth, where `annotated_path` finds it."""

    get_image_path = KITTIRAWDataset.get_image_path

    def _depth_path(self, folder: str, frame_index: int, side: str | None) -> Path:
        return annotated_path(self.data_path, folder, frame_index, self.camera(side))

    def check_depth(self) -> bool:
        """Return whether the first frame has a depth PNG."""
        return self._depth_path(*parse_line(self.filenames[0])).is_file()

    def get_depth(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> np.ndarray:
        """Return the improved ground truth, (H, W) metres, 0 = none."""
        path = self._depth_path(folder, frame_index, side)
        if not path.is_file():  # the first and last frames of a drive have none
            return np.zeros(self.full_res_shape[::-1], np.float32)
        check_inside(path, self.data_path)
        return self.to_full_res(read_depth_png(path), do_flip)


class KITTITestDataset(KITTIDataset):
    """The depth prediction test set: <data_path>/image/<10 digits>, one view, no neighbours."""

    cure = "extract data_depth_selection.zip, 2 GB, and give the folder that holds image/"

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of an image, a .png as KITTI ships it."""
        return str(Path(self.data_path, folder, f"{frame_index:010d}.png"))


class KITTI2015Dataset(KITTIDataset):
    """The stereo pairs of KITTI 2015: <data_path>/training/image_2/<6 digits>_10, no neighbours."""

    cure = "extract data_scene_flow.zip, 2 GB, and give the folder that holds training/"

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of an image; `folder` is training or testing."""
        return str(Path(self.data_path, folder, f"image_{self.camera(side)}",
                        f"{frame_index:06d}_10{self.img_ext}"))


def annotated_path(data_path: str | Path, folder: str, frame_index: int, camera: int) -> Path:
    """Return where a frame's improved ground truth lies, in either of KITTI's layouts.

    It is proj_depth/groundtruth/image_02 in the drive's folder, beside the images, or in a folder
    of the drive's name in train/ or val/, as the depth archive has it. Where it is in none of
    them, the first is returned.
    """
    drive, inside = Path(folder), f"proj_depth/groundtruth/image_0{camera}/{frame_index:010d}.png"
    paths = [Path(data_path, place, inside)
             for place in (drive, Path("train", drive.name), Path("val", drive.name))]
    return next((path for path in paths if path.is_file()), paths[0])


def read_depth_png(path: str | Path) -> np.ndarray:
    """Read KITTI's 16-bit PNG of depths, or of disparities, x 256.

    Returns:
        (H, W) float32 metres or, of disparities, pixels; 0 = none.

    Raises:
        DataError: the file is missing or is no such PNG.
    """
    try:
        with open_image(path) as image:
            values = np.array(image)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; extract data_depth_annotated.zip (README)") from None
    except IMAGE_ERRORS as error:
        raise DataError(f"{path} cannot be read as a PNG: {error}; extract it again") from None
    if values.ndim != 2:
        raise DataError(f"{path} has {values.shape[-1]} channels; a depth PNG has one, of 16 bits")
    if values.dtype.itemsize < 2:
        raise DataError(f"{path} has 8 bits; a depth PNG has 16, of metres x {DEPTH_PNG_SCALE:g}")
    return values.astype(np.float32) / DEPTH_PNG_SCALE

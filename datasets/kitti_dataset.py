"""Read KITTI's layouts: raw drives, odometry, depth prediction and its test set, KITTI 2015."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.image_files import IMAGE_ERRORS, open_image
from datasets.mono_dataset import MonoDataset
from datasets.odometer import Odometer, odometer_of_positions, read_oxts
from datasets.splits import parse_line
from datasets.stereo import NO_SIDE
from kitti_utils import DEPTH_PNG_SCALE, generate_depth_map, read_poses
from runtime.errors import DataError


class KITTIDataset(MonoDataset):
    """Base class of KITTI's layouts, with the intrinsics and the two colour cameras."""

    # Faithful: close enough for every drive; a flip leaves a principal point at the centre in place
    K = np.array([[0.58, 0, 0.5, 0],
                  [0, 1.92, 0.5, 0],
                  [0, 0, 1, 0],
                  [0, 0, 0, 1]], dtype=np.float32)
    baseline = 0.54  # metres, between the colour cameras
    cure = "extract the drive again, or list only frames that are there"
    full_res_shape = (1242, 375)  # width, height of most drives; ground truth is resized to it
    side_map = {"2": 2, "3": 3, "l": 2, "r": 3}  # noqa: RUF012 - a constant

    def camera_number(self, side: str | None) -> int:
        """Return KITTI's number of the camera on `side`: 2 (left) or 3 (right).

        Raises:
            DataError: the split line names no side.
        """
        if side not in self.side_map:
            raise DataError(NO_SIDE)
        return self.side_map[side]

    def to_full_res(self, depth: np.ndarray, do_flip: bool) -> np.ndarray:
        """Resize a depth map (H, W) to `full_res_shape` by nearest neighbour, to stack batches."""
        from skimage.transform import resize  # takes 0.3 s, and training needs no ground truth
        resized = resize(depth, self.full_res_shape[::-1], order=0, preserve_range=True,
                         anti_aliasing=False, mode="constant")
        return np.fliplr(resized) if do_flip else resized


class KITTIRAWDataset(KITTIDataset):
    """Read raw drives, <data_path>/<date>/<drive>/image_02/data/<10 digits>, with their scans."""

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image."""
        return str(Path(self.data_path, folder, f"image_0{self.camera_number(side)}/data",
                        f"{frame_index:010d}{self.img_ext}"))

    def _scan_path(self, folder: str, frame_index: int) -> Path:
        return Path(self.data_path, folder, f"velodyne_points/data/{frame_index:010d}.bin")

    def check_depth(self) -> bool:
        """Return whether the first frame has a velodyne scan."""
        folder, frame, _ = parse_line(self.filenames[0])
        return self._scan_path(folder, frame).is_file()

    def get_depth(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> np.ndarray:
        """Return the camera z of a frame's velodyne points, (H, W) metres, 0 = unknown."""
        calib_dir = Path(self.data_path, folder).parent
        scan = self._scan_path(folder, frame_index)
        if not scan.is_file():  # KITTI lacks the scans of a few frames
            return np.zeros(self.full_res_shape[::-1], np.float32)
        depth = generate_depth_map(calib_dir, scan, self.camera_number(side))
        return self.to_full_res(depth, do_flip)

    def get_odometer(self, folder: str) -> Odometer:
        """Return the metres travelled at each frame of a drive, from oxts/."""
        return read_oxts(Path(self.data_path, folder))


class KITTIOdomDataset(KITTIDataset):
    """Read odometry sequences, <data_path>/sequences/<2 digits>/image_2/<6 digits>."""

    cure = ("extract data_odometry_color.zip, 65 GB (python prepare_data.py kitti --odometry "
            "--download --data_path KITTI fetches it)")

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of a frame's image; `folder` is the sequence number."""
        images = f"sequences/{_sequence(folder)}/image_{self.camera_number(side)}"
        return str(Path(self.data_path, images, f"{frame_index:06d}{self.img_ext}"))

    def get_odometer(self, folder: str) -> Odometer:
        """Return the metres travelled at each frame of a sequence, from poses/<2 digits>.txt."""
        path = Path(self.data_path, "poses", f"{_sequence(folder)}.txt")
        return odometer_of_positions(read_poses(path)[:, :3, 3], path)


def _sequence(folder: str) -> str:
    """Return the two digits of the odometry sequence that a split line names.

    Raises:
        DataError: the line names another folder.
    """
    if not folder.isdecimal():
        raise DataError(f"the split line names the folder {folder!r}, expected the number of a "
                        "sequence, as in `9 0 l`")
    return f"{int(folder):02d}"


class KITTIDepthDataset(KITTIDataset):
    """Read raw drives with KITTI's improved ground truth, which `annotated_path` finds."""

    get_image_path = KITTIRAWDataset.get_image_path
    get_odometer = KITTIRAWDataset.get_odometer

    def _depth_path(self, folder: str, frame_index: int, side: str | None) -> Path:
        return annotated_path(self.data_path, folder, frame_index, self.camera_number(side))

    def check_depth(self) -> bool:
        """Return whether the first frame has a depth PNG."""
        return self._depth_path(*parse_line(self.filenames[0])).is_file()

    def get_depth(self, folder: str, frame_index: int, side: str | None,
                  do_flip: bool) -> np.ndarray:
        """Return a frame's improved ground truth, (H, W) metres, 0 = unknown."""
        path = self._depth_path(folder, frame_index, side)
        if not path.is_file():  # KITTI lacks the maps of a drive's first and last frames
            return np.zeros(self.full_res_shape[::-1], np.float32)
        return self.to_full_res(read_depth_png(path), do_flip)


class KITTITestDataset(KITTIDataset):
    """Read the depth prediction test set, <data_path>/image/<10 digits>.png: single images."""

    cure = "extract data_depth_selection.zip, 2 GB, and give the folder that holds image/"

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of an image, always .png, as KITTI ships it."""
        return str(Path(self.data_path, folder, f"{frame_index:010d}.png"))


class KITTI2015Dataset(KITTIDataset):
    """Read the stereo pairs of KITTI 2015, <data_path>/training/image_2/<6 digits>_10."""

    cure = "extract data_scene_flow.zip, 2 GB, and give the folder that holds training/"

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of an image; `folder` is training or testing."""
        return str(Path(self.data_path, folder, f"image_{self.camera_number(side)}",
                        f"{frame_index:06d}_10{self.img_ext}"))


def annotated_path(data_path: str | Path, folder: str, frame_index: int,
                   camera_number: int) -> Path:
    """Return the path of a frame's improved ground truth, in either of KITTI's layouts.

    The map lies in proj_depth/groundtruth/image_0<camera_number>, either in the drive's folder
    beside the images, or in train/<drive> or val/<drive> as in the depth archive. If the file is
    missing, the path beside the images is returned.
    """
    drive = Path(folder)
    inside = f"proj_depth/groundtruth/image_0{camera_number}/{frame_index:010d}.png"
    paths = [Path(data_path, place, inside)
             for place in (drive, Path("train", drive.name), Path("val", drive.name))]
    return next((path for path in paths if path.is_file()), paths[0])


def read_depth_png(path: str | Path) -> np.ndarray:
    """Read a 16-bit PNG of KITTI: depth or disparity, times 256.

    Returns:
        (H, W) float32, metres for depth and pixels for disparity; 0 = unknown.

    Raises:
        DataError: the file is missing, or not a 16-bit PNG of one channel.
    """
    try:
        with open_image(path) as image:
            values = np.array(image)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; extract data_depth_annotated.zip "
                        "(docs/kitti.md)") from None
    except IMAGE_ERRORS as error:
        raise DataError(f"{path} cannot be read as a PNG: {error}; extract it again") from None
    if values.ndim != 2:
        raise DataError(f"{path} has {values.shape[-1]} channels; a depth PNG has one channel, of "
                        "16 bits")
    if values.dtype.itemsize < 2 or values.dtype.kind == "f":
        raise DataError(f"{path} has {8 * values.dtype.itemsize} bits; a depth PNG has 16, of "
                        f"metres x {DEPTH_PNG_SCALE:g}")
    return values.astype(np.float32) / DEPTH_PNG_SCALE

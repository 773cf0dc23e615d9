"""Load items and make ground truth as the published pipeline does, without any shortcut."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import functional as pictures

from datasets.splits import parse_line

CAMERAS = {"l": 2, "r": 3, "2": 2, "3": 3}
K_OF_UNIT_SIZE = np.array([[0.58, 0, 0.5, 0], [0, 1.92, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
BASELINE = 0.1           # of a stereo pair, in the network's unit of length
FULL_SIZE = (1242, 375)  # width, height of an item's ground truth


def scan_path(data_path: str | Path, folder: str, frame: int) -> Path:
    """Return the path of a frame's velodyne scan."""
    return Path(data_path, folder, "velodyne_points", "data", f"{frame:010d}.bin")


def draw_jitter() -> list[tuple[Callable, float]]:
    """Draw an item's colour changes in random order: all four with probability 0.5, else none."""
    if random.random() < 0.5:
        return []
    changes = [(pictures.adjust_brightness, random.uniform(0.8, 1.2)),
               (pictures.adjust_contrast, random.uniform(0.8, 1.2)),
               (pictures.adjust_saturation, random.uniform(0.8, 1.2)),
               (pictures.adjust_hue, random.uniform(-0.1, 0.1))]
    random.shuffle(changes)
    return changes


class LiteralDataset(Dataset):
    """Load KITTI's raw drives: every frame at every scale, plain and jittered.

    Args:
        data_path: folder of the dates.
        filenames: split lines, `folder frame side`.
        height: height of the images at scale 0, pixels.
        width: width of the images at scale 0, pixels.
        frame_idxs: frames of an item: 0, offsets in time, "s" for the other stereo view.
        num_scales: number of images in every pyramid.
        is_train: flip and jitter at random; otherwise load ground truth, if the first line has a
            scan.
        img_ext: extension of the image files.
        with_scans: also load ground truth in training, as the original does for its logs.
    """

    def __init__(self, data_path: str | Path, filenames: Sequence[str], height: int, width: int,
                 frame_idxs: Sequence[int | str], num_scales: int, is_train: bool,
                 img_ext: str = ".jpg", with_scans: bool = False):
        super().__init__()
        self.data_path, self.filenames, self.img_ext = data_path, filenames, img_ext
        self.height, self.width, self.num_scales = height, width, num_scales
        self.frame_idxs, self.is_train = frame_idxs, is_train
        folder, frame, _ = parse_line(filenames[0])
        has_scans = scan_path(data_path, folder, frame).is_file()
        self.loads_depth = has_scans and (with_scans or not is_train)

    def __len__(self) -> int:
        return len(self.filenames)

    def __getitem__(self, index: int) -> dict:
        """Load one item.

        Returns:
            ("color", f, s), ("color_aug", f, s): (3, height / 2^s, width / 2^s) float32 in [0, 1].
            ("K", s), ("inv_K", s): (4, 4) float32, in pixels of scale s.
            "stereo_T": (4, 4) float32, if "s" is among the frames.
            "depth_gt": (1, 375, 1242) float32 metres, 0 = none, if there is ground truth.
        """
        folder, frame, side = parse_line(self.filenames[index])
        camera = CAMERAS[side]
        flipped = self.is_train and random.random() < 0.5
        changes = draw_jitter() if self.is_train else []
        item = {}
        for f in self.frame_idxs:
            at, seen_by = (frame, 5 - camera) if f == "s" else (frame + f, camera)
            image = self._open(folder, at, seen_by)
            if flipped:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for s in range(self.num_scales):
                size = (self.width // 2**s, self.height // 2**s)
                image = image.resize(size, Image.Resampling.LANCZOS)
                jittered = image
                for change, amount in changes:
                    jittered = change(jittered, amount)
                item["color", f, s] = pictures.to_tensor(image)
                item["color_aug", f, s] = pictures.to_tensor(jittered)
        for s in range(self.num_scales):
            K = K_OF_UNIT_SIZE.astype(np.float32)
            K[0] *= self.width // 2**s
            K[1] *= self.height // 2**s
            item["K", s] = torch.from_numpy(K)
            item["inv_K", s] = torch.from_numpy(np.linalg.pinv(K))
        if "s" in self.frame_idxs:
            sign = (-1 if camera == 2 else 1) * (-1 if flipped else 1)
            item["stereo_T"] = torch.eye(4)
            item["stereo_T"][0, 3] = sign * BASELINE
        if self.loads_depth:
            item["depth_gt"] = self._depth(folder, frame, camera)
        return item

    def _open(self, folder: str, frame: int, camera: int) -> Image.Image:
        path = Path(self.data_path, folder, f"image_0{camera}", "data",
                    f"{frame:010d}{self.img_ext}")
        with Image.open(path) as image:
            return image.convert("RGB")

    def _depth(self, folder: str, frame: int, camera: int) -> Tensor:
        depth = generate_depth_map(Path(self.data_path, folder).parent,
                                   scan_path(self.data_path, folder, frame), camera, False)
        resized = Image.fromarray(depth).resize(FULL_SIZE, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(resized))[None]


def read_calibration(path: str | Path) -> dict[str, np.ndarray]:
    """Read the lines `key: numbers` of a calibration file."""
    numbers = {}
    for line in Path(path).read_text().splitlines():
        key, _, values = line.partition(":")
        if key != "calib_time" and values.strip():
            numbers[key] = np.array(values.split(), float)
    return numbers


def generate_depth_map(calib_dir: str | Path, velo_file: str | Path, cam: int,
                       vel_depth: bool) -> np.ndarray:
    """Project a velodyne scan into a camera.

    Args:
        calib_dir: folder of the date, with the calibration files.
        velo_file: the scan.
        cam: 2 (left) or 3 (right).
        vel_depth: store the forward distance from the scanner instead of the camera's z.

    Returns:
        (H, W) float32 metres, 0 = unknown.
    """
    cameras = read_calibration(Path(calib_dir, "calib_cam_to_cam.txt"))
    velodyne = read_calibration(Path(calib_dir, "calib_velo_to_cam.txt"))
    width, height = cameras["S_rect_02"].astype(int)
    velo_to_cam, rectify = np.eye(4), np.eye(4)
    velo_to_cam[:3] = np.hstack([velodyne["R"].reshape(3, 3), velodyne["T"].reshape(3, 1)])
    rectify[:3, :3] = cameras["R_rect_00"].reshape(3, 3)
    velo_to_image = cameras[f"P_rect_0{cam}"].reshape(3, 4) @ rectify @ velo_to_cam

    points = np.fromfile(velo_file, np.float32).reshape(-1, 4)
    points[:, 3] = 1
    points = points[points[:, 0] >= 0]
    projected = points @ velo_to_image.T                                    # (N, 3)
    values = points[:, 0] if vel_depth else projected[:, 2]
    in_front = projected[:, 2] > 0
    projected, values = projected[in_front], values[in_front]
    columns = np.round(projected[:, 0] / projected[:, 2]) - 1
    rows = np.round(projected[:, 1] / projected[:, 2]) - 1
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows, values = columns[inside].astype(int), rows[inside].astype(int), values[inside]

    depth = np.zeros((height, width), np.float32)
    depth[rows, columns] = values
    pixels = rows * width + columns
    for pixel, count in Counter(pixels.tolist()).items():
        if count > 1:
            depth[pixel // width, pixel % width] = values[pixels == pixel].min()
    return depth


def export_gt_depths(data_path: str | Path, lines: Sequence[str]) -> list[np.ndarray]:
    """Make the (H, W) ground truth of each line of an eigen split."""
    depths = []
    for line in lines:
        folder, frame, side = parse_line(line)
        depths.append(generate_depth_map(Path(data_path, folder).parent,
                                         scan_path(data_path, folder, frame), CAMERAS[side], True))
    return depths


def write_gt_depths(path: str | Path, depths: Sequence[np.ndarray]) -> None:
    """Write ground truth in the format of the project's evaluation."""
    np.savez_compressed(path, **{f"depth_{i:06d}": depth for i, depth in enumerate(depths)})

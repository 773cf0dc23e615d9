"""Ground truth depth of a test split: gt_depths.npz (written and read), PNGs, disparities."""
from __future__ import annotations

import os
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets.image_files import list_files
from datasets.kitti_dataset import KITTIDataset, annotated_path, read_depth_png
from datasets.make3d import FARTHEST, SCANS, read_scan
from datasets.make3d import SPLIT as MAKE3D
from datasets.splits import parse_line, read_split, split_path
from datasets.stereo_ground_truth import read_depth_of_disparity
from kitti_utils import generate_depth_map
from metrics.depth import MAX_DEPTH
from runtime.errors import DataError, counted
from runtime.files import check_data_path, npy, read_array, write_atomically
from runtime.shared_memory import checked_workers
from runtime.signals import leave_interrupts_to_parent

LIST_NAME = "test_files.txt"
FILE_NAME = "gt_depths.npz"
FOLDER = "gt_depths"  # of 16-bit PNGs, one per line in the order of their names; used if it exists
LINES = "lines"  # array of split lines beside the maps; shows whether the file fits the list
KINDS = {"eigen": "velodyne scans", "eigen_benchmark": "annotated depth maps"}  # of gt_depths.npz
MAX_BYTES = 4 * 10**9  # of a split's maps, unpacked; eigen's maps have 1.3 GB


class GroundTruth(NamedTuple):
    """Hold the ground truth of the test images of a split.

    Attributes:
        depths: N maps (H, W), metres, 0 = no ground truth.
        eigen: whether only Eigen's crop and range are evaluated, or every pixel with ground truth.
        source: the file or the folder that the maps were read from.
        kind: what was measured or annotated, in words.
        max_depth: metres that predictions are limited to.
    """

    depths: list[np.ndarray]
    eigen: bool
    source: Path
    kind: str
    max_depth: float = MAX_DEPTH


def load_ground_truth(data_path: str | Path, split: str, lines: list[str], num_workers: int = 0,
                      disparities: str | None = None) -> GroundTruth:
    """Load the ground truth of a split: scans of Make3D, disparities, gt_depths/, gt_depths.npz.

    Args:
        data_path: Make3D's folder, or KITTI's, from which a missing gt_depths.npz is made.
        split: name or folder of the split.
        lines: of its test images.
        num_workers: processes that make the maps of a missing gt_depths.npz.
        disparities: folder of disparity PNGs to read instead, one per line in the order of names.

    Raises:
        DataError: a file is missing or broken, or the numbers of PNGs and lines differ.
    """
    if split == MAKE3D:
        return GroundTruth([read_scan(data_path, line) for line in lines], False,
                           Path(data_path, SCANS), "laser scans up to 70 m, central rows", FARTHEST)
    path = gt_path(split)
    if disparities is not None:
        return _read_pngs(Path(disparities), split, lines, read_depth_of_disparity, "disparities")
    if path.with_name(FOLDER).is_dir():
        return _read_pngs(path.with_name(FOLDER), split, lines, read_depth_png, "depth PNGs")
    if not path.is_file():
        print(f"{path} does not exist yet; making it from {data_path}")
        _export(data_path, split, lines, num_workers)
    name = Path(split).name
    return GroundTruth(load_gt_depths(path, lines), name != "eigen_benchmark", path,
                       KINDS.get(name, f"maps of {FILE_NAME}"))


def _read_pngs(folder: Path, split: str, lines: list[str],
               read: Callable[[Path], np.ndarray], kind: str) -> GroundTruth:
    """Read one PNG for each line, in the natural order of their names."""
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; give the folder of the ground truth, as KITTI "
                        "2015's training/disp_occ_0 (data_scene_flow.zip, 2 GB)")
    paths = list_pngs(folder)
    if len(paths) != len(lines):
        raise DataError(f"{folder} has {counted(len(paths), 'PNG')} for the "
                        f"{counted(len(lines), 'line')} of {split}'s {LIST_NAME}; "
                        "give one PNG per line, in the order of their names")
    print(f"ground truth: {counted(len(paths), 'PNG')} of {folder}; every pixel that has depth "
          "counts")
    return GroundTruth([read(path) for path in paths], False, folder, kind)


def list_pngs(folder: Path) -> list[Path]:
    """Return the PNGs of a folder in the natural order of their names, without hidden files."""
    return [path for path in list_files(folder) if path.suffix.lower() == ".png"]


def gt_path(split: str) -> Path:
    """Return the path of a split's gt_depths.npz, which lies beside its test_files.txt."""
    return split_path(split, LIST_NAME).with_name(FILE_NAME)


def export_gt_depths(data_path: str | Path, split: str, num_workers: int = 0) -> Path:
    """Make the ground truth of a test split and write gt_depths.npz.

    Args:
        data_path: KITTI's raw folder.
        split: name or folder of the split; "eigen_benchmark" reads the annotated PNGs, every other
            split projects velodyne scans.
        num_workers: processes that make maps; 0 makes them in this process.

    Returns:
        The path of the file.

    Raises:
        DataError: a file is missing; nothing is written then.
    """
    if Path(split).name == "benchmark":
        raise DataError("the ground truth of the benchmark split is on KITTI's server only; choose "
                        "eigen or eigen_benchmark")
    return _export(data_path, split, read_split(split_path(split, LIST_NAME)), num_workers)


def _export(data_path: str | Path, split: str, lines: list[str], num_workers: int) -> Path:
    """Make a map for each line in parallel and write them as one file."""
    check_data_path(data_path)
    workers = checked_workers(min(num_workers, len(lines), os.cpu_count() or 1))
    # maps come through pipes as arrays: tensors that do not fit into /dev/shm would never come
    loader = DataLoader(_Maps(Path(data_path), lines, split), batch_size=None, num_workers=workers,
                        collate_fn=np.asarray, worker_init_fn=leave_interrupts_to_parent)
    bar = tqdm(loader, desc=f"ground truth of {split}", dynamic_ncols=True)

    def write(file: BinaryIO) -> None:
        # as np.savez_compressed, in half the time: each map as it comes, with the fastest level
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            def add(name: str, array: np.ndarray) -> None:
                with archive.open(f"{name}.npy", "w") as entry:  # without the time of writing
                    entry.write(npy(array))

            for i, depth in enumerate(bar):
                add(f"depth_{i:06d}", depth)
            add(LINES, np.array(lines))

    write_atomically(gt_path(split), write)
    return gt_path(split)


class _Maps(Dataset):
    """Make the (H, W) depth map of each split line."""

    def __init__(self, data_path: Path, lines: list[str], split: str):
        self.data_path, self.lines, self.split = data_path, lines, split
        self.read = _read_annotated if Path(split).name == "eigen_benchmark" else _project_scan

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> np.ndarray:
        line = self.lines[index]
        folder, frame, side = parse_line(line)
        try:
            return self.read(self.data_path, folder, frame, side or "l", self.split)
        except DataError as error:
            raise DataError(f"{error} ({getattr(line, 'where', '') or line})") from None


def _project_scan(data_path: Path, folder: str, frame: int, side: str, split: str) -> np.ndarray:
    """Project a velodyne scan into a camera."""
    scan = data_path / folder / f"velodyne_points/data/{frame:010d}.bin"
    if not scan.is_file():
        words = ["python", "prepare_data.py", "kitti", "--data_path", str(data_path), "--download"]
        if split == "eigen":
            words += ["--split", split]
        raise DataError(f"{scan} is missing; it is in {Path(folder).name}.zip, of KITTI's raw "
                        "drives (175 GB in all; files that exist are not fetched again): "
                        f"{shlex.join(words)}")
    camera = KITTIDataset.side_map[side]
    return generate_depth_map((data_path / folder).parent, scan, camera, vel_depth=True)


def _read_annotated(data_path: Path, folder: str, frame: int, side: str, _: str) -> np.ndarray:
    """Read an annotated depth PNG."""
    path = annotated_path(data_path, folder, frame, KITTIDataset.side_map[side])
    if not path.is_file():
        command = shlex.join(["unzip", "data_depth_annotated.zip", "-d", str(data_path)])
        raise DataError(f"{path} is missing, also below train/ and val/ of {data_path}; it is in "
                        "data_depth_annotated.zip (14 GB, KITTI's site, depth prediction): fetch "
                        f"it, then {command}")
    return read_depth_png(path)


def load_gt_depths(path: str | Path, lines: list[str] | None = None) -> list[np.ndarray]:
    """Read gt_depths.npz of this project, or of Monodepth2 with its pickled object array.

    Args:
        path: of the file.
        lines: split lines that the file must belong to, if it holds its lines.

    Returns:
        N maps (H, W) float32, metres, 0 = no ground truth.

    Raises:
        DataError: the file is missing, broken or of another list, or its pickle asks for more than
            float arrays.
    """
    try:
        arrays = read_archive(path, objects=True)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give a gt_depths.npz, as export_gt_depth.py "
                        "writes them") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as ground truth ({error}); delete it and run "
                        "export_gt_depth.py") from None
    written_for = arrays.pop(LINES, None)
    if lines is not None and written_for is not None and list(lines) != list(written_for):
        raise DataError(f"{path} was made for another list than the split has now; delete it, "
                        "and it is made again")
    depths = list(arrays["data"]) if arrays.keys() == {"data"} else list(arrays.values())
    if not all(isinstance(d, np.ndarray) and d.ndim == 2 and d.dtype.kind == "f" for d in depths):
        raise DataError(f"{path} holds arrays that are not depth maps; delete it and run "
                        "export_gt_depth.py")
    return depths


def read_archive(path: str | Path, objects: bool = False) -> dict[str, np.ndarray]:
    """Read the arrays of a .npz by name, without running code from it.

    Arrays with one number in their name (depth_0, ... depth_10, or arr_0, ...) come in the order of
    the numbers, after those without a number. If a name has more numbers, all arrays come in the
    order of the archive, which is that of `np.savez`'s arguments.

    Args:
        path: of the file.
        objects: also accept an object array of float arrays.

    Raises:
        OSError: the file is missing or unreadable.
        ValueError: the archive or an array of it is broken, or unpacks to more than `MAX_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(entry.file_size for entry in archive.infolist())) > MAX_BYTES:
                raise ValueError(f"unpacked it has {size} bytes, more than {MAX_BYTES}")
            arrays = {name.removesuffix(".npy"): read_array(archive.read(name), objects)
                      for name in archive.namelist()
                      if not PurePosixPath(name).name.startswith(".")}  # as macOS adds to a zip
    except (EOFError, KeyError, RuntimeError, MemoryError, OverflowError, struct.error,
            zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(error) from None
    numbers = {name: re.findall("[0-9]+", name) for name in arrays}
    if any(len(found) > 1 for found in numbers.values()):
        return arrays
    return {name: arrays[name] for name in sorted(arrays, key=lambda name: list(
        map(int, numbers[name])))}

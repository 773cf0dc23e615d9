"""The ground truth of a test split: gt_depths.npz, made, written and read; PNGs; disparities."""
from __future__ import annotations

import io
import os
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets.kitti_dataset import KITTIDataset, annotated_path, read_depth_png
from datasets.splits import check_inside, parse_line, read_split, split_path
from datasets.stereo_ground_truth import read_depth_of_disparity
from kitti_utils import generate_depth_map
from runtime.errors import DataError
from runtime.files import check_data_path, read_array, write_atomically
from runtime.signals import leave_interrupts_to_parent

FILE_NAME = "gt_depths.npz"
FOLDER = "gt_depths"  # of 16-bit PNGs, one a line in the order of their names, instead
LINES = "lines"  # the array of split lines beside the maps, which tells a file of another list
# Of 9: a third of the time that the usual 6 takes to write, half of it to read, a fifth more bytes
COMPRESSION = 1
MAX_BYTES = 4 * 10**9  # of a split's maps, unpacked; eigen's have 1.3 GB


class GroundTruth(NamedTuple):
    """What the test images of a split are compared with.

    Attributes:
        depths: a map (H, W) in metres for each line, 0 = none.
        eigen: whether only Eigen's crop and range count, or every pixel that has depth.
        source: the file or folder it was read from.
    """

    depths: list[np.ndarray]
    eigen: bool
    source: Path


def load_ground_truth(data_path: str | Path, split: str, num_workers: int = 0,
                      disparities: str | None = None) -> GroundTruth:
    """Return a split's ground truth: disparities, or gt_depths/, or gt_depths.npz.

    Args:
        data_path: KITTI's raw folder, from which a gt_depths.npz that is missing is made.
        split: a split's name or folder.
        num_workers: processes that make the missing one.
        disparities: folder of disparity PNGs to take instead, one a line in the order of names.

    Raises:
        DataError: a file is missing or broken, or the numbers of PNGs and lines differ.
    """
    pngs = gt_path(split).with_name(FOLDER)
    if disparities is not None:
        return _read_pngs(Path(disparities), split, read_depth_of_disparity)
    if pngs.is_dir():
        return _read_pngs(pngs, split, read_depth_png)
    return GroundTruth(load_or_export_gt_depths(data_path, split, num_workers),
                       Path(split).name != "eigen_benchmark", gt_path(split))


def _read_pngs(folder: Path, split: str, read: Callable[[Path], np.ndarray]) -> GroundTruth:
    count = len(read_split(split_path(split, "test_files.txt")))
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; give the folder of the ground truth, as KITTI "
                        "2015's training/disp_occ_0 (data_scene_flow.zip, 2 GB)")
    paths = sorted(folder.glob("*.png"), key=_natural)
    if len(paths) != count:
        raise DataError(f"{folder} has {len(paths)} PNGs for the {count} lines of {split}'s "
                        "test_files.txt; give one for each, in the order of their names")
    print(f"ground truth: {count} PNGs of {folder}; every pixel that has depth counts")
    return GroundTruth([read(path) for path in paths], False, folder)


def _natural(path: Path) -> list[str | int]:
    """Return a key that sorts 2.png before 10.png."""
    words = re.split("([0-9]+)", path.name)  # every second one is a number
    return [int(word) if i % 2 else word for i, word in enumerate(words)]


def gt_path(split: str) -> Path:
    """Return where a split's ground truth is kept: beside its test_files.txt."""
    return split_path(split, "test_files.txt").with_name(FILE_NAME)


def export_gt_depths(data_path: str | Path, split: str, num_workers: int = 0) -> Path:
    """Make and write a test split's ground truth.

    Args:
        data_path: KITTI's raw folder.
        split: "eigen_benchmark" reads the annotated PNGs, any other projects velodyne scans.
        num_workers: processes that make maps; 0 makes them in this one.

    Returns:
        The file written.

    Raises:
        DataError: a file is missing; nothing is written then.
    """
    if Path(split).name == "benchmark":
        raise DataError("the ground truth of the benchmark split is on KITTI's server only; choose "
                        "eigen or eigen_benchmark")
    check_data_path(data_path)
    lines = read_split(split_path(split, "test_files.txt"))
    maps = _ZippedMaps(Path(data_path), lines, split)
    workers = min(num_workers, len(lines), os.cpu_count() or 1)
    loader = DataLoader(maps, batch_size=None, num_workers=workers,
                        worker_init_fn=leave_interrupts_to_parent)
    bar = tqdm(loader, desc=f"ground truth of {split}", dynamic_ncols=True)
    write_atomically(gt_path(split), _merge_zips(bar, np.array(lines)))
    return gt_path(split)


class _ZippedMaps(Dataset):
    """The map of each split line as a zip of one entry: a loader's workers compress, too."""

    def __init__(self, data_path: Path, lines: list[str], split: str):
        self.data_path, self.lines, self.split = data_path, lines, split
        self.read = _read_annotated if Path(split).name == "eigen_benchmark" else _project_scan

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> np.ndarray:
        line = self.lines[index]
        folder, frame, side = parse_line(line)
        try:
            depth = self.read(self.data_path, folder, frame, side or "l", self.split)
        except DataError as error:
            raise DataError(f"{error} ({getattr(line, 'where', '') or line})") from None
        buffer = io.BytesIO()
        with _new_zip(buffer) as archive:
            _add_array(archive, f"depth_{index:06d}", depth)
        return np.frombuffer(buffer.getbuffer(), np.uint8)  # an array comes in shared memory


def _new_zip(buffer: io.BytesIO) -> zipfile.ZipFile:
    return zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION)


def _add_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w") as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)


def _merge_zips(zips: Iterable[Tensor], lines: np.ndarray) -> bytes:
    """Return the .npz with the entries of `zips`, compressed as they are, and the split lines.

    zipfile cannot take in what is compressed already, so each part's bytes are appended and its
    entry is noted with its new place; the entry of the lines, written last, closes the archive.
    """
    buffer = io.BytesIO()
    with _new_zip(buffer) as archive:
        for zipped in zips:
            content = zipped.numpy().tobytes()
            with zipfile.ZipFile(io.BytesIO(content)) as part:
                (entry,) = part.infolist()
                entry.header_offset = archive.start_dir
                archive.filelist.append(entry)
                buffer.write(content[:part.start_dir])  # up to where its directory starts
            archive.start_dir = buffer.tell()
        _add_array(archive, LINES, lines)
    return buffer.getvalue()


def _project_scan(data_path: Path, folder: str, frame: int, side: str, split: str) -> np.ndarray:
    scan = data_path / folder / f"velodyne_points/data/{frame:010d}.bin"
    if not scan.is_file():
        only = ["--split", split] * (split == "eigen")
        command = shlex.join(["python", "prepare_data.py", "kitti", "--data_path", str(data_path),
                              "--download", *only])
        raise DataError(f"{scan} is missing; it is in {Path(folder).name}.zip, of KITTI's raw "
                        f"drives (175 GB in all; what is there is not fetched again): {command}")
    check_inside(scan, data_path)
    camera = KITTIDataset.side_map[side]
    return generate_depth_map((data_path / folder).parent, scan, camera, vel_depth=True)


def _read_annotated(data_path: Path, folder: str, frame: int, side: str, _: str) -> np.ndarray:
    path = annotated_path(data_path, folder, frame, KITTIDataset.side_map[side])
    if not path.is_file():
        command = shlex.join(["unzip", "data_depth_annotated.zip", "-d", str(data_path)])
        raise DataError(f"{path} is missing, and so it is below train/ and val/ of {data_path}; it "
                        "is in data_depth_annotated.zip (14 GB, KITTI's site, depth prediction): "
                        f"fetch it, then {command}")
    check_inside(path, data_path)
    return read_depth_png(path)


def load_or_export_gt_depths(data_path: str | Path, split: str,
                             num_workers: int = 0) -> list[np.ndarray]:
    """Return a split's ground truth, which is made first where it is missing."""
    path = gt_path(split)
    if not path.is_file():
        print(f"{path} does not exist yet; making it from {data_path}")
        export_gt_depths(data_path, split, num_workers)
    return load_gt_depths(path, read_split(split_path(split, "test_files.txt")))


def load_gt_depths(path: str | Path, lines: list[str] | None = None) -> list[np.ndarray]:
    """Read ground truth: this project's file, or the original's with its pickled object array.

    Args:
        path: a gt_depths.npz.
        lines: the split lines it must be of, if it says of which it is.

    Returns:
        Maps (H, W) float32, metres, 0 = none.

    Raises:
        DataError: the file is broken or of another list, or its pickle asks for more than float
            arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(entry.file_size for entry in archive.infolist())) > MAX_BYTES:
                raise ValueError(f"unpacked it has {size} bytes, more than {MAX_BYTES}")
            arrays = {name.removesuffix(".npy"): read_array(archive.read(name), objects=True)
                      for name in sorted(archive.namelist())}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give a gt_depths.npz, as export_gt_depth.py "
                        "writes them") from None
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, OverflowError,
            struct.error, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as ground truth ({error}); delete it and run "
                        "export_gt_depth.py") from None
    written_for = arrays.pop(LINES, None)
    if lines is not None and written_for is not None and list(lines) != list(written_for):
        raise DataError(f"{path} is of another list of frames than the split is now; delete it, "
                        "and it is made again")
    depths = list(arrays["data"]) if arrays.keys() == {"data"} else list(arrays.values())
    if not all(isinstance(d, np.ndarray) and d.ndim == 2 and d.dtype.kind == "f" for d in depths):
        raise DataError(f"{path} holds other things than depth maps; delete it and run "
                        "export_gt_depth.py")
    return depths

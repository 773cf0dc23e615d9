"""Write files of a published data set into the layout of --dataset folder."""
from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.ground_truth import FOLDER, LIST_NAME
from datasets.splits import compact
from kitti_utils import DEPTH_PNG_SCALE
from preparation.sequences import LISTS
from runtime.errors import DataError, counted
from runtime.files import link_or_copy, write_atomically

MAX_VALUE = np.iinfo(np.uint16).max  # of a pixel of a depth PNG


def link_file(source: Path, target: Path) -> None:
    """Give an extracted file a second name, or copy it.

    Raises:
        DataError: the file is missing.
        OSError: the target cannot be written.
    """
    if not source.is_file():
        raise DataError(f"{source} is missing; extract its archive again")
    link_or_copy(source, target)


def write_test_list(folder: Path, lines: Sequence[str], depths: Iterable[np.ndarray]) -> None:
    """Write test_files.txt and, beside it, gt_depths/ with a PNG of metres x 256 for each line.

    Args:
        folder: folder of the dataset.
        lines: split lines of N images.
        depths: N maps (H, W), metres, 0 = no ground truth; what the PNG cannot hold is none.
    """
    place = folder / LISTS / FOLDER
    place.mkdir(parents=True)
    for i, depth in enumerate(tqdm(depths, desc="ground truth", total=len(lines), unit="map",
                                   dynamic_ncols=True)):
        values = np.round(depth * DEPTH_PNG_SCALE)
        values[values > MAX_VALUE] = 0
        png = cv2.imencode(".png", values.astype(np.uint16))[1]
        (place / f"{i:06d}.png").write_bytes(png)
    write_list(folder, LIST_NAME, lines)


def write_list(folder: Path, name: str, lines: Iterable[str]) -> None:
    """Write a split list of a dataset in the compact form."""
    write_atomically(folder / LISTS / name, compact(lines).encode())


def print_evaluation(out: Path, count: int) -> None:
    """Print the command that evaluates on the test list of a dataset, which has `count` images."""
    words = ["--dataset", "folder", "--data_path", out, "--eval_split", out / LISTS]
    print(f"{counted(count, 'test image')} with ground truth. To evaluate:\n"
          f"python evaluate_depth.py {shlex.join(map(str, words))} --eval_mono "
          "--load_weights_folder WEIGHTS")

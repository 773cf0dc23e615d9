"""Write predicted depth for KITTI's depth prediction benchmark, whose server has the truth."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from kitti_utils import DEPTH_PNG_SCALE
from metrics.depth import MAX_DEPTH
from runtime.errors import counted
from runtime.files import write_atomically

BENCHMARK_SIZE = (1216, 352)  # width, height of KITTI's depth prediction test images


def write_benchmark(folder: Path, disps: np.ndarray, scale_factor: float) -> None:
    """Write predictions in the format of KITTI's server: 16-bit PNGs of metres x 256.

    Args:
        folder: where 0000000000.png, 0000000001.png, ... go.
        disps: (N, h, w) scaled disparities.
        scale_factor: metres per unit of the predicted depth.
    """
    def write(i: int) -> None:
        depth = (scale_factor / cv2.resize(disps[i], BENCHMARK_SIZE)).clip(0, MAX_DEPTH)
        png = cv2.imencode(".png", (depth * DEPTH_PNG_SCALE).astype(np.uint16))[1]
        write_atomically(folder / f"{i:010d}.png", png.tobytes())

    with ThreadPoolExecutor() as pool:
        written = pool.map(write, range(len(disps)))
        for _ in tqdm(written, desc="writing PNGs", total=len(disps), dynamic_ncols=True):
            pass
    print(f"wrote {counted(len(disps), 'PNG')} to {folder}; zip them and upload to KITTI's depth "
          "prediction benchmark, which alone has the ground truth")

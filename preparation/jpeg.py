"""KITTI's PNG images become JPEGs, as the published models were trained on."""
from __future__ import annotations

import io
import multiprocessing
import os
import re
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from datasets.images import IMAGE_ERRORS, open_image
from runtime.errors import DataError
from runtime.files import write_atomically
from runtime.signals import leave_interrupts_to_parent

QUALITY = 92
SUBSAMPLING = "4:2:0"  # ImageMagick's 2x2,1x1,1x1: one colour for four pixels
MODES = ("RGB", "L")  # of KITTI's cameras 2 and 3, 0 and 1; ground truth has 16 bits
# raw drives' and odometry's images; depth maps lie in other folders, and are no photographs
IMAGE_FOLDER = re.compile(r"/(image_0[0-3]/data|sequences/[0-9]+/image_[0-3])$")
GROUND_TRUTH = "proj_depth"
CHUNK = 16  # images handed to a process at once


def find_pngs(data_path: str | Path) -> list[Path]:
    """Return the PNG images of cameras below a folder, never ground truth."""
    found = []
    for folder, folders, names in os.walk(os.path.abspath(data_path)):
        folders[:] = sorted(name for name in folders if name != GROUND_TRUTH)
        if IMAGE_FOLDER.search(Path(folder).as_posix()):
            found += [Path(folder, name) for name in sorted(names) if name.endswith(".png")]
    return found


def to_jpeg(png: Path) -> str | None:
    """Write a PNG as a JPEG beside it, and delete it when the JPEG has been read back.

    Returns:
        None, or why the PNG is left.

    Raises:
        DataError: nothing can be written there.
    """
    jpeg = png.with_suffix(".jpg")
    try:
        content = png.read_bytes()
        with open_image(io.BytesIO(content)) as image:
            image.verify()  # checksums, which decoding does not look at
        with open_image(io.BytesIO(content)) as image:
            size, mode = image.size, image.mode
            if image.format != "PNG" or mode not in MODES:
                return f"{png} is a {image.format} of mode {mode}, not a PNG of RGB or grey"
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
        write_atomically(jpeg, buffer.getvalue())
        with open_image(jpeg) as written:
            written.load()
            if written.size != size:
                return f"{jpeg} was read back with another size than {png} has"
        png.unlink()
    except IMAGE_ERRORS as error:
        return f"{png} cannot be converted: {error}"
    return None


def convert(data_path: str | Path) -> list[str]:
    """Convert all PNG images below a folder, on all cores.

    Returns:
        Why PNGs are left, a line for each.

    Raises:
        DataError: nothing can be written there, or a process has died; what is not converted yet
            is still there.
    """
    pngs = find_pngs(data_path)
    if not pngs:
        print(f"{data_path} has no PNG images to convert", flush=True)
        return []
    for folder in {png.parent for png in pngs}:
        for abandoned in folder.glob("*.jpg.*.tmp"):  # by a killed run
            abandoned.unlink(missing_ok=True)
    faults = []
    pool = ProcessPoolExecutor(min(os.cpu_count() or 1, len(pngs)), initializer=_prepare_worker)
    try:
        for fault in tqdm(pool.map(to_jpeg, pngs, chunksize=CHUNK), desc="PNG to JPEG",
                          total=len(pngs), unit=" images", dynamic_ncols=True):
            if fault:
                faults.append(fault)
                tqdm.write(fault, file=sys.stderr)
    except BrokenProcessPool:
        raise DataError("a process that converts images has died, perhaps for want of memory; run "
                        "the same command again, it goes on where it was") from None
    finally:
        pool.shutdown(cancel_futures=True)
    return faults


def _prepare_worker() -> None:
    leave_interrupts_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent is killed; it would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)

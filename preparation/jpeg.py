"""Convert KITTI's PNG images to JPEG, the format the published models were trained on."""
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

from datasets.image_files import IMAGE_ERRORS, open_image
from runtime.errors import ENLARGE_SHM, DataError
from runtime.files import write_atomically
from runtime.shared_memory import checked_workers
from runtime.signals import leave_interrupts_to_parent

QUALITY = 92
SUBSAMPLING = "4:2:0"  # ImageMagick's 2x2,1x1,1x1: one colour for four pixels
MODES = ("RGB", "L")   # colour cameras 2 and 3, gray cameras 0 and 1; depth PNGs have 16 bits
# image folders of raw drives and odometry; depth maps lie elsewhere
IMAGE_FOLDER = re.compile(r"/(image_0[0-3]/data|sequences/[0-9]+/image_[0-3])$")
GROUND_TRUTH = "proj_depth"
CHUNK = 16  # images handed to a worker process at once


def find_pngs(data_path: str | Path) -> list[Path]:
    """Return the camera images in PNG format below a folder, not depth maps or hidden files."""
    found = []
    for folder, folders, names in os.walk(os.path.abspath(data_path)):
        folders[:] = sorted(name for name in folders if name != GROUND_TRUTH)
        if IMAGE_FOLDER.search(Path(folder).as_posix()):
            found += [Path(folder, name) for name in sorted(names)
                      if name.endswith(".png") and not name.startswith(".")]
    return found


def convert_png(png: Path) -> str | None:
    """Convert a PNG to a JPEG beside it, and delete the PNG after reading the JPEG back.

    Returns:
        None, or the reason why the PNG was kept.

    Raises:
        DataError: the JPEG cannot be written.
    """
    jpeg = png.with_suffix(".jpg")
    try:
        content = png.read_bytes()
        with open_image(io.BytesIO(content)) as image:
            image.verify()  # checksums, which decoding ignores
        with open_image(io.BytesIO(content)) as image:
            size, mode = image.size, image.mode
            if image.format != "PNG" or mode not in MODES:
                return f"{png} is a {image.format} of mode {mode}, expected a PNG in RGB or gray"
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


def convert_all_pngs(data_path: str | Path) -> list[str]:
    """Convert all camera images in PNG format below a folder to JPEG, on all cores.

    Returns:
        One message for each PNG that was kept.

    Raises:
        DataError: a JPEG cannot be written, or a worker process died; PNGs that are not converted
            yet are still there.
    """
    pngs = find_pngs(data_path)
    if not pngs:
        print(f"{data_path} has no PNG images to convert", flush=True)
        return []
    for folder in {png.parent for png in pngs}:
        for abandoned in folder.glob("*.jpg.*.tmp"):  # left by a killed run
            abandoned.unlink(missing_ok=True)
    chunks = [pngs[i:i + CHUNK] for i in range(0, len(pngs), CHUNK)]
    faults = []
    workers = checked_workers(min(os.cpu_count() or 1, len(chunks)), ENLARGE_SHM)
    with (ProcessPoolExecutor(workers, initializer=_prepare_worker) as pool,
          tqdm(desc="PNG to JPEG", total=len(pngs), unit=" images", dynamic_ncols=True) as bar):
        try:
            futures = [pool.submit(_convert_chunk, chunk) for chunk in chunks]
            for chunk, future in zip(chunks, futures, strict=True):
                for fault in future.result():
                    faults.append(fault)
                    tqdm.write(fault, file=sys.stderr)
                bar.update(len(chunk))
        except BrokenProcessPool:  # cancelling its futures, as pool.map does, hangs Python 3.11
            raise DataError("a process that converts images has died, perhaps for lack of memory; "
                            "run the same command again to go on where it stopped") from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return faults


def _convert_chunk(pngs: list[Path]) -> list[str]:
    """Convert PNGs, and return one message for each PNG that was kept."""
    return [fault for png in pngs if (fault := convert_png(png))]


def _prepare_worker() -> None:
    """Make a worker process ignore Ctrl-C, and end when its parent is killed."""
    leave_interrupts_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent dies; without this, it would wait for work forever."""
    multiprocessing.parent_process().join()
    os._exit(1)

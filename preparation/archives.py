"""KITTI's archives: fetched from its server, unpacked, deleted.

An archive that lies in the data folder is not unpacked yet, or not wholly: it is deleted after the
last of its files. So nothing has to be remembered about what a killed run had done.
"""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from datasets.splits import SPLITS
from runtime.downloads import Refused, download, size_of, unpack
from runtime.errors import DataError
from runtime.files import readlines

PUBLISHED = "https://s3.eu-central-1.amazonaws.com/avg-kitti/"  # how the list's URLs begin
SERVER = PUBLISHED  # a test's own stands here
RAW_LIST = SPLITS / "kitti_archives_to_download.txt"
ODOMETRY = ("data_odometry_poses.zip", "data_odometry_calib.zip", "data_odometry_color.zip")
ROOT = "dataset/"  # within odometry's archives, above sequences/ and poses/
MAX_BYTES = 10**11  # of an archive, and of what is unpacked from it; odometry's images have 65 GB
TRIES = 20  # in the hours that such an archive takes, a connection may break more than three times
ASKED_AT_ONCE = 8  # archives for their size
AGAIN = "run the same command again, it goes on where it was"


class Archive(NamedTuple):
    """An archive that is to be unpacked.

    Attributes:
        url: where it is.
        path: where it is kept until it is unpacked.
        size: in bytes, 0 if all of it is here.
        to_come: bytes of it that are not here yet.
    """

    url: str
    path: Path
    size: int
    to_come: int


def archive_urls(odometry: bool) -> list[str]:
    """Return the URLs of KITTI's archives: raw drives and their calibration, or odometry."""
    if odometry:
        return [SERVER + name for name in ODOMETRY]
    return [SERVER + url.removeprefix(PUBLISHED) for url in readlines(RAW_LIST) if url]


def fetch(data_path: Path, urls: Iterable[str], missing: Iterable[str]) -> list[str]:
    """Fetch and unpack the archives that are missing, and unpack those that are here.

    Args:
        data_path: where they are unpacked; made.
        urls: of all archives that may be fetched.
        missing: names of archives of which files are missing.

    Returns:
        Why archives are not unpacked, a line for each.

    Raises:
        DataError: the server does not answer, or the disk is too small.
    """
    missing = set(missing)
    paths = {url: data_path / url.rpartition("/")[2] for url in urls}
    pending = {url: path for url, path in paths.items() if path.name in missing or path.is_file()}
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        archives = list(pool.map(_measure, pending.keys(), pending.values()))
    to_come = sum(archive.to_come for archive in archives)
    free = shutil.disk_usage(data_path).free
    print(f"{len(archives)} of {len(paths)} archives to fetch and unpack: {_bytes(to_come)} to "
          f"come, {_bytes(free)} free on the disk of {data_path}", flush=True)
    _check_room(data_path, archives)
    faults = []
    for number, archive in enumerate(archives, 1):
        print(f"[{number}/{len(archives)}] {archive.path.name}, {_bytes(archive.to_come)} of "
              f"{_bytes(to_come)} to come", flush=True)
        _check_room(data_path, [archive])
        faults += _bring(archive, data_path)
        to_come -= archive.to_come
    return faults


def _measure(url: str, path: Path) -> Archive:
    if path.is_file():
        return Archive(url, path, 0, 0)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    try:
        size = size_of(url)
    except OSError as error:
        raise DataError(f"{url} cannot be fetched ({error}); {AGAIN}") from None
    return Archive(url, path, size, max(size - have, 0))


def _check_room(data_path: Path, archives: list[Archive]) -> None:
    """Raise a DataError where archives cannot fit: KITTI's have about the size of what they hold.

    The largest of them and what is unpacked from it are there side by side.
    """
    needed = sum(archive.to_come for archive in archives) + max(
        (archive.size for archive in archives), default=0)
    free = shutil.disk_usage(data_path).free
    if needed > free:
        raise DataError(f"{data_path} is on a disk with {_bytes(free)} free, and needs about "
                        f"{_bytes(needed)}; free some, give a --data_path on another disk, or "
                        "fetch only what one --split needs")


def _bring(archive: Archive, data_path: Path) -> list[str]:
    """Fetch, unpack and delete an archive; returns why that failed, if it did."""
    url, path = archive.url, archive.path
    try:
        if not path.is_file():
            download(url, path, None, MAX_BYTES, TRIES)
    except (Refused, OSError) as error:
        return _named(f"{url} cannot be fetched: {error}")
    try:
        unpack(path, data_path, MAX_BYTES, ROOT)
        if hasattr(os, "sync"):
            os.sync()  # a crash of the machine must not leave neither archive nor files
        path.unlink()
    except Refused as error:
        return _named(f"{path} is refused: {error}; delete it to fetch it again")
    except OSError as error:
        return _named(f"{path} cannot be unpacked: {error.strerror}")
    return []


def _named(fault: str) -> list[str]:
    print(fault, flush=True)
    return [fault]


def _bytes(number: int) -> str:
    return tqdm.format_sizeof(number, "B")

"""Download KITTI's archives, unpack them and delete them.

An archive is deleted after its last file has been written, so an archive in the data folder still
has files to unpack. A killed run therefore resumes from the folder alone.
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
from runtime.downloads import download, remote_size, unpack
from runtime.errors import DataError
from runtime.files import readlines

PUBLISHED = "https://s3.eu-central-1.amazonaws.com/avg-kitti/"  # prefix of the URLs in RAW_LIST
SERVER = PUBLISHED  # tests replace it
RAW_LIST = SPLITS / "kitti_archives_to_download.txt"
ODOMETRY = ("data_odometry_poses.zip", "data_odometry_calib.zip", "data_odometry_color.zip")
ROOT = "dataset/"  # prefix of sequences/ and poses/ in the odometry archives
MAX_BYTES = 10**11  # of an archive, zipped or unpacked; the odometry images have 65 GB
TRIES = 20  # requests for one archive; a download of hours may break off many times
PARALLEL_REQUESTS = 8  # for the sizes of archives
AGAIN = "run the same command again, which resumes"


class Archive(NamedTuple):
    """An archive to download and unpack.

    Attributes:
        url: its address on the server.
        path: the downloaded file, until it is unpacked.
        size: in bytes; 0 if the download is complete.
        to_come: bytes still to download.
    """

    url: str
    path: Path
    size: int
    to_come: int


def archive_urls(odometry: bool) -> list[str]:
    """Return the URLs of KITTI's archives: the raw drives with calibration, or odometry."""
    if odometry:
        return [SERVER + name for name in ODOMETRY]
    return [SERVER + url.removeprefix(PUBLISHED) for url in readlines(RAW_LIST) if url]


def fetch(data_path: Path, urls: Iterable[str], missing: Iterable[str]) -> list[str]:
    """Download and unpack archives; also unpack the archives that a former run downloaded.

    Args:
        data_path: the folder to unpack to.
        urls: all archives of the dataset.
        missing: names of the archives that have missing files.

    Returns:
        One line for each archive that failed.

    Raises:
        DataError: the server does not answer, or the disk is too small.
    """
    missing = set(missing)
    paths = {url: data_path / url.rpartition("/")[2] for url in urls}
    pending = {url: path for url, path in paths.items() if path.name in missing or path.is_file()}
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
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
    """Ask the server for the size of an archive, unless it is downloaded."""
    if path.is_file():
        return Archive(url, path, 0, 0)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    try:
        size = remote_size(url)
    except OSError as error:
        raise DataError(f"{url} cannot be fetched ({error}); {AGAIN}") from None
    return Archive(url, path, size, max(size - have, 0))


def _check_room(data_path: Path, archives: list[Archive]) -> None:
    """Raise a DataError if the disk is too small for the archives and their files.

    KITTI's archives are about as large as their files. An archive is deleted once unpacked, so the
    largest needs its size twice and the others need theirs once.
    """
    needed = sum(archive.to_come for archive in archives) + max(
        (archive.size for archive in archives), default=0)
    free = shutil.disk_usage(data_path).free
    if needed > free:
        raise DataError(f"{data_path} is on a disk with {_bytes(free)} free, and needs about "
                        f"{_bytes(needed)}; free some, give a --data_path on another disk, or "
                        "fetch only what one --split needs")


def _bring(archive: Archive, data_path: Path) -> list[str]:
    """Download, unpack and delete an archive; return the error as a list of at most one line."""
    url, path = archive.url, archive.path
    try:
        if not path.is_file():
            download(url, path, max_bytes=MAX_BYTES, tries=TRIES)
    except (DataError, OSError) as error:
        return _report(f"{url} cannot be fetched: {error}")
    try:
        unpack(path, data_path, MAX_BYTES, ROOT)
        if hasattr(os, "sync"):
            os.sync()  # flush before deleting: a crash must never lose the archive and its files
        path.unlink()
    except DataError as error:
        return _report(f"{path} is refused: {error}; delete it to fetch it again")
    except OSError as error:
        return _report(f"{path} cannot be unpacked: {error.strerror}")
    return []


def _report(fault: str) -> list[str]:
    """Print an error when it happens, and return it for the summary."""
    print(fault, flush=True)
    return [fault]


def _bytes(number: int) -> str:
    return tqdm.format_sizeof(number, "B")

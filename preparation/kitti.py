"""Prepare KITTI: fetch and unpack archives, convert PNGs, and report missing files."""
from __future__ import annotations

from pathlib import Path

from preparation.archives import archive_urls, fetch
from preparation.inventory import find_files, format_report, list_needed_files
from preparation.jpeg import convert_all_pngs
from runtime.errors import DataError
from runtime.files import check_data_path, lock_folder


def prepare_kitti(data_path: str, wants_download: bool, wants_convert: bool, odometry: bool,
                  split: str | None) -> None:
    """Download and convert KITTI as asked, and print which files are there and which are missing.

    Args:
        data_path: KITTI's folder; made before a download.
        wants_download: fetch and unpack the missing archives.
        wants_convert: convert PNG images to JPEG.
        odometry: use the archives and splits of odometry instead of those of raw drives.
        split: name of the only split to look at; None: all splits.

    Raises:
        DataError: the folder is missing, the disk is too small, an archive cannot be fetched or an
            image cannot be converted. The other files and the report come first.
    """
    needed = list_needed_files(split, odometry)
    faults = []
    if wants_download:
        _make_folder(data_path)
    check_data_path(data_path)
    if wants_download or wants_convert:
        with lock_folder(Path(data_path)):
            if wants_download:
                missing = {name for found in find_files(data_path, needed)
                           for name in found.missing_archives}
                faults += fetch(Path(data_path), archive_urls(odometry), missing)
            if wants_convert:
                faults += convert_all_pngs(data_path)
    print(format_report(data_path, find_files(data_path, needed)))
    if faults:
        raise DataError(f"{len(faults)} of the files above could not be fetched or converted; the "
                        f"first: {faults[0]}")


def _make_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--data_path {folder} cannot be made: {error.strerror}") from None

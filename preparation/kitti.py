"""KITTI, prepared: archives fetched and unpacked, PNGs converted, and what is missing said."""
from __future__ import annotations

from pathlib import Path

from preparation.archives import archive_urls, fetch
from preparation.inventory import look, read_needs, report
from preparation.jpeg import convert
from runtime.errors import DataError
from runtime.files import check_data_path, lock_folder


def prepare_kitti(data_path: str, wants_download: bool, wants_convert: bool, odometry: bool,
                  split: str | None) -> None:
    """Do what is wanted, and print what is there and what is missing.

    Args:
        data_path: KITTI's folder; made for a download.
        wants_download: fetch and unpack the archives that are missing.
        wants_convert: make JPEGs of PNG images.
        odometry: the archives and splits of odometry, not those of raw drives.
        split: only what it needs; None: what all of them need.

    Raises:
        DataError: there is no such folder, a disk is too small, an archive cannot be fetched or
            an image not converted (said after all others and the report).
    """
    needs = read_needs(split, odometry)
    faults = []
    if wants_download:
        _make(data_path)
    check_data_path(data_path)
    if wants_download or wants_convert:
        with lock_folder(Path(data_path)):
            if wants_download:
                missing = {name for found in look(data_path, needs) for name in found.missing}
                faults += fetch(Path(data_path), archive_urls(odometry), missing)
            if wants_convert:
                faults += convert(data_path)
    print(report(data_path, look(data_path, needs)))
    if faults:
        raise DataError(f"{len(faults)} of the files above could not be fetched or converted; the "
                        f"first: {faults[0]}")


def _make(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"--data_path {folder} cannot be made: {error.strerror}") from None

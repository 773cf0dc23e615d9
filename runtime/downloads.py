"""Download files over https and unpack zips, bounded in size; list the published models."""
from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from runtime.errors import DataError
from runtime.files import lock_folder

MODELS_URL = "https://storage.googleapis.com/niantic-lon-static/research/monodepth2"
MODELS_DIR = Path(__file__).resolve().parent.parent / "models"
PRETRAINED_MODELS = {  # name: md5 of its zip, where one is published
    "mono_640x192": "a964b8356e08a02d009609d9e3928f7c",
    "stereo_640x192": "3dfb76bcff0786e4ec07ac00f658dd07",
    "mono+stereo_640x192": "c024d69012485ed05d7eaa9617a96b81",
    "mono_no_pt_640x192": "9c2f071e35027c895a4728358ffc913a",
    "stereo_no_pt_640x192": "41ec2de112905f85541ac33a854742d1",
    "mono+stereo_no_pt_640x192": "46c3b824f541d143a45c37df65fbab0a",
    "mono_1024x320": "0ab0766efdfeea89a0d9ea8ba90e1e63",
    "stereo_1024x320": "afc2f2126d70cf3fdf26b550898b501a",
    "mono+stereo_1024x320": "cdc5fc9b23513c07d5b19235d9ef08f7",
    "mono_odom_640x192": None,
    "mono+stereo_odom_640x192": None,
    "mono_resnet50_640x192": None,
    "mono_resnet50_no_pt_640x192": None,
}
TRIES = 3
PAUSE = 1.0      # seconds before the second try, twice that before the third
TIMEOUT = 30     # seconds to wait for a server's answer
CHUNK = 1 << 16  # bytes of one read
MAX_BYTES = 10**9  # of a published model, both zipped and unpacked
# What zipfile raises for a broken, truncated or encrypted archive
ARCHIVE_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError,
                  NotImplementedError)


def download_model_if_doesnt_exist(model_name: str) -> Path:
    """Return the folder of a published model, downloaded from `MODELS_URL` on first use.

    Raises:
        DataError: the name is unknown, or the download failed.
    """
    if model_name not in PRETRAINED_MODELS:
        raise DataError(f"{model_name!r} is not a published model; choose one of "
                        f"{', '.join(PRETRAINED_MODELS)}")
    folder = MODELS_DIR / model_name
    if (folder / "encoder.pth").is_file():
        return folder
    url = f"{MODELS_URL}/{urllib.parse.quote(model_name)}.zip"
    try:
        MODELS_DIR.mkdir(parents=True, exist_ok=True)
        with lock_folder(MODELS_DIR):
            if not (folder / "encoder.pth").is_file():  # another process may have downloaded it
                _download_model(url, PRETRAINED_MODELS[model_name], folder)
    except (DataError, OSError) as error:
        raise DataError(f"{url} cannot be downloaded ({error}); try again, or download it by hand "
                        f"and unpack it into {folder}, so that {folder / 'encoder.pth'} "
                        "exists") from None
    return folder


def _download_model(url: str, md5: str | None, folder: Path) -> None:
    """Download and unpack a model; `folder` appears only when all of its files are there."""
    archive, unpacked = (folder.with_name(folder.name + end) for end in (".zip", ".tmp"))
    try:
        download(url, archive, md5)
        shutil.rmtree(unpacked, ignore_errors=True)
        unpack(archive, unpacked)
        if not (unpacked / "encoder.pth").is_file():
            raise DataError("the zip has no encoder.pth, so it is not a model of Monodepth2")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(unpacked, folder)
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)


def download(url: str, path: Path, md5: str | None = None, max_bytes: int = MAX_BYTES,
             tries: int = TRIES) -> None:
    """Download a file; a download that breaks off resumes, in this call or the next.

    Args:
        url: an https URL; redirections must be https too.
        path: the file to write, once it is complete and its checksum agrees; until then the
            received bytes are in <path>.part.
        md5: the expected checksum; None skips the check.
        max_bytes: the largest size that is accepted.
        tries: the number of requests after connection errors and 5xx answers.

    Raises:
        DataError: the file has another checksum or is too large; the received bytes are deleted.
        OSError: the server cannot be reached or has no such file, or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _complete(part, url, max_bytes, tries)
        if md5 and (found := _md5_of(part)) != md5:
            raise DataError(f"its md5 is {found}, expected {md5}")
    except DataError:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)


def _md5_of(path: Path) -> str:
    """Return the md5 of a file, read in chunks."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def remote_size(url: str) -> int:
    """Return the size of a file on an https server, in bytes.

    Raises:
        OSError: the server cannot be reached, or does not give the size.
    """
    try:
        with _open(url, method="HEAD") as answer:
            length = answer.headers.get("Content-Length", "")
    except (OSError, http.client.HTTPException) as error:
        raise OSError(_reason(error)) from None
    if not length.isdecimal():
        raise OSError("the server does not give its size")
    return int(length)


def _complete(part: Path, url: str, max_bytes: int, tries: int) -> None:
    """Request a file until `part` has all of it."""
    for attempt in range(1, tries + 1):
        try:
            return _append_rest(part, url, max_bytes)
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "code", None) == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)  # `part` is longer than the file on the server
            if attempt == tries or not _is_temporary(error):
                raise OSError(_reason(error)) from None
            time.sleep(PAUSE * attempt)


def _append_rest(part: Path, url: str, max_bytes: int) -> None:
    """Append the bytes that `part` lacks.

    Raises:
        DataError: the file is larger than `max_bytes`.
        ConnectionError: the connection broke off.
    """
    have = part.stat().st_size if part.is_file() else 0
    with _open(url, headers={"Range": f"bytes={have}-"} if have else {}) as answer:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server ignored the range and sends the whole file
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        with part.open("ab" if have else "wb") as file, tqdm(
                initial=have, total=total, unit="B", unit_scale=True, desc=part.stem) as bar:
            while (total or have) <= max_bytes and (chunk := answer.read(CHUNK)):
                have += file.write(chunk)
                bar.update(len(chunk))
    if (total or have) > max_bytes:
        raise DataError(f"it has {total or have} bytes, more than the {max_bytes} allowed")
    if total is not None and have < total:
        raise ConnectionError(f"it broke off after {have} of {total} bytes")


def _open(url: str, **request) -> http.client.HTTPResponse:
    """Send a request over https only, redirections included, and check the server's certificate."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.UnknownHandler(),
                    urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPRedirectHandler(),
                    urllib.request.HTTPErrorProcessor(),
                    urllib.request.HTTPSHandler(context=ssl.create_default_context())):
        opener.add_handler(handler)
    return opener.open(urllib.request.Request(url, **request), timeout=TIMEOUT)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or repr(error)


def _is_temporary(error: Exception) -> bool:
    """Whether another request may succeed: never after a bad certificate, a full disk or a 404."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or error.code >= 500
    cause = getattr(error, "reason", error)
    return isinstance(cause, (TimeoutError, ConnectionError, http.client.HTTPException)) or (
        isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError))


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, root: str = "") -> None:
    """Extract a zip after checking its entries: inside `folder`, not links, bounded in size.

    Args:
        archive: the zip file.
        folder: the folder to extract to; created if missing.
        max_bytes: the largest total size of the extracted files.
        root: a prefix to remove from the names of the entries, such as "dataset/".

    Raises:
        DataError: an entry fails the check, or the archive is broken.
        OSError: the disk is too small, or the files cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
            for entry in entries:
                entry.filename = entry.filename.removeprefix(root)
            _check_entries(entries, folder.resolve(), max_bytes)
            folder.mkdir(parents=True, exist_ok=True)
            _check_room(entries, folder)
            for entry in tqdm(entries, desc=f"unpacking {archive.stem}", unit=" files"):
                if entry.filename:  # empty for the entry of `root` itself
                    content.extract(entry, folder)
    except ARCHIVE_ERRORS as error:
        # a broken archive makes zipfile seek before the start of the file: EINVAL
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DataError(f"it cannot be unpacked: {error}") from None


def _check_entries(entries: list[zipfile.ZipInfo], folder: Path, max_bytes: int) -> None:
    """Raise a DataError if an entry would be extracted outside `folder`, or all are too large."""
    for entry in entries:
        is_link = stat.S_ISLNK(entry.external_attr >> 16)
        if is_link or not (folder / entry.filename).resolve().is_relative_to(folder):
            raise DataError(f"its entry {entry.filename!r} would leave the folder")
    # zipfile never extracts more of an entry than the size in its header
    if (size := sum(entry.file_size for entry in entries)) > max_bytes:
        raise DataError(f"unpacked, it has {size} bytes, more than the {max_bytes} allowed")


def _check_room(entries: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raise an OSError if the disk has too little space for the entries not yet extracted."""
    needed = 0
    for entry in entries:
        path = folder / entry.filename
        needed += entry.file_size - (path.stat().st_size if path.is_file() else 0)
    if needed > (free := shutil.disk_usage(folder).free):
        raise OSError(errno.ENOSPC, f"it needs {needed} bytes more, and the disk has {free} free")

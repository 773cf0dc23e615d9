"""What comes from the web: published models, ImageNet's weights; checked, and bounded in size."""
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from runtime.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

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
PAUSE = 1.0   # seconds before the second try, twice that before the third
TIMEOUT = 30  # seconds without an answer from a server
CHUNK = 1 << 16  # bytes read at once
MAX_BYTES = 10**9  # of a download, and of what is unpacked from it
RANGE_NOT_SATISFIABLE = 416
# What an archive that is broken, cut off or encrypted raises
ARCHIVE_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError,
                  NotImplementedError)


class Checksum(NamedTuple):
    """What a download must hash to: an algorithm of hashlib, and the hex digest or its start."""

    algorithm: str
    start: str


class Refused(Exception):
    """A download is not what it should be; the message says what it is. Asking again won't help."""


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
    archive, unpacked = folder.with_name(model_name + ".zip"), folder.with_name(model_name + ".tmp")
    md5 = PRETRAINED_MODELS[model_name]
    try:
        with alone_in(MODELS_DIR):
            if not (folder / "encoder.pth").is_file():  # nobody has brought it meanwhile
                download(url, archive, Checksum("md5", md5) if md5 else None)
                shutil.rmtree(unpacked, ignore_errors=True)
                unpack(archive, unpacked)
                if not (unpacked / "encoder.pth").is_file():
                    raise Refused("it holds no encoder.pth, so it is no model of Monodepth2")
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(unpacked, folder)
                archive.unlink()
    except (Refused, OSError) as error:
        archive.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)
        raise DataError(f"{url} cannot be downloaded ({error}); try again, or download it by hand "
                        f"and unpack it into {folder}, so that {folder / 'encoder.pth'} "
                        "exists") from None
    return folder


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine downloads to a folder, which is made.

    Where the system has no such locks, there is no wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def download(url: str, path: Path, checksum: Checksum | None, max_bytes: int = MAX_BYTES,
             tries: int = TRIES) -> None:
    """Bring a file from an https server whose certificate is valid.

    What has come is kept as <path>.part, with which the next try, or the next call, goes on.

    Args:
        url: https only, also after redirections.
        path: written when the whole file is there and has its checksum.
        checksum: None where none is published.
        max_bytes: a larger file is refused.
        tries: how often it is asked for where asking again may help.

    Raises:
        Refused: it has another checksum, is too large, or is not served by https.
        OSError: it is not to be had, or cannot be written.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, tries + 1):
        try:
            _fetch(url, part, max_bytes)
            break
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "code", None) == RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            if attempt == tries or not _may_pass(error):
                raise OSError(_reason(error)) from None
            time.sleep(PAUSE * attempt)
        except Refused:
            part.unlink(missing_ok=True)
            raise
    found = _digest(part, checksum.algorithm) if checksum else ""
    if checksum and not found.startswith(checksum.start):
        part.unlink()
        raise Refused(f"its {checksum.algorithm} is {found}, expected {checksum.start}")
    os.replace(part, path)


def size_of(url: str) -> int:
    """Return how many bytes a file has, by what its https server says.

    Raises:
        OSError: it does not say.
    """
    try:
        request = urllib.request.Request(url, method="HEAD")
        with _opener().open(request, timeout=TIMEOUT) as answer:
            length = answer.headers.get("Content-Length", "")
    except (OSError, http.client.HTTPException) as error:
        raise OSError(_reason(error)) from None
    if not length.isdecimal():
        raise OSError("the server does not say how large it is")
    return int(length)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or repr(error)


def _may_pass(error: Exception) -> bool:
    """Whether asking again may help: not where a certificate, the disk or the URL is at fault."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == RANGE_NOT_SATISFIABLE or error.code >= 500
    cause = getattr(error, "reason", error)
    return isinstance(cause, (TimeoutError, ConnectionError, http.client.HTTPException)) or (
        isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError))


def _fetch(url: str, part: Path, max_bytes: int) -> None:
    """Append to `part` what it lacks.

    Raises:
        Refused: it would become too large.
        ConnectionError: it broke off.
    """
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with _opener().open(request, timeout=TIMEOUT) as answer:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the whole file once more
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        if total is not None and total > max_bytes:
            raise Refused(f"it has {total} bytes, more than the {max_bytes} it may have")
        with part.open("ab" if have else "wb") as file, tqdm(
                initial=have, total=total, unit="B", unit_scale=True, desc=part.stem) as bar:
            while chunk := answer.read(CHUNK):
                have += len(chunk)
                if have > max_bytes:
                    raise Refused(f"it has more than the {max_bytes} bytes it may have")
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and have < total:
        raise ConnectionError(f"it broke off after {have} of {total} bytes")


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens https and nothing else, not even after a redirection."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.UnknownHandler(),
                    urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPRedirectHandler(),
                    urllib.request.HTTPErrorProcessor(),
                    urllib.request.HTTPSHandler(context=ssl.create_default_context())):
        opener.add_handler(handler)
    return opener


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, root: str = "") -> None:
    """Extract a zip whose entries all stay inside `folder`, are no links, and are not too large.

    Args:
        archive: the zip.
        folder: where to; made.
        max_bytes: of all that is unpacked.
        root: what is cut off the names that begin with it, such as "dataset/".

    Raises:
        Refused: one of them does not, or the archive is broken.
        OSError: the disk has no room for them, or they cannot be written.
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
                if entry.filename:  # `root` itself has none left
                    content.extract(entry, folder)
    except ARCHIVE_ERRORS as error:
        # a broken archive sends zipfile to places before its start, which are an invalid argument
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise Refused(f"it cannot be unpacked: {error}") from None


def _check_entries(entries: list[zipfile.ZipInfo], folder: Path, max_bytes: int) -> None:
    """Raise Refused where unpacking would leave `folder`, or be too large."""
    for entry in entries:
        is_link = stat.S_ISLNK(entry.external_attr >> 16)
        if is_link or not (folder / entry.filename).resolve().is_relative_to(folder):
            raise Refused(f"its entry {entry.filename!r} would leave the folder")
    # what an entry says it has is all that zipfile reads of it
    if (size := sum(entry.file_size for entry in entries)) > max_bytes:
        raise Refused(f"unpacked, it has {size} bytes, more than the {max_bytes} it may have")


def _check_room(entries: list[zipfile.ZipInfo], folder: Path) -> None:
    """Raise an OSError where the disk of `folder` is too small for what is not there yet."""
    needed = 0
    for entry in entries:
        path = folder / entry.filename
        needed += entry.file_size - (path.stat().st_size if path.is_file() else 0)
    if needed > (free := shutil.disk_usage(folder).free):
        raise OSError(errno.ENOSPC, f"it needs {needed} bytes more, and the disk has {free} free")

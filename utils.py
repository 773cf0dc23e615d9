"""Small things with no better home: errors, text files, pictures, time, pretrained models."""
from __future__ import annotations

import hashlib
import http.client
import io
import os
import shutil
import stat
import sys
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:  # every script imports this file to read its command line, which needs no torch
    from torch import Tensor

MODELS_URL = "https://storage.googleapis.com/niantic-lon-static/research/monodepth2"
MODELS_DIR = Path(__file__).resolve().parent / "models"
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
TIMEOUT = 30  # seconds without an answer from a server
CHUNK = 1 << 16  # bytes read at once
BRIGHTEST = 95  # percentile of a disparity map from which on it is painted white
# What a download or an archive that is broken, cut off or encrypted raises
TRANSFER_ERRORS = (OSError, http.client.HTTPException, zipfile.BadZipFile, zlib.error, EOFError,
                   RuntimeError, NotImplementedError)


class DataError(Exception):
    """A file or value of the user's is not what it must be.

    The message is for a person: what was found, what was expected, what to type. It is one line,
    also after a loader's worker has wrapped it in its own traceback.
    """

    status = 1  # of the script that ends with it

    def __str__(self) -> str:
        own_words = super().__str__().rpartition("DataError: ")[2]
        return " ".join(own_words.split())


class UsageError(DataError):
    """A flag has a value that does not exist, which only the part that reads it can know."""

    status = 2


def run(main: Callable[[], None]) -> None:
    """Call a script's `main`; a `DataError` becomes one line on stderr and its exit status."""
    try:
        main()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)


def readlines(filename: str | Path) -> list[str]:
    """Return the lines of a text file, without their line ends.

    Raises:
        DataError: the file is missing or is not text.
    """
    try:
        return Path(filename).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{filename} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{filename} cannot be read as text: {error}") from None


def check_data_path(path: str | Path) -> None:
    """Raise a DataError where --data_path is no folder."""
    if not Path(path).is_dir():
        raise DataError(f"--data_path {path} does not exist; give the folder of the data (README, "
                        "'KITTI data')")


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file as a whole or not at all.

    Raises:
        DataError: it cannot be written; what was there before is still there.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}; free some space, or "
                        "choose another folder") from None


def save_array(path: str | Path, array: np.ndarray) -> None:
    """Write a .npy file, as a whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())


def normalize_image(x: Tensor) -> Tensor:
    """Stretch a tensor of any shape to [0, 1], for showing; a constant one becomes 0."""
    low, high = x.min(), x.max()
    return (x - low) / (high - low).clamp(min=1e-12)


def colorize(disp: np.ndarray) -> np.ndarray:
    """Paint a disparity map in matplotlib's magma, near is bright.

    Args:
        disp: (H, W); its minimum is painted black, all from `BRIGHTEST` on white.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    import cv2
    low, high = disp.min(), np.percentile(disp, BRIGHTEST)
    level = np.clip((disp - low) / max(high - low, 1e-12), 0, 1)
    painted = cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_MAGMA)
    return cv2.cvtColor(painted, cv2.COLOR_BGR2RGB)


def sec_to_hm_str(t: float) -> str:
    """Write seconds as hours, minutes and seconds: 10239 -> 02h50m39s."""
    minutes, seconds = divmod(int(t), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}h{minutes:02d}m{seconds:02d}s"


def download_model_if_doesnt_exist(model_name: str) -> Path:
    """Return the folder of a published model, downloaded from `MODELS_URL` on first use.

    Raises:
        DataError: the name is unknown, or the download failed; nothing is left of it then.
    """
    if model_name not in PRETRAINED_MODELS:
        raise DataError(f"{model_name!r} is not a published model; choose one of "
                        f"{', '.join(PRETRAINED_MODELS)}")
    folder = MODELS_DIR / model_name
    if (folder / "encoder.pth").is_file():
        return folder
    url = f"{MODELS_URL}/{urllib.parse.quote(model_name)}.zip"
    archive, unpacked = folder.with_name(model_name + ".zip"), folder.with_name(model_name + ".tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _download(url, archive, PRETRAINED_MODELS[model_name])
        _unpack(archive, unpacked)
        if not (unpacked / "encoder.pth").is_file():
            raise DataError(f"{url} holds no encoder.pth; it is no model of Monodepth2")
        os.replace(unpacked, folder)
    except TRANSFER_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url} cannot be downloaded ({reason}); download it by hand and unpack it "
                        f"into {folder}, so that {folder / 'encoder.pth'} exists") from None
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)
    return folder


def _download(url: str, path: Path, md5: str | None) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        with tqdm(total=total or None, unit="B", unit_scale=True, desc=path.name) as bar:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    size = path.stat().st_size
    if size < total:
        raise OSError(f"it broke off after {size} of {total} bytes")
    if md5 and digest.hexdigest() != md5:
        raise OSError(f"its md5 is {digest.hexdigest()}, expected {md5}")


def _unpack(archive: Path, folder: Path) -> None:
    """Extract a zip whose entries all stay inside `folder` and are no links."""
    with zipfile.ZipFile(archive) as content:
        for entry in content.infolist():
            target = (folder / entry.filename).resolve()
            is_link = stat.S_ISLNK(entry.external_attr >> 16)
            if is_link or not target.is_relative_to(folder.resolve()):
                raise OSError(f"its entry {entry.filename!r} would leave the folder")
        content.extractall(folder)

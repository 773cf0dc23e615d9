"""Decode image files to uint8 arrays, and resize them with Pillow; PyTorch is not needed here."""
from __future__ import annotations

import io
import re
import struct
import sys
import warnings
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from runtime.errors import DataError
from runtime.files import MAX_PIXELS

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # the last bytes of a whole file
GREY = 128  # each value of the colour with which a decoder fills the area of missing data
# Data for a JPEG's next blocks, with all restart markers; 0 first, so that it starts no marker
MORE_DATA = b"".join((restart + bytes([0, *range(1, 255)]))
                     for restart in (b"", *(bytes([0xff, 0xd0 + n]) for n in range(8))))
EXIF_KEYS = {"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"}  # of Pillow's `info`
PNG_TAIL = 65_536  # bytes at the end of a PNG that are searched for EXIF behind the pixels
HEAD = 512  # bytes that tell what kind of file one is
ORIENTATION = 0x0112  # EXIF's tag
TURNS = {number: Image.Transpose[name] for number, name in enumerate(  # make an image upright
    ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE",
     "ROTATE_90"), 2)}
JPEGS = {"JPEG", "MPO"}  # MPO: with a second image behind the first, as phones write them
FILMS = {"GIF", "WEBP", "PNG"}  # formats that also hold animations
DARK = 16  # of 255, the brightest that 12 bits become in a file of 16
OTHER_FILES = (  # where and how files begin that are not images, what they are and what to do
    (0, b"version https://git-lfs", "it is a pointer of git-lfs; fetch the image again with "
                                    "`git lfs pull`"),
    (0, b"\0" * 16, "it holds zeros, perhaps after a crash; copy it again"),
    *((0, begin, "its kind of TIFF or raw photo is unknown, for example floats of 64 bits; convert "
                 "it to a PNG of 8 or 16 bits") for begin in (b"II*\0", b"MM\0*")),
    (0, b"<", "it is a web page or another text; download the image again"),
    (0, b"\x93NUMPY", "it is an array of NumPy; save it as a PNG"),
    (0, b"PK\x03\x04", "it is an archive (.zip, .npz); extract the images"),
    (0, b"%PDF", "it is a PDF; convert its pages to PNG"),
    (0, b"\x00\x05\x16\x07", "it is a file of macOS about another file; delete it"),
    (4, b"ftypavi", "it is an AVIF photo; convert it to JPEG or PNG"),
    *((4, b"ftyp" + brand, "it is a HEIC photo; convert it to JPEG or PNG")
      for brand in (b"hei", b"hev", b"mif1", b"msf1")),
    (4, b"ftyp", "it is a video; give it the ending .mp4"),
    (0, b"\x1aE\xdf\xa3", "it is a video; give it the ending .mkv"),
    (8, b"AVI ", "it is a video; give it the ending .avi"),
)
# Pillow warns, with lines of its code, of harmless faults such as a broken EXIF block
warnings.filterwarnings("ignore", module="PIL")
cv2.setNumThreads(0)  # the workers of a loader already use all cores
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit only warns; `open_image` raises
# What Pillow and OpenCV raise for broken files and files that are not images
IMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError,
                AttributeError, OverflowError, NotImplementedError, RuntimeError, MemoryError,
                struct.error, zlib.error, cv2.error)
# What a broken file raises, without the errors that a mistake in somebody's `get_color` raises
FILE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def natural_order(path: Path) -> list[str | int]:
    """Return a sort key that puts 2.png before 10.png."""
    words = re.split("([0-9]+)", path.name)  # every second word is a number
    return [int(word) if i % 2 else word for i, word in enumerate(words)]


def list_files(folder: Path) -> list[Path]:
    """List a folder in natural order, without folders, pipes, and hidden files such as ._ files.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted((file for file in folder.iterdir() if not file.name.startswith(".")
                       and (file.is_file() or file.is_symlink())), key=natural_order)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None


def open_image(source: str | Path | BinaryIO) -> Image.Image:
    """Open an image with Pillow and check its size; pixels are decoded later.

    Raises:
        one of IMAGE_ERRORS: the file is missing, not an image, or larger than `MAX_PIXELS`.
    """
    try:
        image = Image.open(source)
    except UnidentifiedImageError:  # its message names an object in memory, not the file
        raise OSError(_describe_other_file(source)) from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS:,} "
                         "that an image may have")
    return image


def _describe_other_file(source: str | Path | BinaryIO) -> str:
    """Say what a file is that Pillow cannot read, and what to do about it."""
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            head = file.read(HEAD)
    else:
        source.seek(0)
        head = source.read(HEAD)
    for start, begin, words in OTHER_FILES:
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(begin, start):
            return words
    return "the image format is unknown; convert it to JPEG or PNG"


def pil_loader(path: str | Path) -> Image.Image:
    """Read an image file as an RGB Pillow image, upright as EXIF's orientation says."""
    return Image.fromarray(read_array(path))


def read_array(path: str | Path) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB, upright as EXIF's orientation says.

    Values of 16 bits are divided by 257.

    Raises:
        FileNotFoundError: the file is missing.
        one of IMAGE_ERRORS: the file is not an image, too large, cut off, or has pixels of 32 bits.
    """
    with open(path, "rb", buffering=0) as file:
        content = file.read()
    if not content:
        raise OSError("the file is empty")
    with open_image(io.BytesIO(content)) as opened:
        if opened.format in FILMS and opened.is_animated:
            raise ValueError(f"it is a film of {opened.n_frames} frames; convert it to .mp4, or to "
                             "images")
        image = _decode(content, opened)
        has_16_bits = opened.mode.startswith("I") or (opened.format == "PNG" and content[24] == 16)
        if has_16_bits and 0 < image.max() <= DARK:
            _warn_of_dark_images(Path(path).parent)
        if opened.format in JPEGS and _ends_early(content, opened, image):
            raise OSError("the image data end early, and the rest would be grey; copy or record "
                          "it again")
    return image


def _decode(content: bytes, opened: Image.Image) -> np.ndarray:
    """Decode an opened image file to (H, W, 3) uint8 RGB, upright."""
    end = ENDS.get(opened.format)
    if (opened.mode in ("RGB", "L") and end and content.endswith(end)
            and _orientation(content, opened) == 1):
        # OpenCV: the same bits in less than half the time, but no error for truncated files
        image = cv2.imdecode(np.frombuffer(content, np.uint8),
                             cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise OSError("its pixels cannot be decoded; copy it again")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    opened.load()  # TIFF and PNG may have their orientation behind the pixels
    image = _in_8_bits(opened)
    if image.mode == "P":  # Pillow warns of transparent palettes unless they become RGBA first
        image = image.convert("RGBA")
    image = image.convert("RGB")
    turn = TURNS.get(_orientation(content, opened))
    return np.array(image if turn is None else image.transpose(turn))


def _orientation(content: bytes, image: Image.Image) -> int:
    """Return the orientation that EXIF states, 1 (upright) to 8; 1 if it states none."""
    # looked for first, because Pillow decodes a PNG to find EXIF behind the pixels
    if image.info.keys() & EXIF_KEYS or (image.format == "PNG" and b"eXIf" in content[-PNG_TAIL:]):
        with suppress(*IMAGE_ERRORS):  # a broken tag counts as upright, as in viewers
            return image.getexif().get(ORIENTATION, 1)
    return 1


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Return an image of one 16-bit channel with 8 bits, values / 257; others as they are.

    Raises:
        ValueError: the pixels have 32 bits.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        kind = "floats" if image.mode == "F" else "integers"
        raise ValueError(f"its pixels are {kind} of 32 bits, whose range is unknown; save it with "
                         "8 or 16 bits")
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(((np.asarray(image).astype(np.int32) + 128) // 257).astype(np.uint8))


@cache
def _warn_of_dark_images(folder: Path) -> None:
    """Print a warning, once for a folder."""
    print(f"warning: a 16-bit image in {folder} uses 12 bits or less, and is nearly black, because "
          "65535 is read as white: scale such images to the whole range", file=sys.stderr,
          flush=True)


def _ends_early(content: bytes, opened: Image.Image, image: np.ndarray) -> bool:
    """Return whether the data of a JPEG end before its image, despite an end marker.

    Data inserted before the end marker change the image only if data are missing there. This is
    tried where the last pixel is grey, for progressive JPEGs, whose missing data only blur, and
    for CMYK, where grey becomes another colour.
    """
    ends = [-1] if _orientation(content, opened) == 1 else [0, -1]  # EXIF may have turned it
    last_pixels = image[np.ix_(ends, ends)]
    is_grey_if_cut = opened.mode != "CMYK" and "progressive" not in opened.info
    if is_grey_if_cut and not (last_pixels == GREY).all(-1).any():
        return False
    data, end, rest = content.rpartition(ENDS["JPEG"])
    longer = data + MORE_DATA + end + rest
    with open_image(io.BytesIO(content)) as plain, open_image(io.BytesIO(longer)) as changed:
        return plain.tobytes() != changed.tobytes()


def resize_pillow(image: Image.Image, size: tuple[int, int],
                  interp: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """Resize a Pillow image to `size`, (width, height)."""
    return image.resize(size, interp)


def resize_array(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (3, H, W) uint8 to (3, height, width) with Pillow's LANCZOS."""
    resized = resize_pillow(Image.fromarray(np.moveaxis(image, 0, -1)), (width, height))
    return np.moveaxis(np.array(resized), -1, 0)

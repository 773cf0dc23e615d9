"""Image files of every kind, predicted by test_simple.py."""
from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.odd_files.base import content, picture
from tests.odd_files.situation import Situation, disparity_of

TO_DISP = "test_simple --load_weights_folder {base}/w --output disp --output_dir out --image_path "


def rgb(path: str) -> np.ndarray:
    """Return an image as Pillow converts it to RGB."""
    return np.array(Image.open(path).convert("RGB"))


def is_predicted(expected: object, _: str, stem: str = "odd") -> bool:
    """Return whether the disparity written is that of the expected RGB image."""
    found = np.load(f"out/{stem}_disp.npy").squeeze()
    return np.allclose(found, disparity_of(expected), rtol=1e-4)


def saved(name: str, mode: str = "RGB", expected: np.ndarray | None = None,
          **flags: object) -> Callable[[], np.ndarray]:
    """Return a builder that saves the picture in a mode and format."""
    def build() -> np.ndarray:
        picture().convert(mode).save(name, **flags)
        return rgb(name) if expected is None else expected
    return build


def array(name: str, values: Callable[[np.ndarray], np.ndarray]) -> Callable[[], np.ndarray]:
    """Return a builder that saves values computed from the grey picture (H, W) of 0 to 255."""
    def build() -> np.ndarray:
        grey = np.array(picture().convert("L"))
        Image.fromarray(values(grey)).save(name)
        return np.repeat(grey[..., None], 3, 2)
    return build


def rotated(name: str, orientation: int) -> Callable[[], np.ndarray]:
    """Return a builder that saves a picture with an orientation; its value is the upright one."""
    undo = {3: Image.Transpose.ROTATE_180, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}

    def build() -> np.ndarray:
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture().save(name, exif=exif, **({} if name.endswith("png") else {"quality": 95}))
        stored = Image.open(name).convert("RGB")
        return np.array(stored.transpose(undo[orientation]) if orientation in undo else stored)
    return build


def edited(name: str, edit: Callable[[bytes], bytes], **flags: object) -> Callable[[], np.ndarray]:
    """Return a builder that saves the picture and changes the bytes of the file."""
    def build() -> np.ndarray:
        picture().save(name, **flags)
        expected = rgb(name)
        Path(name).write_bytes(edit(Path(name).read_bytes()))
        return expected
    return build


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data)))


def png_of_size(width: int, height: int, bits: int = 8, colour: int = 2,
                data: bytes = b"") -> bytes:
    """Return a PNG with a header and compressed data of any size."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data))
            + chunk(b"IEND", b""))


def rgb16() -> np.ndarray:
    """Write a 16-bit RGB PNG of the picture, each value times 257."""
    values = np.array(picture())
    rows = (values.astype(">u2") * 257).reshape(len(values), -1)
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    Path("odd.png").write_bytes(png_of_size(values.shape[1], values.shape[0], 16, 2, data))
    return values


def several(name: str, **flags: object) -> Callable[[], np.ndarray]:
    """Return a builder that saves the picture and other pictures behind it in one file."""
    def build() -> np.ndarray:
        others = [Image.new("RGB", (100, 70), colour) for colour in ("black", "white")]
        picture().save(name, save_all=True, append_images=others, **flags)
        return rgb(name)
    return build


def zipped() -> None:
    """Write a zip archive under the name of an image."""
    with zipfile.ZipFile("odd.jpg", "w") as archive:
        archive.writestr("picture.png", b"")


def ramp_u16(grey: np.ndarray) -> np.ndarray:
    return grey.astype(np.uint16) * 257


HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n"
# words, name, builder, whether right is allowed, pattern of a refusal or None
ROWS = [
    ("JPEG in CMYK", "odd.jpg", saved("odd.jpg", "CMYK"), True, None),
    ("TIFF in LAB", "odd.tif", saved("odd.tif", "LAB"), True, r"odd\.tif"),
    ("PNG with 1 bit", "odd.png", saved("odd.png", "1"), True, None),
    ("PNG with palette", "odd.png", saved("odd.png", "P"), True, None),
    ("PNG with grey and alpha", "odd.png", saved("odd.png", "LA"), True, None),
    ("PNG with alpha", "odd.png", saved("odd.png", "RGBA"), True, None),
    ("JPEG in YCbCr 4:4:4", "odd.jpg", saved("odd.jpg", "YCbCr", subsampling=0), True, None),
    ("progressive JPEG", "odd.jpg", saved("odd.jpg", progressive=True), True, None),
    ("grey JPEG", "odd.jpeg", saved("odd.jpeg", "L"), True, None),
    ("BMP", "odd.bmp", saved("odd.bmp"), True, None),
    ("TGA", "odd.tga", saved("odd.tga"), True, r"odd\.tga"),
    ("JPEG 2000", "odd.jp2", saved("odd.jp2"), True, r"odd\.jp2"),
    ("lossless WebP", "odd.webp", saved("odd.webp", lossless=True), True, None),
    ("animated GIF", "odd.gif", several("odd.gif"), False, r"odd\.gif"),
    ("animated WebP", "odd.webp", several("odd.webp", lossless=True), False, r"odd\.webp.*film"),
    ("animated PNG", "odd.png", several("odd.png"), False, r"odd\.png.*film"),
    ("TIFF of several pages: the first page", "odd.tif", several("odd.tif"), True, None),
    ("PNG, 16 bits grey, values x 257", "odd.png", array("odd.png", ramp_u16), True, "16"),
    ("TIFF, 16 bits grey, values x 257", "odd.tif", array("odd.tif", ramp_u16), True, "16"),
    ("PNG, 16 bits a colour", "odd.png", rgb16, True, r"odd\.png.*16"),
    ("TIFF of int32", "odd.tif", array("odd.tif", lambda v: v.astype(np.int32) * 257), False,
     r"odd\.tif.*(32|bits)"),
    ("TIFF of float32 in [0, 1]", "odd.tif", array("odd.tif", lambda v: v.astype("f4") / 255),
     True, r"odd\.tif.*(32|float|bits)"),
    ("TIFF of float32 with NaN", "odd.tif",
     array("odd.tif", lambda v: np.where(v > 99, np.nan, v).astype("f4")), False,
     r"odd\.tif.*(32|float|bits|NaN)"),
    ("orientation 3 in a JPEG", "odd.jpg", rotated("odd.jpg", 3), True, None),
    ("orientation 5 in a JPEG", "odd.jpg", rotated("odd.jpg", 5), True, None),
    ("orientation 8 in a JPEG", "odd.jpg", rotated("odd.jpg", 8), True, None),
    ("orientation 6 in a PNG", "odd.png", rotated("odd.png", 6), True, None),
    ("orientation 6 in a WebP", "odd.webp", rotated("odd.webp", 6), True, None),
    ("orientation 9, which does not exist", "odd.jpg", rotated("odd.jpg", 9), True, None),
    ("broken EXIF", "odd.jpg", saved("odd.jpg", exif=b"Exif\0\0MM\0*\0\0\xff\xff junk"), True,
     None),
    ("JPEG with text after its end", "odd.jpg", edited("odd.jpg", lambda b: b + b"text" * 9), True,
     None),
    ("JPEG cut after the header", "odd.jpg", edited("odd.jpg", lambda b: b[:300]), False,
     r"odd\.jpg"),
    ("JPEG cut, last lines missing, with end marker", "odd.jpg",
     edited("odd.jpg", lambda b: b[:len(b) * 9 // 10] + b"\xff\xd9"), False, r"odd\.jpg"),
    ("progressive JPEG cut, with end marker", "odd.jpg",
     edited("odd.jpg", lambda b: b[:len(b) // 2] + b"\xff\xd9", progressive=True), False,
     r"odd\.jpg"),
    ("JPEG without 400 bytes of its middle", "odd.jpg",
     edited("odd.jpg", lambda b: b[:len(b) // 2] + b[len(b) // 2 + 400:]), False, r"odd\.jpg"),
    ("JPEG of 12 bits", "odd.jpg",
     edited("odd.jpg", lambda b: b.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")), False,
     r"odd\.jpg"),
    ("PNG with a wrong checksum of its pixels", "odd.png",
     edited("odd.png", lambda b: b[:-17] + b"\0\0\0\0" + b[-13:]), True, r"odd\.png"),
    ("PNG with a chunk of 2 GB announced", "odd.png",
     edited("odd.png", lambda b: b[:33] + b"\x7f\xff\xff\xff" + b[37:]), False, r"odd\.png"),
    ("PNG without its last half", "odd.png", edited("odd.png", lambda b: b[:len(b) // 2]), False,
     r"odd\.png"),
    ("PNG cut, with end marker", "odd.png",
     edited("odd.png", lambda b: b[:len(b) // 2] + b"\0\0\0\0IEND\xaeB`\x82"), False, r"odd\.png"),
    ("PNG 0 pixels wide", "odd.png", content("odd.png", png_of_size(0, 5)), False, r"odd\.png"),
    ("PNG of 100000 x 100000", "odd.png", content("odd.png", png_of_size(100000, 100000)), False,
     r"odd\.png.*pixels"),
    ("PNG of 2^31 x 2^31", "odd.png", content("odd.png", png_of_size(2**31, 2**31)), False,
     r"odd\.png"),
    ("PNG with fewer rows than announced", "odd.png",
     content("odd.png", png_of_size(4, 4, data=b"\0" * 13)), False, r"odd\.png"),
    ("PNG of 1 pixel", "odd.png",
     lambda: Image.new("RGB", (1, 1), (16, 32, 48)).save("odd.png") or rgb("odd.png"), True, None),
    ("empty file", "odd.jpg", content("odd.jpg", b""), False, r"odd\.jpg.*empty"),
    ("HTML as .jpg", "odd.jpg", content("odd.jpg", HTML), False, r"odd\.jpg.*(HTML|web)"),
    ("git-lfs pointer as .png", "odd.png", content("odd.png", LFS), False, r"odd\.png.*git.lfs"),
    (".npy as .png", "odd.png", content("odd.png", b"\x93NUMPY\x01\0v\0{}"), False,
     r"odd\.png.*(npy|NumPy|numpy)"),
    ("zip as .jpg", "odd.jpg", zipped, False, r"odd\.jpg"),
    ("PDF as .jpg", "odd.jpg", content("odd.jpg", b"%PDF-1.4\n%%EOF\n"), False, r"odd\.jpg"),
    ("SVG", "odd.svg", content("odd.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), False,
     r"odd\.svg"),
    ("HEIC as .jpg", "odd.jpg", content("odd.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), False,
     r"odd\.jpg.*(HEIC|HEIF)"),
    ("raw photo .CR2", "odd.CR2", content("odd.CR2", b"II*\0\x10\0\0\0CR\2\0" + bytes(60)), False,
     r"odd\.CR2"),
]
SITUATIONS = [Situation(words, TO_DISP + name, build, refused, is_predicted if may_pass else None)
              for words, name, build, may_pass, refused in ROWS]


def with_picture(name: str) -> Callable[[], np.ndarray]:
    """Return a builder that saves the picture as a PNG under any name."""
    def build() -> np.ndarray:
        picture().save(name, format="PNG")
        return np.array(picture())
    return build


def named(words: str, name: str, flag: str, refused: str | None = None) -> Situation:
    """Return the situation of a PNG with an odd name."""
    return Situation(f"file name with {words}", TO_DISP.replace("--image_path ", "") + flag,
                     with_picture(name), refused,
                     lambda expected, _: is_predicted(expected, _, Path(name).stem))


def special(words: str, make: Callable[[], object], refused: str) -> Situation:
    """Return the situation of something that is no file under the name odd.png."""
    return Situation(words, TO_DISP + "odd.png", make, refused)


SITUATIONS += [
    named("a new line", "a\nb.png", "--image_path 'a\nb.png'"),
    named("spaces at both ends", " a b .png", "--image_path ' a b .png'"),
    named("quotes", "it's \"a\".png", "--image_path 'it'\"'\"'s \"a\".png'"),
    named("a leading dash", "-a.png", "--image_path=-a.png"),
    named("decomposed letters (NFD)", "u\u0308.png", "--image_path u\u0308.png"),
    named("braces and per cent", "{0}%s%d.png", "--image_path {0}%s%d.png"),
    named("brackets and a star", "[ab]*.png", "--image_path '[ab]*.png'"),
    named("two extensions", "a.tar.png", "--image_path a.tar.png"),
    named("no extension", "photo", "--image_path photo"),
    named("250 letters", "x" * 250 + ".png", f"--image_path {'x' * 250}.png", "name|long"),
    named("a number only, like a webcam", "7", "--image_path 7"),
    special("a link to itself", lambda: os.symlink("odd.png", "odd.png"), r"odd\.png"),
    special("a link to nothing", lambda: os.symlink("gone.png", "odd.png"), r"odd\.png"),
    special("a pipe (FIFO)", lambda: os.mkfifo("odd.png"), r"odd\.png"),
    special("an empty folder named odd.png", lambda: os.mkdir("odd.png"), r"odd\.png"),
    Situation("/dev/null for an image", TO_DISP + "/dev/null", refused="/dev/null"),
]

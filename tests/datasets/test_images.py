"""datasets/image_files.py, images.py: every kind of image is read and resized as by Pillow."""
import io
import warnings

import cv2
import numpy as np
import pytest
import torch
from conftest import SHARED, needs_shared
from PIL import Image, ImageOps

from datasets import image_files, images
from datasets.image_files import pil_loader
from datasets.images import pyramid, read_image, resize, resize_float

KITTI_SIZES = [(1242, 375), (1224, 370), (1226, 370), (1238, 374), (1241, 376)]


def photo(width, height, smooth=True):
    """Return an image textured like a photograph or, if not `smooth`, with hard edges."""
    noise = Image.fromarray(np.random.randint(0, 256, (height // 4, width // 4, 3), np.uint8))
    return noise.resize((width, height),
                        Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST)


def difference(found, image):
    """Return the largest difference of a tensor and an image, and the share of different values."""
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(image).astype(int))
    return difference.max(), (difference > 0).mean()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "LA", "1", "CMYK"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "TIFF"])
def test_every_image_format_is_decoded_as_pillow_does(tmp_path, mode, form):
    image = photo(160, 64).convert(mode)
    try:
        image.save(tmp_path / "image", form)
    except OSError:
        pytest.skip(f"a {form} has no {mode}")
    with Image.open(tmp_path / "image") as opened:
        expected = opened.convert("RGB")
    assert difference(read_image(tmp_path / "image"), expected) == (0, 0)


@needs_shared
def test_kittis_files_are_decoded_as_pillow_does():
    drive = SHARED / "real/kitti_raw/2011_09_26/2011_09_26_drive_0001_sync"
    paths = [drive / "image_02/data/0000000000.png",
             SHARED / "real/kitti_416x128" / drive.relative_to(drive.parents[1])
             / "image_03/data/0000000005.jpg"]
    for path in paths:
        with Image.open(path) as opened:
            assert difference(read_image(path), opened.convert("RGB")) == (0, 0)


@pytest.mark.parametrize(("width", "height"), KITTI_SIZES)
@pytest.mark.parametrize("to", [(640, 192), (1024, 320), (416, 128)])
@pytest.mark.parametrize("torchs", [True, False])
@pytest.mark.parametrize("smooth", [True, False])
def test_every_kitti_size_is_resized_as_pillow_does(monkeypatch, width, height, to, torchs, smooth):
    # Faithful 4: within 1 of 255, on under 2 % of values; a few are 2 off at larger sizes, and at
    # edges from black to white
    if torchs and not images.HAS_LANCZOS:
        pytest.skip("this PyTorch has no LANCZOS; Pillow resizes")
    monkeypatch.setattr(images, "HAS_LANCZOS", torchs)
    image = photo(width, height, smooth)
    found = resize(torch.from_numpy(np.array(image)).permute(2, 0, 1), to[1], to[0])
    largest, share = difference(found, image.resize(to, Image.Resampling.LANCZOS))
    assert largest <= (1 if smooth and to[0] <= 640 else 2)
    assert share < 0.02
    assert found.is_contiguous()


def test_an_exact_resize_is_pillows_to_the_bit():
    image = photo(1242, 375)
    found = resize(torch.from_numpy(np.array(image)).permute(2, 0, 1), 192, 640, exact=True)
    assert difference(found, image.resize((640, 192), Image.Resampling.LANCZOS)) == (0, 0)


@pytest.mark.parametrize("to", [(640, 192), (96, 64), (1500, 500), (1242, 375)])
def test_float_images_are_resized_as_pillow_does_but_for_rounding(to):
    image = photo(1242, 375, smooth=False)
    floats = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    found = (resize_float(floats, to[1], to[0])[0] * 255).round()
    largest, share = difference(found, image.resize(to, Image.Resampling.LANCZOS))
    assert largest <= 1
    assert share < 0.25  # Pillow rounds between rows and columns, too


def test_each_pyramid_level_is_made_from_the_level_above():
    # Faithful 4
    image = photo(96, 64)
    levels = pyramid(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], 3)
    half = image.resize((48, 32), Image.Resampling.LANCZOS)
    quarter = half.resize((24, 16), Image.Resampling.LANCZOS)
    direct = image.resize((24, 16), Image.Resampling.LANCZOS)
    for level, expected in zip(levels, (image, half, quarter), strict=True):
        largest, share = difference(level[0], expected)
        assert largest <= 1
        assert share < 0.005
    assert difference(levels[2][0], direct)[1] > 0.1
    assert torch.equal(levels[1], levels[1].round())


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0broken"])
def test_a_file_that_is_not_an_image_raises_an_error(tmp_path, content):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(OSError, match=r"is empty|format is unknown|Truncated"):
        read_image(tmp_path / "image.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_truncated_image_raises_pillows_error(tmp_path, form):
    buffer = io.BytesIO()
    photo(160, 64).save(buffer, form)
    (tmp_path / "image").write_bytes(buffer.getvalue()[:-500])
    with pytest.raises(OSError, match="truncated"):
        read_image(tmp_path / "image")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_read_as_8_bits_times_257(tmp_path, form):
    gray = np.asarray(photo(160, 64).convert("L"))
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "image", form)
    assert (read_image(tmp_path / "image").numpy() == gray).all()
    assert (np.asarray(pil_loader(tmp_path / "image")) == gray[..., None]).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_16_bits_that_only_hold_12_are_warned_of(tmp_path, capsys, mode):
    levels = np.asarray(photo(160, 64).convert(mode)).astype(np.uint16)
    for name, factor in ("1.png", 16), ("2.png", 16), ("bright/3.png", 257):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), levels * factor)
        read_image(tmp_path / name)
    assert capsys.readouterr().err.count("is nearly black") == 1


@pytest.mark.parametrize(("kind", "words"), [(np.int32, "integers"), (np.float32, "floats")])
def test_pixels_of_32_bits_are_refused(tmp_path, kind, words):
    Image.fromarray(np.full((64, 96), 300, kind)).save(tmp_path / "image.tif")
    with pytest.raises(ValueError, match=f"its pixels are {words} of 32 bits"):
        read_image(tmp_path / "image.tif")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_exif_says(tmp_path, form, orientation):
    exif = Image.Exif()
    exif[image_files.ORIENTATION] = orientation
    path = tmp_path / "image"
    photo(160, 64).save(path, form, exif=exif)
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    assert upright.size == ((160, 64) if orientation < 5 else (64, 160))
    assert difference(read_image(path), upright) == (0, 0)
    assert difference(read_image(path), pil_loader(path)) == (0, 0)


def test_a_png_with_exif_behind_its_pixels_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[image_files.ORIENTATION] = 6
    photo(160, 64).save(tmp_path / "image.png", exif=exif)
    content = (tmp_path / "image.png").read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start:start + 4], "big")
    chunk, rest, end = content[start:stop], content[:start] + content[stop:], content[-12:]
    (tmp_path / "image.png").write_bytes(rest[:-12] + chunk + end)
    assert read_image(tmp_path / "image.png").shape == (3, 160, 64)


def test_a_broken_exif_block_counts_as_upright(tmp_path):
    photo(160, 64).save(tmp_path / "image.jpg", exif=b"Exif\0\0no TIFF")
    assert read_image(tmp_path / "image.jpg").shape == (3, 64, 160)


JPEG_KINDS = [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}]


@pytest.mark.parametrize("how", JPEG_KINDS, ids=str)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_cut_jpeg_with_an_end_marker_is_an_error(tmp_path, how, share, mode):
    buffer = io.BytesIO()
    photo(160, 96).convert(mode).save(buffer, "JPEG", quality=90, **how)
    content = buffer.getvalue()
    (tmp_path / "image").write_bytes(content[:int(share * len(content))] + image_files.ENDS["JPEG"])
    with pytest.raises(OSError, match="end early"):
        read_image(tmp_path / "image")


@pytest.mark.parametrize(("form", "mode", "orientation"), [
    ("JPEG", "RGB", 3), ("JPEG", "RGB", 6), ("JPEG", "CMYK", 1), ("MPO", "RGB", 1)])
def test_a_cut_photo_of_a_phone_or_printer_is_an_error(tmp_path, form, mode, orientation):
    exif = Image.Exif()
    exif[image_files.ORIENTATION] = orientation
    second = {"save_all": True, "append_images": [photo(80, 48)]} if form == "MPO" else {}
    buffer = io.BytesIO()
    photo(160, 96).convert(mode).save(buffer, form, exif=exif, **second)
    (tmp_path / "image").write_bytes(buffer.getvalue())
    read_image(tmp_path / "image")
    (tmp_path / "image").write_bytes(buffer.getvalue()[:3000] + image_files.ENDS["JPEG"])
    with pytest.raises(OSError, match="end early"):
        read_image(tmp_path / "image")


@pytest.mark.parametrize("how", JPEG_KINDS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("filled", [0, 40, 97])
@pytest.mark.parametrize("behind", [b"", b"\0" * 9, b"text \xff\xd9"])
def test_a_whole_jpeg_may_end_in_gray(tmp_path, how, mode, filled, behind):
    image = np.asarray(photo(160, 96)).copy()
    image[97 - filled:] = 128
    path = tmp_path / "image"
    Image.fromarray(image).convert(mode).save(path, "JPEG", **how)
    with path.open("ab") as file:
        file.write(behind)
    with Image.open(path) as opened:
        assert difference(read_image(path), opened.convert("RGB")) == (0, 0)


@pytest.mark.parametrize(("content", "words"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
    (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "a HEIC photo; convert it to JPEG or PNG"),
    (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a video; give it the ending .mp4"),
    (b"\r\n<!DOCTYPE html><html>", "web page .* download the image again"),
    (b"\x93NUMPY\1\0v\0{'descr': '<f4'}", "an array of NumPy; save it as a PNG"),
    (b"\0" * 100, "zeros, perhaps after a crash; copy it again"),
    (b"II*\0\x08\0\0\0" + bytes(6), "TIFF or raw photo is unknown"),
    (b"something", "unknown; convert it to JPEG or PNG")])
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path, content, words):
    (tmp_path / "image.jpg").write_bytes(content)
    for read in (read_image, image_files.open_image):
        with pytest.raises(OSError, match=words):
            read(tmp_path / "image.jpg")


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_not_read_as_its_first_frame(tmp_path, form):
    frames = [photo(160, 64) for _ in range(3)]
    frames[0].save(tmp_path / "image", form, save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a film of 3 frames; convert it to \.mp4"):
        read_image(tmp_path / "image")


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    image = photo(160, 64).convert("P")
    image.save(tmp_path / "image.png", transparency=bytes(range(0, 256, 2)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_image(tmp_path / "image.png")
    assert difference(found, image.convert("RGB")) == (0, 0)


def test_a_listing_is_in_natural_order_without_hidden_files(tmp_path):
    for name in ("10.png", "2.png", "._2.png", ".DS_Store"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files.list_files(tmp_path)] == ["2.png", "10.png"]

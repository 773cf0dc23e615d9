"""datasets/images.py: decoding and resizing equal Pillow's, for every kind of image."""
import io

import numpy as np
import pytest
import torch
from conftest import SHARED, needs_shared
from PIL import Image

from datasets import images
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

"""images.py: images are read ahead, predicted in batches and yielded in order."""
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import HEIGHT, WIDTH, filled_weights
from PIL import Image

from datasets.footage import Footage
from prediction.images import predict_images
from prediction.predictor import Predictor
from runtime.errors import DataError


@pytest.fixture
def images(tmp_path):
    """Write nine images of different sizes and colours; return their paths."""
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for i, path in enumerate(paths):
        Image.new("RGB", (100 + 10 * i, 80 - 3 * i), (25 * i, 90, 255 - 25 * i)).save(path)
    return paths


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor(filled_weights(tmp_path_factory.mktemp("weights")))


def test_images_keep_their_order_and_size_and_get_their_own_disparity(images, predictor):
    with ThreadPoolExecutor() as pool:
        batches = list(predict_images(predictor, Footage(images[0].parent), 4, pool))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    frames = [frame for batch in batches for frame in batch]
    assert [frame.label for frame in frames] == list(map(str, images))
    for frame in frames:
        with Image.open(frame.label) as image:
            assert frame.image.shape == (3, image.height, image.width)
            pixels = torch.tensor(image.getpixel((0, 0))).float() / 255
        with torch.no_grad():
            expected = predictor.model.disparity(
                pixels[None, :, None, None].expand(1, 3, HEIGHT, WIDTH))
        torch.testing.assert_close(torch.from_numpy(frame.disp), expected, atol=1e-5, rtol=0)


class CountingPool(ThreadPoolExecutor):
    """Count the jobs that a pool is given."""

    jobs = 0

    def submit(self, *args):
        self.jobs += 1
        return super().submit(*args)


def test_at_most_two_batches_are_read_ahead(images, predictor):
    with CountingPool() as pool:
        batches = predict_images(predictor, Footage(images[0].parent), 2, pool)
        assert pool.jobs == 0
        next(batches)
        assert pool.jobs == 2 + 2 * 2
        next(batches)
        assert pool.jobs == 4 + 2 * 2


def test_the_images_before_a_broken_image_are_predicted(images, predictor):
    images[6].write_bytes(b"no image")
    with ThreadPoolExecutor() as pool:
        batches = predict_images(predictor, Footage(images[0].parent), 4, pool)
        seen = [frame.label for batch in (next(batches), next(batches)) for frame in batch]
        assert seen == list(map(str, images[:6]))
        with pytest.raises(DataError, match=r"6\.png cannot be read"):
            next(batches)

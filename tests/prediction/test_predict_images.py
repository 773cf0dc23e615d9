"""prediction.py: loaded only when there is something to predict; images read ahead, in batches."""
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import ROOT
from PIL import Image

from datasets.footage import Footage
from networks import Monodepth2
from prediction.images import predict_images
from runtime.errors import DataError

SCRIPTS = ("train", "evaluate_depth", "evaluate_pose", "test_simple", "export_gt_depth",
           "prepare_data", "export_onnx")
HEAVY = {"torch", "torchvision", "tensorboardX", "cv2", "PIL", "matplotlib"}


def run_python(*words):
    """Run Python; return its exit status and the top names of all that it imported."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], cwd=ROOT, text=True,
                          capture_output=True)
    assert "Traceback" not in done.stderr
    return done.returncode, {line.rpartition("|")[2].strip().partition(".")[0]
                             for line in done.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("flag", "status"), [("-h", 0), ("--no_such_flag", 2)])
def test_a_command_line_is_answered_without_importing_torch(script, flag, status):
    found, imported = run_python(f"{script}.py", flag)
    assert found == status
    assert {"argparse", "options"} <= imported
    assert imported & HEAVY == set()


def test_the_names_of_monodepth2s_evaluation_are_imported_without_torch():
    status, imported = run_python("-c", """
from evaluate_depth import STEREO_SCALE_FACTOR, batch_post_process_disparity, compute_errors
from evaluate_pose import compute_ate, dump_xyz
""")
    assert status == 0
    assert imported & HEAVY == set()


@pytest.fixture
def images(tmp_path):
    """Nine images of as many sizes and colours."""
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for i, path in enumerate(paths):
        Image.new("RGB", (100 + 10 * i, 80 - 3 * i), (25 * i, 90, 255 - 25 * i)).save(path)
    return paths


@pytest.fixture
def model():
    return Monodepth2(frame_ids=[0]).eval()


def test_images_come_in_their_order_with_their_own_size_and_disparity(images, model):
    with ThreadPoolExecutor() as pool:
        batches = list(predict_images(model, Footage(images[0].parent), 64, 96, 4, pool))
    assert [len(batch) for batch in batches] == [4, 4, 1]
    frames = [frame for batch in batches for frame in batch]
    assert [frame.label for frame in frames] == list(map(str, images))
    for frame in frames:
        with Image.open(frame.label) as image:
            assert frame.image.shape == (3, image.height, image.width)
            pixels = torch.tensor(image.getpixel((0, 0))).float() / 255
        with torch.no_grad():
            expected = model.disparity(pixels[None, :, None, None].expand(1, 3, 64, 96))
        torch.testing.assert_close(frame.disp, expected, atol=1e-5, rtol=0)


class CountingPool(ThreadPoolExecutor):
    """A pool that counts what it was asked to do."""

    asked = 0

    def submit(self, *args):
        self.asked += 1
        return super().submit(*args)


def test_no_more_than_two_batches_are_read_ahead(images, model):
    with CountingPool() as pool:
        batches = predict_images(model, Footage(images[0].parent), 64, 96, 2, pool)
        assert pool.asked == 0
        next(batches)
        assert pool.asked == 2 + 2 * 2
        next(batches)
        assert pool.asked == 4 + 2 * 2


def test_the_images_before_a_broken_one_are_predicted(images, model):
    images[6].write_bytes(b"no image")
    with ThreadPoolExecutor() as pool:
        batches = predict_images(model, Footage(images[0].parent), 64, 96, 4, pool)
        seen = [frame.label for batch in (next(batches), next(batches)) for frame in batch]
        assert seen == list(map(str, images[:6]))
        with pytest.raises(DataError, match=r"6\.png cannot be read"):
            next(batches)

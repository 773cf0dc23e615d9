"""The page of app.py, with a real server: asked by gradio's client, and used in a real browser."""
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pytest
from chromium import needs_chromium
from conftest import HEIGHT, ROOT, WIDTH, filled_weights, one_line
from devtools import open_tab
from PIL import Image

from datasets.footage import Footage
from prediction.predictor import Predictor
from prediction.video import VideoFile
from prediction.write import colorize

has_packages = all(importlib.util.find_spec(name) for name in ("gradio", "trimesh"))
pytestmark = pytest.mark.skipif(not has_packages,
                                reason="needs pip install -r requirements-app.txt")
FIELD = (0,)                # field of view: automatic
COLOURS = ("magma", 0, 0)   # colour map, nearest and farthest colour: automatic

# What the 3-D viewer says without a GPU, and where a surface follows another one at once
HARMLESS = ("WebGPU", "New model is being loaded before previous")


def draw(path, height, width):
    """Write a smooth picture in colour."""
    pixels = np.random.randint(0, 255, (6, 12, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC))
    return path


class Page:
    """A running app.py, and a client of it."""

    def __init__(self, folder: Path):
        from gradio_client import Client
        self.folder, self.temporary = folder, folder / "tmp"
        self.weights = filled_weights(folder / "weights")
        for name in (folder / "examples", self.temporary):
            name.mkdir()
        draw(folder / "examples/first.jpg", 64, 208)
        self.image = draw(folder / "street.png", 75, 248)
        self.process = subprocess.Popen(
            [sys.executable, "app.py", "--load_weights_folder", self.weights, "--examples",
             folder / "examples", "--no_cuda"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            env=os.environ | {"TMPDIR": str(self.temporary)})
        self.line = self.process.stdout.readline()
        self.url = self.line.split()[0]
        self.client = Client(self.url, verbose=False, download_files=str(folder / "downloads"),
                             analytics_enabled=False)

    def ask(self, api, path, *values):
        """Upload a file, and return the answer."""
        from gradio_client import handle_file
        return self.client.predict(handle_file(path), *values, api_name=f"/{api}")

    def refusal(self, api, path, *values):
        """Return the sentence that the page shows for a file."""
        from gradio_client.exceptions import AppError
        with pytest.raises(AppError) as error:
            self.ask(api, path, *values)
        return str(error.value)

    @cached_property
    def predictor(self):
        """The network of the page."""
        return Predictor(self.weights)

    @cached_property
    def depth(self):
        """What `Predictor` predicts for the image of the tests, (H, W)."""
        return self.predictor.predict(np.array(Image.open(self.image))).depth[0, 0].numpy()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    running = Page(tmp_path_factory.mktemp("page"))
    yield running
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    assert list(running.temporary.iterdir()) == []  # nothing of its visitors is left


def test_files_of_an_image_have_the_predictors_depth(page):
    depth = page.depth
    npy, png, ply = (Path(page.ask(kind, page.image, *FIELD)) for kind in ("depth", "png", "ply"))
    assert (npy.name, png.name, ply.name) == ("street_depth.npy", "street_depth.png",
                                              "street_cloud.ply")
    np.testing.assert_allclose(np.load(npy)[0, 0], depth, rtol=1e-6)
    values = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
    assert values.dtype == np.uint16
    np.testing.assert_allclose(values / 256, depth.clip(0, 255.99), atol=1 / 256)
    assert f"element vertex {75 * 248}".encode() in ply.read_bytes()


def test_pictures_and_numbers_of_an_image_are_the_predictors(page):
    painted, (left, right), shown = page.ask("pictures", page.image, *COLOURS)
    expected = colorize(1 / page.depth)  # of any linear function of disparity
    assert np.abs(np.array(Image.open(painted)).astype(int) - expected).max() <= 8  # rounding
    np.testing.assert_array_equal(np.array(Image.open(left)), np.array(Image.open(page.image)))
    assert Path(right).read_bytes() == Path(painted).read_bytes()
    assert shown["words"].startswith("street.png: 248x75 pixels, depth from ")
    assert shown["words"].endswith(" metres")
    assert (shown["shape"], shown["unit"]) == ([HEIGHT, WIDTH], "metres")


def test_colour_map_and_range_change_the_picture(page):
    def paint(*colours):
        return np.array(Image.open(page.ask("pictures", page.image, *colours)[0]))
    depth = page.depth
    near, far = np.percentile(depth, (30, 60)).tolist()
    automatic, limited = paint("turbo", 0, 0), paint("turbo", near, far)
    assert (automatic != paint(*COLOURS)).any()
    first, last = (colorize(np.array([[0.0, 1.0]]), (0, 1), "turbo")[0])
    assert (limited[depth > 1.01 * far] == first).all()
    assert (limited[depth < 0.99 * near] == last).all()
    assert page.refusal("pictures", page.image, "turbo", far, near) == (
        "the nearest depth of the colours is not below the farthest; change one of them")


def test_the_surface_has_the_depths_and_colours_of_the_image(page):
    import trimesh
    path = page.ask("surface", page.image, *FIELD)["value"]
    mesh = trimesh.load(path, force="mesh")
    depth = page.depth
    assert -mesh.vertices[:, 2].max() == pytest.approx(depth.min(), rel=0.05)
    assert -mesh.vertices[:, 2].min() < 4 * np.median(depth) * 1.01
    assert mesh.visual.material.emissiveTexture is not None


def test_a_short_video_becomes_a_video_beside_its_disparity(page):
    path = page.folder / "ride.mp4"
    with VideoFile(path, 5) as file:
        for shift in range(10):
            file.write(np.roll(np.array(Image.open(page.image))[:74], shift, 1))
    (still, *others) = Footage(page.ask("video", path, *COLOURS))
    assert len(others) == 9
    assert still.read().shape == (3, 74, 2 * 248)


def test_a_file_that_cannot_be_predicted_gets_one_sentence(page):
    broken, photo = page.folder / "page.jpg", page.folder / "photo.png"
    broken.write_text("<html>")
    Image.new("1", (9000, 9000)).save(photo)
    for api, values in (("pictures", COLOURS), ("surface", FIELD), ("depth", FIELD)):
        assert page.refusal(api, broken, *values) == (
            "page.jpg cannot be read as an image: it is a web page or another text; download the "
            "image again")
        assert page.refusal(api, photo, *values) == (
            "photo.png cannot be read as an image: 9000x9000 pixels are more than the 64,000,000 "
            "that an image may have")
    assert page.refusal("video", photo, *COLOURS) == (
        "photo.png is not a video; give a file such as .mp4")
    fake = broken.rename(page.folder / "fake.mp4")
    assert page.refusal("video", fake, *COLOURS).startswith("fake.mp4 cannot be read as a video")


def test_a_video_of_more_than_a_minute_gets_one_sentence(page):
    path = page.folder / "long.mp4"
    with VideoFile(path, 1) as file:
        for _ in range(62):
            file.write(np.zeros((64, 96, 3), np.uint8))
    assert page.refusal("video", path, *COLOURS) == (
        "long.mp4 is longer than 60 seconds; cut it, or predict it with test_simple.py "
        "--image_path")


def test_only_this_machine_reaches_the_page(page):
    port = int(page.url.rstrip("/").rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), 5).close()
    with pytest.raises(OSError, match="refused"):  # a server on all addresses would answer
        socket.create_connection(("127.0.0.2", port), 5)


@needs_chromium
def test_a_browser_shows_an_upload_and_the_depth_under_the_pointer(page, tmp_path):
    with open_tab(page.url, tmp_path) as tab:
        words = "document.querySelector('.depth p')?.textContent"
        tab.wait(f"{words}?.startsWith('first.jpg: 208x64 pixels')")  # the example, at the start
        tab.wait("document.querySelector('canvas')?.width > 0")
        text = tab.run("document.body.innerText")
        for label in ("Image", "Video", "Colour map", "Nearest colour, metres", "Field of view",
                      "Wipe between image and disparity", "Depth as .npy", "16-bit .png", ".ply"):
            assert label in text
        tab.run("document.querySelector('[aria-label=\"Remove Image\"]')?.click()")
        tab.upload("input[type=file]", page.image)
        tab.wait(f"{words}?.startsWith('street.png: 248x75 pixels')")
        box = tab.wait("""(() => {
            const images = [...document.querySelectorAll('.picture img')];
            const box = images[1].getBoundingClientRect();
            return images[1].naturalWidth == 248 && [box.x, box.y, box.width, box.height];
        })()""")
        tab.move(box[0] + 100.5 / 248 * box[2], box[1] + box[3] / 2)  # the centre of a pixel
        number, unit = tab.wait("document.querySelector('.depth output').textContent").split()
        assert (float(number), unit) == (pytest.approx(page.depth[37, 100], rel=6e-3), "metres")
        tab.wait("document.querySelector('canvas')?.width > 0")
        tab.download_to(tmp_path)
        tab.run("[...document.querySelectorAll('button')].find("
                "each => each.textContent.includes('.npy')).click()")
        tab.wait_for(lambda: (tmp_path / "street_depth.npy").is_file())
        assert np.load(tmp_path / "street_depth.npy").shape == (1, 1, 75, 248)
        picture = tab.picture()
        assert len({tuple(colour) for colour in picture[::8, ::8].reshape(-1, 3).tolist()}) > 200
        assert {url.partition(":")[0] for url in tab.requests} <= {"http", "data", "blob"}
        assert all(page.url in url for url in tab.requests if url.startswith(("http", "blob")))
        broken = page.folder / "broken.jpg"
        broken.write_text("<html>")
        tab.run("document.querySelector('[aria-label=\"Remove Image\"]').click()")
        tab.wait("!document.querySelector('canvas')")  # the page is empty again
        tab.upload("input[type=file]", broken)
        tab.wait("document.body.innerText.includes('broken.jpg cannot be read as an image')")
        assert tab.run("document.body.innerText.match(/cannot be read/g).length") == 1
        assert [error for error in tab.errors if not any(map(error.count, HARMLESS))] == []
        tab.run("fetch('http://127.0.0.2/').catch(() => 0)")
        assert "Content Security Policy" in tab.errors[-1]  # no other server can be asked


def test_an_address_in_use_and_a_missing_package_get_one_line(page, script, monkeypatch):
    port = page.url.rstrip("/").rpartition(":")[2]
    flags = "--load_weights_folder", page.weights, "--no_cuda", "--port", port
    assert f"127.0.0.1 with port {port} cannot be listened on: it is taken" in one_line(
        script("app", *flags), 2)
    monkeypatch.setitem(sys.modules, "gradio", None)  # Python's own way to forbid an import
    assert "pip install -r requirements-app.txt" in one_line(script("app", *flags), 1)

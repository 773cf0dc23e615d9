"""Videos are written whole or not at all."""
import html
import json
import os
import re
import subprocess
import sys
from base64 import b64encode

import av
import numpy as np
import pytest
from chromium import needs_chromium, open_page
from conftest import ROOT
from PIL import Image

from datasets.footage import Footage
from prediction.video import VideoFile
from runtime.errors import DataError
from synthetic.render import TRAIN


@pytest.fixture(scope="session")
def frames(drive):
    """Return sixteen frames of the drive, (64, 96, 3) uint8."""
    paths = sorted((drive / TRAIN / "image_02/data").glob("*.jpg"))[:16]
    return [np.array(Image.open(path)) for path in paths]


def test_an_odd_size_loses_its_last_row_and_column(tmp_path):
    with VideoFile(tmp_path / "odd.mp4", 5) as file:
        file.write(np.zeros((65, 97, 3), np.uint8))
    (still,) = Footage(tmp_path / "odd.mp4")
    assert still.read().shape == (3, 64, 96)


def test_a_video_gets_its_name_when_it_is_complete(tmp_path, frames):
    def stop_halfway():
        with VideoFile(tmp_path / "half.mp4", 10) as file:
            file.write(frames[0])
            assert not (tmp_path / "half.mp4").exists()
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert list(tmp_path.iterdir()) == []
    with VideoFile(tmp_path / "sizes.mp4", 10) as file:
        file.write(frames[0])
        with pytest.raises(DataError, match="has 48x64 pixels, the first 96x64; all frames"):
            file.write(frames[0][:, :48])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be created"), VideoFile(
            tmp_path / "file/video.mp4", 10) as file:
        file.write(frames[0])


COLOURS = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 40, 90), (20, 150, 60), (30, 60, 220)]


@pytest.mark.parametrize("height", [64, 720])
def test_flat_colours_survive_within_3_levels(tmp_path, height):
    with VideoFile(tmp_path / "flat.mp4", 10) as file:
        for colour in COLOURS:
            file.write(np.full((height, 96, 3), colour, np.uint8))
    for still, colour in zip(Footage(tmp_path / "flat.mp4"), COLOURS, strict=True):
        difference = still.read().transpose(1, 2, 0).astype(int) - colour
        assert np.abs(difference).max() <= 3


def test_frames_keep_their_times_and_the_file_its_duration(tmp_path, frames):
    times = [0, 0.1, 0.15, 0.5, 0.51, 1.3]
    with VideoFile(tmp_path / "variable.mp4", 20) as file:
        for frame, time in zip(frames, times, strict=False):
            file.write(frame, time)
    assert [still.time for still in Footage(file.path)] == pytest.approx(times, abs=1e-4)
    with av.open(file.path) as container:
        assert container.duration == pytest.approx(1.35e6, abs=2000)


def test_a_video_is_h264_with_its_index_in_front(tmp_path, frames):
    with VideoFile(tmp_path / "a.mp4", 20) as file:
        file.write(frames[0])
    content = file.path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(file.path) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, limited


PAGE = """<!DOCTYPE html><body><video muted src="data:video/mp4;base64,{}"></video><script>
const video = document.querySelector("video"), found = {{}};
const done = () => {{ document.body.dataset.found = JSON.stringify(found); clearInterval(busy); }};
// the browser's clock runs as fast as the page is idle, and the decoder needs time of the wall
const busy = setInterval(() => {{ for (let i = 0; i < 3e6; i++); }}, 1);
video.onerror = () => {{ found.error = video.error.message; done(); }};
video.onloadeddata = () => {{ found.duration = video.duration; }};
video.requestVideoFrameCallback(() => {{
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  found.size = [canvas.width, canvas.height];
  found.colours = [24, 72].map(x => [...context.getImageData(x, 32, 1, 1).data].slice(0, 3));
  video.play();
}});
video.onended = () => {{ found.end = video.currentTime; done(); }};
</script></body>"""


@needs_chromium
def test_a_browser_plays_the_video_in_its_colours(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :48], image[:, 48:] = COLOURS[3:5]
    with VideoFile(tmp_path / "a.mp4", 20) as file:
        for _ in range(16):
            file.write(image)
            image = 255 - image
    (tmp_path / "page.html").write_text(PAGE.format(b64encode(file.path.read_bytes()).decode()))
    page = open_page(tmp_path / "page.html", seconds=40)
    found = json.loads(html.unescape(re.search(r'data-found="([^"]*)"', page.dom)[1]))
    assert found["size"] == [96, 64]
    assert [found["duration"], found["end"]] == pytest.approx([0.8, 0.8], abs=0.01)
    assert np.abs(np.array(found["colours"]) - COLOURS[3:5]).max() <= 4  # of the first frame


FULL_DISK = """
import resource, sys
import numpy as np
from pathlib import Path
from prediction.video import VideoFile
from runtime.errors import run

def main():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000,) * 2)
    with VideoFile(Path(sys.argv[1]), 10) as file:
        for _ in range(50):
            file.write(np.random.randint(0, 255, (64, 96, 3), np.uint8))

run(main)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs limits of files")
def test_a_video_that_fills_the_disk_is_deleted(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "video.mp4"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert re.search(r"video\.mp4 cannot be written: File too large; raise the limit", done.stderr)
    assert list(tmp_path.iterdir()) == []


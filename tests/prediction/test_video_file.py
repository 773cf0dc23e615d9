"""Videos are written whole or not at all."""
import os
import re
import subprocess
import sys

import numpy as np
import pytest
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
    assert re.search(r"video\.mp4 cannot be written: \d+ of 50 frames are in the file", done.stderr)
    assert list(tmp_path.iterdir()) == []


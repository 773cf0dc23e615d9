"""Open a page in a headless Chromium: its DOM after scripts ran, a picture, its console."""
from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
CONSOLE = re.compile(r":CONSOLE[:(].*")  # what a page logs, and what its policy refuses

needs_chromium = pytest.mark.skipif(
    PROGRAM is None, reason="needs Chromium, a package of most systems: apt-get install chromium")


class Page(NamedTuple):
    """What a browser made of a page.

    Attributes:
        dom: the document as HTML, after its scripts ran.
        picture: (height, width, 3) uint8 RGB, the window.
        console: lines that the page logged, errors included.
    """

    dom: str
    picture: np.ndarray
    console: list[str]


def open_page(path: Path, width: int = 1200, height: int = 1000, seconds: float = 2,
              dark: bool = False) -> Page:
    """Open a file in a window of this size, and let its scripts run for some seconds of its clock.

    Args:
        path: of the HTML file.
        width: of the window, pixels.
        height: of the window, pixels.
        seconds: of virtual time, which passes as fast as the page allows.
        dark: whether the reader prefers dark colours.
    """
    with tempfile.TemporaryDirectory(prefix="chromium") as folder:  # a profile of its own
        shot = Path(folder, "shot.png")
        done = subprocess.run(
            [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--hide-scrollbars", f"--user-data-dir={folder}/profile",
             f"--window-size={width},{height}", "--force-device-scale-factor=1",
             f"--virtual-time-budget={int(1000 * seconds)}", "--enable-logging=stderr",
             *(["--force-dark-mode"] if dark else []),
             f"--screenshot={shot}", "--dump-dom", path.resolve().as_uri()],
            capture_output=True, text=True, timeout=120)
        assert shot.is_file(), done.stderr
        return Page(done.stdout, cv2.imread(str(shot))[..., ::-1],
                    CONSOLE.findall(done.stderr))

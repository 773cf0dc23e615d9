"""Drive a headless Chromium by its DevTools protocol, over a pipe: no driver is installed."""
from __future__ import annotations

import base64
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from chromium import PROGRAM

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run",
         "--disable-background-networking", "--force-device-scale-factor=1",
         "--remote-debugging-pipe")
PATIENCE = 60  # seconds to wait for anything


class Tab:
    """Open a page, and read, click and look at it.

    Attributes:
        requests: URLs that the page has asked for.
        errors: exceptions of its scripts, and errors in its console.
    """

    def __init__(self, read: int, write: int):
        self._read, self._write, self._rest, self._number = read, write, b"", 0
        self._session: dict[str, str] = {}
        self.requests, self.errors = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        """Send a command, and return its result; events before it are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer.get("method"), answer.get("params", {}))
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], PATIENCE)[0], "the browser hangs"
            received = os.read(self._read, 1 << 20)
            assert received, "the browser has ended"
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, method: str, params: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown" or (
                method == "Runtime.consoleAPICalled" and params["type"] == "error") or (
                method == "Log.entryAdded" and params["entry"]["level"] == "error"):
            self.errors.append(json.dumps(params)[:2000])

    def close(self) -> None:
        """Close the browser with all its processes."""
        self._session = {}
        self.call("Browser.close")

    def run(self, script: str) -> object:
        """Return the value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True,
                         awaitPromise=True)["result"].get("value")

    def wait(self, script: str) -> object:
        """Return the first true value of a JavaScript expression."""
        return self.wait_for(lambda: self.run(script))

    def wait_for(self, check: Callable[[], object]) -> object:
        """Return the first true value of a function, while the page goes on."""
        end = time.monotonic() + PATIENCE
        while not (value := check()):
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.1)
        return value

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file in an <input type="file">."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def download_to(self, folder: Path) -> None:
        """Save what the page downloads in a folder."""
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def move(self, x: float, y: float) -> None:
        """Move the pointer, in pixels of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self) -> np.ndarray:
        """Return the window as (height, width, 3) uint8 RGB."""
        png = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@contextmanager
def open_tab(url: str, profile: Path, width: int = 1300, height: int = 1100) -> Iterator[Tab]:
    """Start a browser with one page; close it at the end.

    Args:
        url: of the page.
        profile: a folder for the browser's own files.
        width: of the window, pixels.
        height: of the window, pixels.
    """
    # the browser reads commands from 3, and writes answers to 4
    (commands, write), (read, answers) = os.pipe(), os.pipe()
    words = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
    browser = os.posix_spawn(PROGRAM, words, os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, commands, 3), (os.POSIX_SPAWN_DUP2, answers, 4),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)])
    os.close(commands)
    os.close(answers)
    tab = Tab(read, write)
    try:
        tab.call("Page.navigate", url=url)
        yield tab
    finally:
        tab.close()
        os.waitpid(browser, 0)
        os.close(read)
        os.close(write)

"""Folders of images with other files among them; split lists."""
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.odd_files.base import HELD_OUT, picture
from tests.odd_files.images import TO_DISP
from tests.odd_files.situation import Situation, base

FOLDER = TO_DISP + "d --ext "


def folder(*names: str, more: Callable[[], object] = lambda: None) -> Callable[[], list[str]]:
    """Return a builder of a folder d of pictures; its value are the stems of their outputs."""
    def build() -> list[str]:
        for name in names:
            path = Path("d", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            picture().save(path)
        Path("d").mkdir(exist_ok=True)
        more()
        return sorted(Path(name).stem for name in names)
    return build


def are_predicted(stems: list[str], _: str) -> bool:
    """Return whether exactly these images were predicted."""
    return sorted(p.name.removesuffix("_disp.npy") for p in Path("out").iterdir()) == stems


def are_predicted_or_named(stems: list[str], printed: str) -> bool:
    """Return whether all images were predicted, or the others are named."""
    found = {p.name.removesuffix("_disp.npy") for p in Path("out").iterdir()}
    return all(stem in found or stem in printed or "left out" in printed for stem in stems)


def in_d(name: str, data: bytes = b"junk") -> Callable[[], object]:
    return lambda: Path("d", name).write_bytes(data)


def beside(words: str, ext: str, build: Callable[[], object],
           right: Callable[[object, str], bool] = are_predicted) -> Situation:
    return Situation(f"folder: {words}", FOLDER + ext, build, None, right)


SITUATIONS = [
    beside("._ files of macOS", "png", folder("1.png", "2.png", more=in_d("._1.png"))),
    beside("a hidden image", "png", folder("1.png", more=in_d(".2.png"))),
    beside("Thumbs.db, .DS_Store, desktop.ini", "png",
           folder("1.png", more=lambda: [in_d(n)() for n in ("Thumbs.db", ".DS_Store",
                                                             "desktop.ini")])),
    beside("a folder named 2.png", "png", folder("1.png", more=lambda: Path("d/2.png").mkdir())),
    beside("1, 2, 10: natural order", "png", folder("1.png", "10.png", "2.png")),
    Situation("folder: .JPG, .jpeg and .Jpg", FOLDER + "jpg", folder("1.JPG", "2.jpeg", "3.Jpg"),
              r"d has no \*\.jpg; it has \.JPG, \.Jpg, \.jpeg", are_predicted),
    beside("the extension in capitals, with a dot", ".PNG", folder("1.png", "2.PNG"),
           are_predicted_or_named),
    beside("a photo named night_depth.png", "png", folder("1.png", "night_depth.png"),
           are_predicted_or_named),
    Situation("folder: only hidden files", FOLDER + "png", folder(more=in_d(".1.png")), "d has no"),
    Situation("folder: 1 and its link loop", FOLDER + "png",
              folder("1.png", more=lambda: os.symlink("2.png", "d/2.png")), "2.png",
              are_predicted_or_named),
    Situation("folder: a pipe among the images", FOLDER + "png",
              folder("1.png", more=lambda: os.mkfifo("d/2.png")), "2.png", are_predicted_or_named),
    Situation("folder: a broken image among good ones", FOLDER + "png",
              folder("1.png", more=in_d("2.png")), "2.png"),
]

PREDICT = ("evaluate_depth --eval_mono --no_eval --save_pred_disps --num_workers 0 --eval_split s "
           "--eval_out_dir out --data_path {base}/drive --load_weights_folder {base}/w")


def split(data: str | bytes) -> Callable[[], None]:
    """Return a builder of the split folder s."""
    def build() -> None:
        Path("s").mkdir()
        Path("s/test_files.txt").write_bytes(data if isinstance(data, bytes) else data.encode())
    return build


def has_frames(*frames: int) -> Callable[[object, str], bool]:
    """Return a check that the disparities of these frames of the drive were written."""
    def check(_: object, __: str) -> bool:
        from datasets.images import read_image
        from tests.odd_files.situation import disparity_of
        paths = [base() / f"drive/{HELD_OUT}/image_02/data/{i:010d}.jpg" for i in frames]
        expected = [disparity_of(read_image(path).permute(1, 2, 0).numpy()) for path in paths]
        found = np.load(next(Path("out").glob("disps_*.npy")))
        return found.shape[0] == len(frames) and np.allclose(found, expected, rtol=1e-4)
    return check


def lists(words: str, data: str | bytes, frames: tuple[int, ...] = (),
          refused: str | None = None) -> Situation:
    return Situation(f"split list: {words}", PREDICT, split(data), refused,
                     has_frames(*frames) if frames else None)


L = HELD_OUT
BACKSLASH = L.replace("/", "\\")
SITUATIONS += [
    lists("tabs", f"{L}\t4\tl\n{L}\t5\tl\n", (4, 5)),
    lists("trailing spaces", f"{L} 4 l   \n  {L} 5 l\t\n", (4, 5)),
    lists("a duplicate line", f"{L} 4 l\n{L} 4 l\n", (4, 4)),
    lists("ends of lines of Windows", f"{L} 4 l\r\n{L} 5 l\r\n", (4, 5)),
    lists("ends of lines of old Macs", f"{L} 4 l\r{L} 5 l\r", (4, 5)),
    lists("sides in capitals", f"{L} 4 L\n", (4,), r"test_files\.txt, line 1.*side"),
    lists("sides 2 and 02", f"{L} 4 2\n{L} 5 02\n", (), r"line 2.*side '02'"),
    lists("no side", f"{L} 4\n", (4,), r"line 1"),
    lists("empty", "", (), r"test_files\.txt.*no frames"),
    lists("only comments and blank lines", "# a\n\n  \n", (), r"test_files\.txt.*no frames"),
    lists("BOM", b"\xef\xbb\xbf" + f"{L} 4 l\n".encode(), (4,)),
    lists("UTF-16", f"{L} 4 l\n".encode("utf-16"), (4,), r"test_files\.txt.*UTF-"),
    lists("backslashes", f"{BACKSLASH} 4 l\n", (4,), r"line 1.*(write /|use /|backslash)"),
    lists("blank lines at the end", f"{L} 4 l\n\n\r\n \n", (4,)),
    lists("no end of the last line", f"{L} 4 l", (4,)),
    lists("zeros before the frame", f"{L} 0000000004 l\n", (4,)),
    lists("a zero byte", f"{L} 4 l\n\0\n".encode(), (), r"test_files\.txt"),
    lists("letters of Latin-1", "d\xe9j\xe0 4 l\n".encode("latin-1"), (), r"test_files\.txt"),
    lists("a frame of -1", f"{L} -1 l\n", (), "line 1.*'-1'"),
    lists("a frame of 4.0", f"{L} 4.0 l\n", (), "line 1.*'4.0'"),
    lists("a frame that is missing", f"{L} 4 l\n{L} 999 l\n", (), "0000000999"),
    lists("commas", f"{L},4,l\n", (), "line 1"),
    lists("a folder above", f"../{L} 4 l\n", (), "line 1.*below the data path"),
    lists("a path from the root", f"/{L} 4 l\n", (), "line 1.*below the data path"),
    lists("a descending range", f"{L} l: 7-4\n", (), "line 1.*7-4"),
    lists("a range of 99999999 frames", f"{L} l: 1-99999999\n", (), "line 1"),
    lists("another set of digits", f"{L} \u0664 l\n", (), "line 1"),
    Situation("split list: a folder named test_files.txt", PREDICT,
              lambda: Path("s/test_files.txt").mkdir(parents=True), r"test_files\.txt"),
    Situation("split: a file for its folder", PREDICT, lambda: Path("s").write_text(f"{L} 4 l\n"),
              r"s is a file"),
    Situation("opt.json of the weights is broken", PREDICT.replace("{base}/w", "m/w"),
              lambda: [split(f"{L} 4 l\n")(), Path("m").mkdir(),
                       os.symlink(base() / "w", "m/w"), Path("m/opt.json").write_text("{")],
              None, has_frames(4)),
    Situation("opt.json of the weights is a list of numbers", PREDICT.replace("{base}/w", "m/w"),
              lambda: [split(f"{L} 4 l\n")(), Path("m").mkdir(),
                       os.symlink(base() / "w", "m/w"),
                       Path("m/opt.json").write_text(json.dumps([1, 2]))], None, has_frames(4)),
]

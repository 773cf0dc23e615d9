"""Homes, streams, disks and links; programs that load the network with torch.hub."""
from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from tests.odd_files.base import picture
from tests.odd_files.situation import ROOT, Situation, base

SIMPLE = "test_simple --image_path odd.png --load_weights_folder {base}/w --output disp picture "
OUT = SIMPLE + "--output_dir out"
EVALUATE = ("evaluate_depth --eval_mono --num_workers 0 --data_path {base}/drive --eval_split "
            "{base}/split --load_weights_folder {base}/w ")


def drawn(name: str = "odd.png") -> Callable[[], None]:
    return lambda: picture().save(name)


def exist(*names: str) -> Callable[[object, str], bool]:
    """Return a check that files are there, and no folder named ~."""
    return lambda _, __: all(Path(name).exists() for name in names) and not Path("~").exists()


WRITTEN = exist("out/odd_disp.npy", "out/odd_disp.jpeg")


def at_home() -> None:
    """Make the working folder the home folder."""
    os.environ["HOME"] = os.getcwd()


def without_home() -> None:
    """Leave the process without HOME, and as a user without an entry in passwd."""
    os.environ.pop("HOME", None)
    os.environ.pop("TORCH_HOME", None)
    if os.getuid() == 0:
        os.setgid(54321)
        os.setuid(54321)


def ascii_output() -> None:
    sys.stdout.reconfigure(encoding="ascii")
    sys.stderr.reconfigure(encoding="ascii", errors="backslashreplace")


def full_output() -> None:
    """Connect stdout to a full disk."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def closed_errors() -> None:
    """Close stderr, as `2>&-` does."""
    os.close(2)
    sys.stderr = None


def small_files(size: int) -> Callable[[], None]:
    """Return a function that forbids files above a size, as a quota does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def at(words: str, command: str, right: Callable[[object, str], bool] | None = None,
       refused: str | None = None, build: Callable[[], object] | None = None,
       before: Callable[[], None] = lambda: None) -> Situation:
    return Situation(words, command, build or drawn(), refused, right, before)


def read_only() -> None:
    """Make a folder that the user 54321 cannot write to."""
    drawn()()
    Path("out").mkdir(mode=0o755)


def unreadable(name: str) -> Callable[[], None]:
    """Return a builder of a file that only its owner can read."""
    return lambda: [drawn(name)(), Path(name).chmod(0o600)]


def loop() -> None:
    """Make a picture, and a link to itself in place of the folder for output."""
    drawn()()
    os.symlink("out", "out")


def links() -> None:
    """Make links to a picture, to weights and to the folder for output."""
    Path("real").mkdir()
    picture().save("real/a.png")
    os.symlink("real/a.png", "odd.png")
    os.symlink(base() / "w", "w")
    os.symlink("real", "out")


SITUATIONS = [
    at("no HOME, no entry in passwd: predict", OUT, WRITTEN, before=without_home),
    at("no HOME, no entry in passwd: help of training", "train -h",
       lambda _, printed: "--log_dir" in printed, before=without_home),
    at("no HOME, no entry in passwd: training without --log_dir",
       "train --data_path {base}/drive --weights_init scratch", refused="--log_dir",
       before=without_home),
    at("no HOME, no entry in passwd: evaluate", EVALUATE + "--eval_out_dir out",
       exist("out/results_split_median.json"), before=without_home),
    at("no HOME, and ~ in a flag", SIMPLE + "--output_dir '~/o'", None, "~|HOME|home",
       before=without_home),
    at("~ in --output_dir=", SIMPLE + "'--output_dir=~/o'", exist("o/odd_disp.npy"),
       before=at_home),
    at("~ in --image_path", SIMPLE.replace("odd.png", "'~/odd.png'") + "--output_dir out", WRITTEN,
       before=at_home),
    at("~ in --eval_out_dir", EVALUATE + "'--eval_out_dir=~/e'",
       exist("e/results_split_median.json"), before=at_home),
    at("~ in --log_dir, --split and --data_path",
       "train '--log_dir=~/log' --data_path '~/drive' '--split=~/few' --height 64 "
       "--width 96 --weights_init scratch --num_workers 0 --num_epochs 1 --batch_size 2",
       exist("log/mdp/models/weights_0/depth.pth"),
       build=lambda: [os.symlink(base() / name, name) for name in ("drive", "few")],
       before=at_home),
    at("~ in --out of prepare_data check",
       "prepare_data check --data_path {base}/drive --split {base}/drive/splits/drive --height 64 "
       "--width 96 --num_workers 0 '--out=~/c.png'", exist("c.png"), before=at_home),
    at("~ in --output of export_onnx",
       "export_onnx --load_weights_folder {base}/w '--output=~/n.onnx'", exist("n.onnx"),
       before=at_home),
    at("~ of a user who does not exist", SIMPLE + "'--output_dir=~nobody9/o'",
       refused="~nobody9|output_dir", right=exist()),
    at("stdout in ASCII, a path with other letters", OUT.replace("odd.png", "ünï.png"),
       exist("out/ünï_disp.npy"), build=drawn("ünï.png"), before=ascii_output),
    at("stdout in ASCII, an error with other letters", OUT.replace("odd.png", "mïßing.png"),
       refused="ing.png", before=ascii_output),
    at("stdout on a full disk", OUT, None, "(output|stdout|standard).*|No space left",
       before=full_output),
    at("stderr closed", OUT, WRITTEN, before=closed_errors),
    at("a path of 300 letters: weights", OUT.replace("{base}/w", "y" * 300), None, "y{300}|long"),
    at("a path of 300 letters: output", SIMPLE + "--output_dir " + "y" * 300, None, "y{300}|long"),
    at("a path of 5000 letters: data", EVALUATE.replace("{base}/drive", "y/" * 2500), None,
       "--data_path"),
    at("a path of 300 letters: split", EVALUATE.replace("{base}/split", "y" * 300), None,
       "y{300}|long"),
    at("a path of 300 letters: image", OUT.replace("odd.png", "y" * 300 + ".png"), None,
       "y{300}|long"),
    at("a zero byte in a path", EVALUATE.replace("{base}/split", "a\udcffb"), None, "split"),
    at("a file for --data_path", EVALUATE.replace("{base}/drive", "odd.png"), None,
       r"--data_path odd\.png"),
    at("a link to itself for --output_dir", OUT, None, "--output_dir out", loop),
    at("links to everything", OUT.replace("{base}/w", "w"), WRITTEN, build=links),
    at("files limited to 1 kB", OUT, None, r"out/odd_disp.*", before=small_files(1000)),
    at("files limited to 10 kB: evaluation", EVALUATE + "--eval_out_dir out --save_pred_disps",
       None, "out/", before=small_files(10_000)),
]
if os.getuid() == 0:  # as another user, who owns nothing here
    SITUATIONS += [
        at("an output folder that is not writable", OUT, None, "out.*[Pp]ermission", read_only,
           without_home),
        at("an image that is not readable", OUT, None, r"odd\.png.*[Pp]ermission",
           unreadable("odd.png"), without_home),
        at("a weights folder that is not writable, and no --eval_out_dir", EVALUATE, None,
           "/w.*[Pp]ermission", lambda: None, without_home),
    ]

HUB = f"""import sys
import torch
model = torch.hub.load({str(ROOT)!r}, "monodepth2", source="local", weights=sys.argv[1])
assert model.predict(torch.rand(3, 70, 90)).disp.shape == (1, 1, 70, 90)
"""


def program(after: str = "", first: str = "", **files: str) -> Callable[[], None]:
    """Return a builder of a user's program with modules of his own."""
    def build() -> None:
        for name, code in files.items():
            path = Path(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
        Path("program.py").write_text(first + HUB + after)
    return build


MINE = "import utils.mine, datasets\nassert (utils.mine.x, datasets.y) == (1, 2)\n"
SITUATIONS += [
    Situation(f"torch.hub: {words}", "program.py {base}/w", build, None, lambda *_: True)
    for words, build in (
        ("utils without __init__.py and a datasets.py, imported before",
         program(first=MINE, utils__mine="x = 1\n", datasets="y = 2\n")),
        ("the same, imported after",
         program(after=MINE, utils__mine="x = 1\n", datasets="y = 2\n")),
        ("a networks.py that raises", program(networks="raise RuntimeError\n")),
        ("layers set to None", program(first="import sys\nsys.modules['layers'] = None\n")),
        ("an import hook of the program", program(
            first="import builtins\nplain = builtins.__import__\n"
                  "builtins.__import__ = lambda *a, **k: plain(*a, **k)\n")),
        ("loaded in a thread", program(after="from threading import Thread\nt = Thread(target="
                                       "lambda: exec(HUB)); t.start(); t.join()\n",
                                       first="HUB = ''\n")))
]

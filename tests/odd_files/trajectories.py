"""Trajectories, true poses and times, evaluated by evaluate_pose.py."""
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.odd_files.base import save_npy
from tests.odd_files.situation import Situation, base

FLAGS = "evaluate_pose --num_workers 0 --sequences 9 --eval_out_dir out --data_path "
ESTIMATE = FLAGS + "{base}/drive --alignment none --ext_poses_to_eval poses.txt"
POSES = FLAGS + "d --ext_poses_to_eval {base}/drive/poses/09.txt"
PREDICTED = FLAGS + "d --load_weights_folder {base}/wp"


def true_rows() -> list[list[float]]:
    """Return the 12 numbers of each true pose."""
    return np.loadtxt(base() / "drive/poses/09.txt").tolist()


def text(rows: list[list[float]], between: str = " ", end: str = "\n") -> str:
    return "".join(between.join(f"{value:.9e}" for value in row) + end for row in rows)


def is_exact(_: object, __: str) -> bool:
    """Return whether the trajectory that was read is the true one."""
    return json.loads(Path("out/trajectory_09.json").read_text())["ate"] < 1e-5


def estimate(words: str, change: Callable[[list], str | bytes], refused: str | None = None,
             right: Callable[[object, str], bool] | None = None) -> Situation:
    """Return the situation of a trajectory file made from the true rows."""
    def build() -> None:
        data = change(true_rows())
        Path("poses.txt").write_bytes(data if isinstance(data, bytes) else data.encode())
    return Situation(f"trajectory: {words}", ESTIMATE, build, refused, right)


def accepted(words: str, change: Callable[[list], str | bytes],
             refused: str | None = None) -> Situation:
    return estimate(words, change, refused, is_exact)


def tum(rows: list) -> str:
    """Return the rows as TUM's format at KITTI's rate of 10 a second."""
    from metrics.trajectory import tum_text
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = np.reshape(rows, (-1, 3, 4))
    return "# timestamp tx ty tz qx qy qz qw\n" + tum_text(np.arange(len(rows)) / 10, poses)


def mirrored(rows: list) -> str:
    """Return rows whose rotations mirror."""
    return text([[*row[:8], *(-value for value in row[8:11]), row[11]] for row in rows])


TXT = r"poses\.txt"
SITUATIONS = [
    estimate("11 numbers a line", lambda r: text([row[:11] for row in r]), f"{TXT}, line 1.*11"),
    estimate("13 numbers, frames that repeat", lambda r: text([[0, *row] for row in r]),
             f"{TXT}, line 2"),
    accepted("13 numbers, with frames", lambda r: text([[i, *row] for i, row in enumerate(r)])),
    accepted("16 numbers, a 4 x 4 pose", lambda r: text([[*row, 0, 0, 0, 1] for row in r]),
             f"{TXT}, line 1.*16"),
    accepted("exponents with D", lambda r: text(r).replace("e", "D"), f"{TXT}, line 1"),
    accepted("commas", lambda r: text(r, ", "), f"{TXT}, line 1"),
    estimate("commas for points", lambda r: text(r).replace(".", ","), f"{TXT}, line 1"),
    accepted("comments", lambda r: "# frame\n" + text(r[:3]) + "# middle\n" + text(r[3:])),
    accepted("comments that are indented", lambda r: "  # frame\n" + text(r), f"{TXT}, line 1"),
    accepted("tabs and ends of lines of Windows", lambda r: text(r, "\t", "\r\n")),
    accepted("trailing spaces, blank lines at the end", lambda r: text(r, "  ", "  \n") + "\n\n"),
    accepted("BOM", lambda r: b"\xef\xbb\xbf" + text(r).encode()),
    accepted("UTF-16", lambda r: text(r).encode("utf-16"), f"{TXT}.*UTF-"),
    accepted("TUM's format", tum, f"{TXT}.*TUM"),
    accepted("the last line without its end", lambda r: text(r).rstrip("\n")),
    estimate("one line cut off", lambda r: text(r)[:-60], f"{TXT}, line"),
    estimate("NaN", lambda r: text([*r[:3], [float("nan"), *r[3][1:]], *r[4:]]), f"{TXT}, line 4"),
    estimate("1e400", lambda r: text(r) + "1e400 " * 12, f"{TXT}, line"),
    estimate("mirrored rotations", mirrored, f"{TXT}.*rotation"),
    estimate("zeros", lambda r: text([[0.0] * 12] * len(r)), f"{TXT}.*rotation"),
    estimate("empty", lambda r: "", f"{TXT}.*no poses"),
    estimate("more frames than the sequence", lambda r: text([*r, *r]), f"{TXT} has frame"),
    estimate("JSON", lambda r: json.dumps(r), f"{TXT}, line 1"),
    estimate("a zero byte", lambda r: text(r) + "\0\n", f"{TXT}, line"),
    estimate("HTML", lambda r: "<!DOCTYPE html>\n", f"{TXT}, line 1"),
    estimate("digits of another script", lambda r: text(r).replace("1", "\u0661"),
             f"{TXT}, line", is_exact),
    estimate("numbers with underscores", lambda r: text(r).replace("e+00", "e+0_0"),
             f"{TXT}, line", is_exact),
    Situation("trajectory: .npy", ESTIMATE, lambda: save_npy(
        "poses.txt", true_rows()), TXT),
    Situation("trajectory: a folder", ESTIMATE, lambda: Path("poses.txt").mkdir(), TXT),
    Situation("trajectory: missing", ESTIMATE, lambda: None, f"{TXT}.*(missing|not exist)"),
]


def drive(**files: Callable[[str], str | bytes] | None) -> Callable[[], None]:
    """Return a builder of an odometry folder d with a changed poses or times file."""
    def build() -> None:
        os.makedirs("d/poses")
        os.makedirs("d/sequences/09")
        source = base() / "drive/sequences/09"
        for path in source.iterdir():
            if path.name != "times.txt":
                os.symlink(path, f"d/sequences/09/{path.name}")
        for name, path in (("poses", "poses/09.txt"), ("times", "sequences/09/times.txt")):
            content = (base() / "drive" / path).read_text() if (
                base() / "drive" / path).is_file() else ""
            data = files.get(name, str)(content)
            Path("d", path).write_bytes(data if isinstance(data, bytes) else data.encode())
    return build


def truth(words: str, change: Callable[[str], str | bytes], refused: str | None,
          right: Callable[[object, str], bool] | None = None) -> Situation:
    return Situation(f"true poses: {words}", POSES + " --alignment none", drive(poses=change),
                     refused, right)


def times(words: str, change: Callable[[str], str | bytes], refused: str | None = None,
          right: bool = False) -> Situation:
    """Return the situation of a changed times.txt, whose times a prediction writes."""
    def has_times(_: object, __: str) -> bool:
        written = np.loadtxt("out/trajectory_09_tum.txt")[:, 0]
        return np.allclose(written, np.arange(len(written)) / 10, atol=1e-5)
    return Situation(f"times: {words}", PREDICTED, drive(times=change), refused,
                     has_times if right else None)


def seconds(values: np.ndarray, end: str = "\n") -> str:
    return "".join(f"{value:.6e}{end}" for value in values)


TENTHS = np.arange(12) / 10
SITUATIONS += [
    truth("BOM and ends of lines of Windows",
          lambda t: b"\xef\xbb\xbf" + t.replace("\n", "\r\n").encode(), None, is_exact),
    truth("11 numbers a line", lambda t: "\n".join(line.rpartition(" ")[0] for line in
                                                   t.splitlines()), r"09\.txt"),
    truth("NaN", lambda t: "nan " + t.partition(" ")[2], r"09\.txt"),
    truth("a single pose", lambda t: t.splitlines()[0], r"09\.txt.*one pose"),
    truth("empty", lambda t: "", r"09\.txt"),
    truth("blank line in the middle", lambda t: t.replace("\n", "\n\n", 1), r"09\.txt", is_exact),
    times("BOM", lambda _: b"\xef\xbb\xbf" + seconds(TENTHS).encode(), None, True),
    times("ends of lines of Windows, blank last lines",
          lambda _: seconds(TENTHS, "\r\n") + "\r\n\n", None, True),
    times("that fall", lambda _: seconds(TENTHS[::-1]), r"times\.txt"),
    times("that repeat", lambda _: seconds(np.full(12, 0.5)), r"times\.txt"),
    times("too few", lambda _: seconds(TENTHS[:3]), r"times\.txt"),
    times("dates", lambda _: "2011-09-26 13:02:25.964389445\n" * 12, r"times\.txt, line 1"),
    times("NaN", lambda _: "nan\n" * 12, r"times\.txt, line 1"),
    times("nanoseconds", lambda _: seconds(TENTHS * 1e9 + 1.3e18), r"times\.txt, line 1"),
]

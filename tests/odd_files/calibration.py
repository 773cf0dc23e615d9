"""KITTI's calibration and scans, and intrinsics.json of own footage."""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.odd_files.base import HELD_OUT, picture
from tests.odd_files.situation import Situation, base

EXPORT = "export_gt_depth --num_workers 0 --data_path d --split s"
DAY = HELD_OUT.partition("/")[0]
CAMERA, SCANNER = f"{DAY}/calib_cam_to_cam.txt", f"{DAY}/calib_velo_to_cam.txt"
SCAN = f"{HELD_OUT}/velodyne_points/data/0000000004.bin"


def kitti(**files: Callable[[bytes], bytes]) -> Callable[[], None]:
    """Return a builder of a KITTI folder d of one scan, with changed files, and of its split s."""
    def build() -> None:
        for name, path in (("camera", CAMERA), ("scanner", SCANNER), ("scan", SCAN)):
            target = Path("d", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.get(name, bytes)((base() / "drive" / path).read_bytes()))
        Path("s").mkdir()
        Path("s/test_files.txt").write_text(f"{HELD_OUT} 4 l\n")
    return build


def is_unchanged(_: object, __: str) -> bool:
    """Return whether the depth map is that of the unchanged files."""
    from kitti_utils import generate_depth_map
    expected = generate_depth_map(base() / f"drive/{DAY}", base() / "drive" / SCAN, 2, True)
    with np.load("s/gt_depths.npz") as maps:
        return np.array_equal(maps["depth_000000"], expected)


def has_no_depth(_: object, __: str) -> bool:
    with np.load("s/gt_depths.npz") as maps:
        return not maps["depth_000000"].any()


def calibrated(words: str, name: str, change: Callable[[bytes], bytes], refused: str | None = None,
               right: bool | Callable[[object, str], bool] = False) -> Situation:
    return Situation(f"{name}: {words}", EXPORT, kitti(**{name: change}), refused,
                     is_unchanged if right is True else right or None)


def without(key: bytes) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(line for line in data.splitlines(True)
                                 if not line.startswith(key))


def points(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    """Return a function that changes the points (N, 4) float32 of a scan."""
    return lambda data: change(np.frombuffer(data, "f4").reshape(-1, 4).copy()).tobytes()


def as_text(data: bytes) -> bytes:
    rows = np.frombuffer(data, "f4").reshape(-1, 4)
    return "".join(" ".join(f"{v:.3f}" for v in row) + "\n" for row in rows).encode()


CAM, VELO, BIN = r"calib_cam_to_cam\.txt", r"calib_velo_to_cam\.txt", r"0000000004\.bin"
SITUATIONS = [
    calibrated("BOM", "camera", lambda b: b"\xef\xbb\xbf" + b, right=True),
    calibrated("BOM", "scanner", lambda b: b"\xef\xbb\xbf" + b, right=True),
    calibrated("ends of lines of Windows", "camera", lambda b: b.replace(b"\n", b"\r\n"),
               right=True),
    calibrated("UTF-16", "camera", lambda b: b.decode().encode("utf-16"), f"{CAM}.*UTF-", True),
    calibrated("commas between numbers", "camera", lambda b: b.replace(b"e+00 ", b"e+00, "), CAM),
    calibrated("P_rect_02 is missing", "camera", without(b"P_rect_02"), f"{CAM}.*P_rect_02"),
    calibrated("R_rect_00 is missing", "camera", without(b"R_rect_00"), f"{CAM}.*R_rect_00"),
    calibrated("T is missing", "scanner", without(b"T:"), f"{VELO}.*T"),
    calibrated("NaN", "scanner", lambda b: b.replace(b"T: ", b"T: nan "), VELO),
    calibrated("9 numbers in T", "scanner", lambda b: b.replace(b"T: ", b"T: 1 2 3 4 5 6 "), VELO),
    calibrated("a rotation of zeros", "scanner",
               lambda b: without(b"R:")(b) + b"R: 0 0 0 0 0 0 0 0 0\n", VELO),
    calibrated("empty", "camera", lambda b: b"", CAM),
    calibrated("letters of Latin-1", "camera", lambda b: b + b"note: d\xe9j\xe0\n", CAM, True),
    calibrated("a size of 0", "camera",
               lambda b: without(b"S_rect_02")(b) + b"S_rect_02: 0 0\n", CAM),
    calibrated("a size of 10^9", "camera",
               lambda b: without(b"S_rect_02")(b) + b"S_rect_02: 1e9 1e9\n", CAM),
    calibrated("float64", "scan", points(lambda p: p.astype("f8")), BIN),
    calibrated("text", "scan", as_text, BIN),
    calibrated("bytes in the other order", "scan", points(lambda p: p.astype(">f4")), BIN),
    calibrated("millimetres", "scan", points(lambda p: p * 1000), BIN),
    calibrated("empty", "scan", lambda b: b"", BIN),
    calibrated("7 bytes cut off", "scan", lambda b: b[:-7], BIN),
    calibrated("5 numbers a point", "scan",
               points(lambda p: np.hstack([p, np.full((len(p), 1), 7, "f4")])), BIN),
    calibrated("NaN", "scan", points(lambda p: np.where(p > 5, np.nan, p).astype("f4")), BIN),
    calibrated("zeros", "scan", points(np.zeros_like), BIN, has_no_depth),
    Situation("scan: a folder", EXPORT, lambda: [kitti()(), os.remove(f"d/{SCAN}"),
                                                 Path("d", SCAN).mkdir()], BIN),
]

CHECK = ("prepare_data check --dataset folder --data_path d --split d/splits --height 64 "
         "--width 96 --num_workers 0")
CAMERA_FIELDS = {"fx": 80.0, "fy": 80.0, "cx": 47.5, "cy": 31.5, "width": 96, "height": 64}


def own(intrinsics: object, stereo: bool = False) -> Callable[[], None]:
    """Return a builder of own footage of three frames with an intrinsics.json."""
    def build() -> None:
        for side in ("left", "right") if stereo else ("",):
            folder = Path("d/street", side)
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(np.roll(np.array(picture(96, 64)), i, 1)).save(folder / f"{i}.png")
        Path("d/street/intrinsics.json").write_bytes(
            intrinsics if isinstance(intrinsics, bytes) else json.dumps(intrinsics).encode())
        Path("d/splits").mkdir()
        Path("d/splits/train_files.txt").write_text(f"street 1{' l' if stereo else ''}\n")
    return build


def intrinsics(words: str, fields: object, refused: str | None = r"intrinsics",
               right: Callable[[object, str], bool] | None = None,
               stereo: bool = False) -> Situation:
    return Situation(f"intrinsics.json: {words}", CHECK + (" --use_stereo" if stereo else ""),
                     own(fields, stereo), refused, right)


def all_read(_: object, printed: str) -> bool:
    return "all 1 sample can be read" in printed


def with_(**fields: object) -> dict:
    return CAMERA_FIELDS | fields


SITUATIONS += [
    intrinsics("BOM", b"\xef\xbb\xbf" + json.dumps(CAMERA_FIELDS).encode(), None, all_read),
    intrinsics("UTF-16", json.dumps(CAMERA_FIELDS).encode("utf-16"), "intrinsics", all_read),
    intrinsics("numbers as text", with_(fx="80")),
    intrinsics("in units of the image", with_(fx=0.83, fy=1.25, cx=0.5, cy=0.5)),
    intrinsics("a negative focal length", with_(fx=-80)),
    intrinsics("NaN", with_(cx=float("nan"))),
    intrinsics("inf", with_(fy=float("inf"))),
    intrinsics("null", with_(fy=None)),
    intrinsics("true for a number", with_(fx=True)),
    intrinsics("the centre outside of the image", with_(cx=500)),
    intrinsics("a width of 0", with_(width=0)),
    intrinsics("a width of 96.5", with_(width=96.5)),
    intrinsics("a matrix instead of fields", [[80, 0, 47], [0, 80, 31], [0, 0, 1]]),
    intrinsics("cut off", b'{"fx": 80'),
    intrinsics("comments", b'{"fx": 80, // focal\n "fy": 80}'),
    intrinsics("empty", b""),
    intrinsics("height is missing", {k: v for k, v in CAMERA_FIELDS.items() if k != "height"},
               "intrinsics.*height"),
    intrinsics("a baseline in millimetres", with_(baseline=540), "intrinsics.*baseline",
               lambda _, printed: "warning" in printed and "540" in printed, True),
    intrinsics("a baseline below 0", with_(baseline=-0.5), stereo=True),
    intrinsics("no baseline, with --use_stereo", CAMERA_FIELDS, "intrinsics.*baseline",
               stereo=True),
    intrinsics("a baseline as text", with_(baseline="0.5 m"), stereo=True),
    Situation("intrinsics.json: a folder", CHECK,
              lambda: [own({})(), os.remove("d/street/intrinsics.json"),
                       Path("d/street/intrinsics.json").mkdir()], "intrinsics"),
    Situation("intrinsics.json: missing", CHECK,
              lambda: [own({})(), os.remove("d/street/intrinsics.json")], "intrinsics"),
    Situation("own footage: two images with one number", CHECK,
              lambda: [own(CAMERA_FIELDS)(), shutil.copy("d/street/1.png", "d/street/a1.png")],
              "both frame 1"),
    Situation("own footage: ._ files of macOS", CHECK,
              lambda: [own(CAMERA_FIELDS)(), Path("d/street/._1.png").write_bytes(b"junk")], None,
              all_read),
]

"""Videos and folders of footage."""
from __future__ import annotations

import struct
import wave
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tests.odd_files.base import content, picture
from tests.odd_files.situation import Situation

PREDICT = "test_simple --load_weights_folder {base}/w --output_dir out --output disp --image_path "
PREPARE = "prepare_data video --out out --fov 60 --min_flow 0 "


def video(name: str, count: int = 12, change: Callable[[bytes], bytes] = bytes,
          fps: float = 10) -> Callable[[], None]:
    """Return a builder of a video in which a picture moves and becomes brighter."""
    def build() -> None:
        codec = "MJPG" if name.endswith(".avi") else "mp4v"
        writer = cv2.VideoWriter(name, cv2.VideoWriter_fourcc(*codec), fps, (96, 64))
        frame = np.array(picture(96, 64)) // 2
        for i in range(count):
            writer.write(np.roll(frame, 2 * i, 1) + np.uint8(i))
        writer.release()
        Path(name).write_bytes(change(Path(name).read_bytes()))
    return build


def slowed(data: bytes) -> bytes:
    """Make the last half of the frames of an mp4 four times as long: a variable rate."""
    at = data.rindex(b"stts")
    count, step = struct.unpack(">II", data[at + 12:at + 20])
    entries = struct.pack(">IIIII", 2, count // 2, step, count - count // 2, 4 * step)
    data = bytearray(data[:at + 8] + entries + data[at + 20:])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        start = data.rindex(box, 0, at + 4) - 4
        size, = struct.unpack(">I", data[start:start + 4])
        data[start:start + 4] = struct.pack(">I", size + 8)
    for box, offset in ((b"mdhd", 20), (b"mvhd", 20), (b"tkhd", 24),
                        (b"elst", 12)):  # durations, 2.5 times
        start = data.rindex(box) + offset
        length, = struct.unpack(">I", data[start:start + 4])
        data[start:start + 4] = struct.pack(">I", length * 5 // 2)
    return bytes(data)


def follows_time(_: object, __: str) -> bool:
    """Return whether 5 frames a second are kept of 2 s at 10 and 8 s at 2.5 frames a second."""
    return 28 <= len(list(Path("out/odd").glob("*.jpg"))) <= 32


def count_of(number: int) -> Callable[[object, str], bool]:
    return lambda _, __: len(list(Path("out/odd").glob("*_disp.npy"))) == number


def sound() -> None:
    """Write a sound file under a video's name."""
    with wave.open("odd.mp4", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))


def images(*sizes: tuple[int, int]) -> Callable[[], None]:
    """Return a builder of a folder of moving pictures, one of each size."""
    def build() -> None:
        Path("d").mkdir()
        for i, (width, height) in enumerate(sizes):
            picture(200, 100).crop((4 * i, 0, 4 * i + width, height)).save(f"d/{i}.png")
    return build


def occupied() -> None:
    images(*[(96, 64)] * 8)()
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")


MP4 = r"odd\.mp4"
SITUATIONS = [
    Situation("video: 12 frames", PREDICT + "odd.mp4", video("odd.mp4"), None, count_of(12)),
    Situation("video: one frame", PREDICT + "odd.mp4", video("odd.mp4", 1), None, count_of(1)),
    Situation("video: MJPEG in .AVI", PREDICT + "odd.AVI",
              lambda: [video("odd.avi")(), Path("odd.avi").rename("odd.AVI")], None, count_of(12)),
    Situation("video: empty", PREDICT + "odd.mp4", content("odd.mp4", b""), MP4),
    Situation("video: cut off", PREDICT + "odd.mp4",
              video("odd.mp4", change=lambda b: b[:len(b) // 2]), MP4),
    Situation("video: cut off, AVI", PREDICT + "odd.avi",
              video("odd.avi", change=lambda b: b[:len(b) // 2]), r"odd\.avi",
              lambda _, printed: "warning" in printed and "odd.avi" in printed),
    Situation("video: sound only", PREDICT + "odd.mp4", sound, MP4),
    Situation("video: HTML", PREDICT + "odd.mp4", content("odd.mp4", b"<!DOCTYPE html>"), MP4),
    Situation("video: a picture named .mp4", PREDICT + "odd.mp4",
              lambda: picture().save("odd.mp4", format="JPEG"), MP4, count_of(1)),
    Situation("video: a folder named .mp4", PREDICT + "odd.mp4", lambda: Path("odd.mp4").mkdir(),
              MP4),
    Situation("video: .mts that is none", PREDICT + "odd.mts", content("odd.mts", b"junk"),
              r"odd\.mts.*video"),
    Situation("video: .flv that is none", PREDICT + "odd.flv", content("odd.flv", b"FLV\1"),
              r"odd\.flv.*video"),
    Situation("video: .h264 that is none", PREDICT + "odd.h264",
              content("odd.h264", b"\0\0\0\1\x67"), r"odd\.h264.*(video|frame)"),
    Situation("video: variable rate, by time stamps", PREPARE + "odd.mp4 --fps 5",
              video("odd.mp4", 40, slowed), None, follows_time),
    Situation("video: with a space and a quote", PREDICT + "'o d'\"'\"'d.mp4'",
              video("o d'd.mp4"), None, lambda _, __: len(list(Path("out/o d'd").iterdir())) == 12),
    Situation("footage: images of two sizes", PREPARE + "d", images(*[(96, 64)] * 7, (80, 64)),
              r"7\.png"),
    Situation("footage: one image", PREPARE + "d", images((96, 64)), "d: 1 of 1 frame"),
    Situation("footage: images of 1 pixel", PREPARE + "d", images(*[(1, 1)] * 8), "d|1x1",
              lambda *_: len(list(Path("out/d").glob("*.jpg"))) == 8),
    Situation("footage: an output folder that is full", PREPARE + "d", occupied, "out"),
    Situation("footage: an output folder that is a file", PREPARE + "d",
              lambda: [images(*[(96, 64)] * 8)(), Path("out").write_text("")], "out"),
    Situation("footage: the output inside of the input",
              "prepare_data video --out d/out --fov 60 --min_flow 0 d", images(*[(96, 64)] * 8),
              "d/out", lambda *_: len(list(Path("d/out/d").glob("*.jpg"))) == 8),
    Situation("footage: intrinsics.json for another size", PREPARE.replace("--fov 60", "") + "d",
              lambda: [images(*[(96, 64)] * 8)(), Path("d/intrinsics.json").write_text(
                  '{"fx": 80, "fy": 80, "cx": 40, "cy": 30, "width": 640, "height": 480}')],
              r"intrinsics\.json"),
    Situation("footage: a right view that is shorter",
              "prepare_data video --out out --fov 60 --left l.avi --right r.avi --baseline 0.1",
              lambda: [video("l.avi")(), video("r.avi", 9)()], r"r\.avi"),
    Situation("footage: views of two rates",
              "prepare_data video --out out --fov 60 --left l.avi --right r.avi --baseline 0.1",
              lambda: [video("l.avi")(), video("r.avi", fps=12)()], r"rate|a second"),
    Situation("footage: a right view of another size",
              "prepare_data video --out out --fov 60 --left l --right d --baseline 0.1",
              lambda: [images(*[(96, 64)] * 8)(), Path("d").rename("l"),
                       images(*[(80, 64)] * 8)()], "80x64"),
]

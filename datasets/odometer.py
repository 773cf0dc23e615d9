"""Measure how far the camera travels between frames, from recorded speeds, positions or GPS."""
from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from runtime.errors import DataError, counted
from runtime.files import readlines

MAX_SPEED = 100.0       # m/s; no camera on wheels is faster
MAX_GAP = 2.0           # seconds between two readings; speed is unknown in a longer gap
FORWARD, UP = 8, 10     # columns of KITTI's oxts: m/s forward, left (between them), up
OXTS_VALUES = 30        # numbers in a file of oxts
EARTH_RADIUS = 6_371_000.0  # metres, mean
EPOCH = 1e9             # seconds; larger times are UNIX time
TIMES, SPEEDS, TRACK = "times.txt", "speeds.txt", "track.gpx"
EXPECTED = (f"expected {SPEEDS} with lines `seconds m/s`, or with the first line `frame m/s` and "
            f"lines of these; or {TRACK} (docs/own_data.md)")


class Odometer:
    """Hold the metres travelled between consecutive frames of a sequence.

    Args:
        steps: (N - 1,) metres from frame i to frame i + 1 along the path; NaN if unknown.
        source: file or folder of the speeds, for messages.
    """

    def __init__(self, steps: np.ndarray, source: str | Path):
        self.steps, self.source = steps, source

    def distances(self, frame: int, offsets: Sequence[int]) -> np.ndarray:
        """Return the metres from a frame to the frames at some offsets, (F,) float32.

        Raises:
            DataError: the speed between two of the frames is unknown.
        """
        found = []
        for offset in offsets:
            first, last = sorted((frame, frame + offset))
            found.append(self.steps[first:last].sum())
            if first < 0 or last > len(self.steps) or not np.isfinite(found[-1]):
                raise DataError(f"{self.source} has no speed between frame {first} and {last}; "
                                "list only frames that have one")
        return np.array(found, np.float32)


def odometer_of_speeds(times: np.ndarray, speeds: np.ndarray, source: str | Path) -> Odometer:
    """Return the odometer of N frames whose speeds are known.

    Args:
        times: (N,) seconds, rising.
        speeds: (N,) m/s; NaN for a frame without a reading.
        source: file or folder of the speeds, for messages.

    Raises:
        DataError: a speed is above `MAX_SPEED` or negative, or the times do not rise.
    """
    known = np.isfinite(speeds)
    _check_speeds(times[known], speeds[known], source)
    return Odometer((speeds[:-1] + speeds[1:]) / 2 * np.diff(times), source)


def _check_speeds(times: np.ndarray, speeds: np.ndarray, source: str | Path) -> None:
    """Raise a DataError if speeds are missing or absurd, or if their times do not rise."""
    if not len(speeds):
        raise DataError(f"{source} has no speed of any frame; {EXPECTED}")
    if not ((speeds >= 0) & (speeds <= MAX_SPEED)).all():
        worst = speeds[np.argmax(abs(speeds))]
        raise DataError(f"{source} has a speed of {worst:g} m/s; expected 0 to {MAX_SPEED:g}, in "
                        "metres per second (1 km/h is 0.278 m/s)")
    _check_times(times, source)


def _check_times(times: np.ndarray, source: str | Path) -> None:
    """Raise a DataError if times do not rise: distances would be negative."""
    if not (np.diff(times) > 0).all():
        raise DataError(f"the times of {source} do not rise from line to line; expected seconds")


def odometer_of_positions(positions: np.ndarray, source: str | Path) -> Odometer:
    """Return the odometer of frames at known positions, (N, 3) metres."""
    return Odometer(np.linalg.norm(np.diff(positions, axis=0), axis=1), source)


def read_oxts(drive: str | Path) -> Odometer:
    """Read the speeds of a raw KITTI drive: oxts/data/<10 digits>.txt and oxts/timestamps.txt.

    Raises:
        DataError: the files are missing or broken, or a speed is absurd.
    """
    folder = Path(drive, "oxts")
    files = sorted(path for path in (folder / "data").glob("*.txt") if path.stem.isdecimal())
    if not files:
        raise DataError(f"{folder / 'data'} has no readings of speed, which --velocity_weight "
                        "needs; extract the drive again (<drive>_sync.zip has oxts/)")
    stamps = [_seconds(line, folder / "timestamps.txt")
              for line in readlines(folder / "timestamps.txt") if line.strip()]
    count = 1 + int(files[-1].stem)
    if len(stamps) < count:
        raise DataError(f"{folder / 'timestamps.txt'} has {counted(len(stamps), 'line')} for "
                        f"{counted(count, 'frame')}; extract the drive again")
    speeds = np.full(count, np.nan)
    for path in files:
        velocity = _numbers(path.read_text(errors="replace").split(), OXTS_VALUES, path)
        speeds[int(path.stem)] = np.linalg.norm(velocity[FORWARD:UP + 1])
    return odometer_of_speeds(np.array(stamps[:count]), speeds, folder)


def read_speeds(folder: str | Path) -> Odometer:
    """Read speeds.txt or track.gpx of a folder of frames; times.txt has the time of each frame.

    Raises:
        DataError: the files are missing or broken, or a speed is absurd.
    """
    path, track, times_path = (Path(folder, name) for name in (SPEEDS, TRACK, TIMES))
    if not path.is_file() and not track.is_file():
        raise DataError(f"{folder} has no speeds, which --velocity_weight needs; {EXPECTED}")
    if not times_path.is_file():
        raise DataError(f"{times_path} is missing; write the seconds of frame 0, 1, ... into it, a "
                        "number a line (prepare_data.py video writes it for a video)")
    times = np.array([_numbers([line], 1, times_path)[0] for line in readlines(times_path)
                      if line.strip()])
    _check_times(times, times_path)
    if not path.is_file():
        return _at_frames(times, *read_track(track), track)
    lines = [line for line in readlines(path) if line.strip()]
    is_by_frame = bool(lines) and lines[0].lower().split()[0] == "frame"
    rows = np.array([_numbers(line.split(), 2, path)
                     for line in lines[is_by_frame:]]).reshape(-1, 2)
    if not is_by_frame:
        return _at_frames(times, *rows.T, path)
    speeds, frames = np.full(len(times), np.nan), rows[:, 0].astype(int)
    if (frames != rows[:, 0]).any() or not ((frames >= 0) & (frames < len(times))).all():
        raise DataError(f"{path} names frames that are not among the {len(times)} of {times_path}")
    speeds[frames] = rows[:, 1]
    return odometer_of_speeds(times, speeds, path)


def read_track(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a GPX track: (N,) UNIX seconds and (N,) m/s.

    The speed of a point is its <speed>, or that between the points beside it.

    Raises:
        DataError: the file is broken, or a point has no time.
    """
    try:
        points = [point for point in ET.parse(path).iter() if _tag(point) == "trkpt"]
        places = np.radians([[float(point.get(axis)) for axis in ("lat", "lon")]
                             for point in points]).reshape(-1, 2)
        fields = [{_tag(field): field.text for field in point.iter()} for point in points]
        times = np.array([_unix_seconds(field["time"]) for field in fields])
        if len(times) < 2 or not (np.diff(times) > 0).all():
            raise ValueError("fewer than two points, or times that do not rise")
        if all("speed" in field for field in fields):
            return times, np.array([float(field["speed"]) for field in fields])
    except (OSError, ET.ParseError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read as a GPX track with times ({error}); export it "
                        "again") from None
    return times, np.gradient(_along(places), times)


def _along(places: np.ndarray) -> np.ndarray:
    """Return the metres along points (N, 2) of latitude and longitude in radians, (N,)."""
    steps = np.diff(places, axis=0)
    steps[:, 1] *= np.cos((places[1:, 0] + places[:-1, 0]) / 2)
    return np.concatenate([[0], np.cumsum(EARTH_RADIUS * np.linalg.norm(steps, axis=1))])


def _at_frames(times: np.ndarray, read_at: np.ndarray, speeds: np.ndarray,
               source: str | Path) -> Odometer:
    """Integrate speeds between the times of the frames.

    Times of frames that are no UNIX time count from the first reading of a GPX track.
    """
    _check_speeds(read_at, speeds, source)
    if read_at[0] >= EPOCH > times.max(initial=0):
        read_at = read_at - read_at[0]
    long_gaps = np.concatenate([[0], np.cumsum(np.diff(read_at) > MAX_GAP)])  # before each reading
    # the speed is linear between readings; frames outside of them have none
    knots = np.union1d(read_at, times)
    at_knots = np.interp(knots, read_at, speeds)
    along = np.cumsum((at_knots[:-1] + at_knots[1:]) / 2 * np.diff(knots))
    found = np.concatenate([[0], along])[np.searchsorted(knots, times)]       # (N,) metres
    found = np.where((times >= read_at[0]) & (times <= read_at[-1]), found, np.nan)
    if not np.isfinite(found).any():
        raise DataError(f"{source} has speeds from {read_at[0]:g} to {read_at[-1]:g} s, and no "
                        f"frame is in that time; {EXPECTED}")
    # a step is unknown if a long gap between readings lies in it
    first = long_gaps[(np.searchsorted(read_at, times[:-1], "right") - 1).clip(0)]
    last = long_gaps[np.searchsorted(read_at, times[1:]).clip(max=len(read_at) - 1)]
    return Odometer(np.where(first == last, np.diff(found), np.nan), source)


def _numbers(words: Sequence[str], count: int, path: Path) -> np.ndarray:
    """Return a line's `count` finite numbers."""
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        values = np.empty(0)
    if len(values) < count or not np.isfinite(values[:count]).all():
        raise DataError(f"{path} has the line {' '.join(words)[:40]!r}; expected "
                        f"{counted(count, 'number')}")
    return values[:count]


def _seconds(line: str, path: Path) -> float:
    """Return the UNIX seconds of a line of KITTI's timestamps: 2011-09-26 13:02:25.964389445."""
    try:
        return _unix_seconds(line.strip()[:26])
    except ValueError:
        raise DataError(f"{path} has the line {line[:40]!r}; expected a time such as 2011-09-26 "
                        "13:02:25.964389445") from None


def _unix_seconds(text: str) -> float:
    """Return the UNIX seconds of an ISO time; UTC if it names no zone."""
    time = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()


def _tag(element: ET.Element) -> str:
    """Return the name of an XML element without its namespace."""
    return element.tag.rpartition("}")[2]

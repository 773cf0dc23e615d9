"""Log scalars and pictures of a training run for TensorBoard, and scalars in metrics.jsonl."""
from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from runtime.errors import cannot_write
from runtime.files import write_atomically
from utils import normalize_image

if TYPE_CHECKING:  # loaded by the first log: the benchmarks train without tensorboardX
    from tensorboardX.event_file_writer import EventsWriter

MODES = ("train", "val")
METRICS = "metrics.jsonl"
IMAGES_PER_LOG = 4  # samples of a batch whose pictures are logged


class Logs:
    """Write TensorBoard's two runs "train" and "val" below a folder, and its metrics.jsonl.

    Each event is written at once. tensorboardX's SummaryWriter writes in a thread instead: a full
    disk ends the thread, and its full queue then blocks training forever.

    Args:
        folder: log folder; created by the first write.
        frames: 0, then the source frames.
        scales: scales of the disparities.
        first_step: first step of a resumed run. Logs of an earlier run from this step on are
            dropped: by TensorBoard when it reads, from metrics.jsonl at the first write.
    """

    def __init__(self, folder: Path, frames: list[int | str], scales: list[int],
                 first_step: int = 0):
        self.folder, self.frames, self.scales = folder, frames, scales
        self.first_step = first_step

    @cached_property
    def writers(self) -> dict[str, EventsWriter]:
        """Open the event file of each run."""
        return {mode: self._open(self.folder / mode) for mode in MODES}

    def _open(self, folder: Path) -> EventsWriter:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        folder.mkdir(parents=True, exist_ok=True)
        writer = EventsWriter(str(folder / "events"), f".{self.first_step}")
        if self.first_step:
            start = SessionLog(status=SessionLog.START)
            writer.write_event(Event(step=self.first_step, session_log=start))
        return writer

    @torch.no_grad()
    def write(self, mode: str, step: int, epoch: int, inputs: dict, outputs: dict, losses: dict,
              views: dict) -> None:
        """Write scalars, and pictures of up to four samples, to the run "train" or "val".

        Raises:
            DataError: the folder cannot be written.
        """
        from tensorboardX import summary
        from tensorboardX.proto.event_pb2 import Event
        now, scalars = time.time(), {name: float(value) for name, value in losses.items()}
        summaries = [summary.scalar(name, value) for name, value in scalars.items()]
        for j in range(min(IMAGES_PER_LOG, len(inputs["color", 0, 0]))):
            summaries += [summary.image(f"{name}/{j}", picture.detach().float().cpu().numpy())
                          for name, picture in self._pictures(inputs, outputs, views, j)]
        try:
            writer = self.writers[mode]
            for one in summaries:
                writer.write_event(Event(wall_time=now, step=step, summary=one))
            writer.flush()
            self._append({"mode": mode, "step": step, "epoch": epoch, "time": now, **scalars})
        except OSError as error:
            raise cannot_write(self.folder, error, "--log_dir:") from None

    def _append(self, record: dict) -> None:
        """Add a line to metrics.jsonl; JSON has no NaN or infinity, so they become null."""
        line = json.dumps({name: None if isinstance(value, float) and not math.isfinite(value)
                           else value for name, value in record.items()})
        with self.metrics.open("ab") as file:
            file.write(line.encode() + b"\n")

    @cached_property
    def metrics(self) -> Path:
        """Return the path of metrics.jsonl, after dropping its lines from `first_step` on."""
        path = self.folder / METRICS
        if path.exists():
            kept = [line for line in path.read_bytes().splitlines()
                    if _is_before(self.first_step, line)]
            write_atomically(path, b"".join(line + b"\n" for line in kept))
        return path

    def remove(self) -> None:
        """Delete the logs of an earlier run in the folder."""
        for mode in MODES:
            for file in (self.folder / mode).glob("events*"):
                file.unlink(missing_ok=True)
        (self.folder / METRICS).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the event files that are open."""
        for writer in self.__dict__.get("writers", {}).values():
            writer.close()

    def _pictures(self, inputs: dict, outputs: dict, views: dict,
                  j: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield names and (C, H, W) tensors in [0, 1] of the pictures of sample j."""
        for key, images in inputs.items():
            if isinstance(key, tuple) and key[0] == "color":
                _, f, s = key
                yield f"color_{f}_{s}", images[j]
        for s in self.scales:
            for i, f in enumerate(self.frames[1:]):
                if s == 0:
                    yield f"color_pred_{f}_{s}", views["color", f, s][j]
                if ("predictive_mask", s) in outputs:
                    yield f"predictive_mask_{f}_{s}", outputs["predictive_mask", s][j, i:i + 1]
            yield f"disp_{s}", normalize_image(outputs["disp", s][j])
            if ("automask", s) in views:
                yield f"automask_{s}", views["automask", s][j][None]


def _is_before(step: int, line: bytes) -> bool:
    """Return whether a line of metrics.jsonl has an earlier step; False if a kill has cut it."""
    try:
        return json.loads(line)["step"] < step
    except (ValueError, KeyError, TypeError):
        return False

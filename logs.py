"""What a training run shows of itself in TensorBoard: scalars and pictures."""
from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from tensorboardX import SummaryWriter

from utils import DataError, normalize_image

IMAGES_PER_LOG = 4  # samples of a batch whose pictures are logged


class Logs:
    """TensorBoard's two runs, "train" and "val", in a folder.

    Args:
        folder: made when the first line is written.
        frames: 0, then the source frames.
        scales: scales of the disparities.
    """

    def __init__(self, folder: Path, frames: list[int | str], scales: list[int]):
        self.folder, self.frames, self.scales = folder, frames, scales

    @cached_property
    def writers(self) -> dict[str, SummaryWriter]:
        """The writer of each run.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            return {mode: SummaryWriter(str(self.folder / mode)) for mode in ("train", "val")}
        except OSError as error:
            raise DataError(f"--log_dir: {self.folder} cannot be written: {error.strerror}; "
                            "choose another folder") from None

    @torch.no_grad()
    def write(self, mode: str, step: int, inputs: dict, outputs: dict, losses: dict,
              views: dict) -> None:
        """Write scalars, and pictures of up to four samples, to the run `mode`."""
        writer = self.writers[mode]
        for name, value in losses.items():
            writer.add_scalar(name, value.item(), step)
        for j in range(min(IMAGES_PER_LOG, len(inputs["color", 0, 0]))):
            for name, picture in self._pictures(inputs, outputs, views, j):
                writer.add_image(f"{name}/{j}", picture.detach().float().cpu().numpy(), step)
        writer.flush()

    def close(self) -> None:
        """Close what was opened."""
        for writer in self.__dict__.get("writers", {}).values():
            writer.close()

    def _pictures(self, inputs: dict, outputs: dict, views: dict,
                  j: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the (name, (C, H, W) tensor in [0, 1]) that show sample j."""
        for key in inputs:
            if key[0] == "color":
                yield f"color_{key[1]}_{key[2]}", inputs[key][j]
        for s in self.scales:
            for i, f in enumerate(self.frames[1:]):
                if s == 0:
                    yield f"color_pred_{f}_{s}", views["color", f, s][j]
                if ("predictive_mask", s) in outputs:
                    yield f"predictive_mask_{f}_{s}", outputs["predictive_mask", s][j, i:i + 1]
            yield f"disp_{s}", normalize_image(outputs["disp", s][j])
            if ("automask", s) in views:
                yield f"automask_{s}", views["automask", s][j][None]

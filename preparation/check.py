"""Whether data is right: every file read, the camera, the motion, and a picture to look at."""
from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from checkpoints.architecture import load_model
from checkpoints.training_camera import read_training_camera
from datasets import MonoDataset, as_float, collate, dataset_class
from datasets.intrinsics import Intrinsics, from_normalised
from datasets.mono_dataset import LEFT_SIDES
from datasets.splits import parse_line, read_split, split_path
from losses import ReprojectionObjective
from prediction.write import colorize
from preparation.contact_sheet import Row, contact_sheet, difference, gray_mask
from preparation.optical_flow import MIN_FLOW, WIDTH, mean_flow, parallax, small_gray
from runtime.distributed import get_device
from runtime.errors import DataError
from runtime.files import check_data_path
from runtime.signals import leave_interrupts_to_parent

SHOWN_FAULTS = 10
SHOWN_CAMERAS = 5
MEASURED = 200  # samples whose flow is measured
ROWS = 4        # samples in the picture


class Reading(Dataset):
    """Reads a dataset's items for the sake of their faults and of their motion."""

    def __init__(self, dataset: MonoDataset, measured: Sequence[int]):
        self.dataset, self.measured = dataset, frozenset(measured)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, str, float, float]:
        """Return the index, what is wrong with the item ("" if nothing), mean flow and parallax."""
        try:
            item = self.dataset[index]
        except DataError as error:
            return index, str(error), math.nan, math.nan
        if index not in self.measured:
            return index, "", math.nan, math.nan
        frames, shift = self.dataset.frame_idxs, math.nan
        target, source = (small_gray(item["color", f, 0]) for f in frames[:2])
        flow = mean_flow(target, source)
        if "s" in frames:
            other = small_gray(item["color", "s", 0])
            is_left = parse_line(self.dataset.filenames[index])[2] in LEFT_SIDES
            shift = parallax(target, other) if is_left else parallax(other, target)
        return index, "", flow, shift


def evenly(count: int, most: int) -> list[int]:
    """Return at most `most` of range(count), evenly spread."""
    return [i * count // min(count, most) for i in range(min(count, most))]


def read_all(dataset: MonoDataset,
             workers: int) -> tuple[dict[int, str], np.ndarray, np.ndarray]:
    """Read every item.

    Returns:
        What is wrong, by the index of the item, and the mean flows and parallaxes of some of the
        others.
    """
    reading = Reading(dataset, evenly(len(dataset), MEASURED))
    loader = DataLoader(reading, batch_size=None, num_workers=min(workers, len(dataset)),
                        worker_init_fn=leave_interrupts_to_parent)
    faults, flows, shifts = {}, [], []
    read = tqdm(loader, desc="reading", unit="sample", dynamic_ncols=True)
    for index, fault, flow, shift in read:
        if fault:
            faults[index] = fault
        if not math.isnan(flow):
            flows.append(flow)
        if not math.isnan(shift):
            shifts.append(shift)
    return faults, np.array(flows), np.array(shifts)


def describe_faults(faults: dict[int, str], count: int) -> list[str]:
    """Return lines that say what is missing or broken: how much, and the first ones."""
    if not faults:
        return [f"files: all {count} samples can be read"]
    # a file is part of several samples, and each words the cure in its own way
    files = dict.fromkeys(fault.partition(";")[0].partition(" (")[0] for fault in faults.values())
    missing = sum(" is missing" in file for file in files)
    return [f"files: {len(faults)} of {count} samples cannot be read; {missing} missing files, "
            f"{len(files) - missing} other faults, the first of them:",
            *(f"  {file}" for file in list(files)[:SHOWN_FAULTS]),
            *[f"  ... and {len(files) - SHOWN_FAULTS} more"] * (len(files) > SHOWN_FAULTS),
            f"  the first in full: {next(iter(faults.values()))}"]


def describe_camera(camera: Intrinsics) -> str:
    """Return a camera in pixels, normalised, and as its field of view."""
    K = camera.normalised
    views = [2 * math.degrees(math.atan(size / 2 / focal)) for size, focal in
             ((camera.width, camera.fx), (camera.height, camera.fy))]
    return (f"fx {camera.fx:.2f} fy {camera.fy:.2f} cx {camera.cx:.2f} cy {camera.cy:.2f} pixels "
            f"of {camera.width}x{camera.height}; normalised fx {K[0, 0]:.4f} fy {K[1, 1]:.4f} "
            f"cx {K[0, 2]:.4f} cy {K[1, 2]:.4f}; it sees {views[0]:.1f} x {views[1]:.1f} degrees")


def describe_cameras(dataset: MonoDataset) -> list[str]:
    """Return a line for each camera of a dataset, with the sequences it took."""
    cameras: dict[str, list[str]] = {}
    for folder in dict.fromkeys(parse_line(line)[0] for line in dataset.filenames):
        with suppress(DataError):  # which is among the faults
            height, width = dataset.get_image_size(folder) or (dataset.height, dataset.width)
            camera = from_normalised(dataset.get_intrinsics(folder), width, height)
            cameras.setdefault(describe_camera(camera), []).append(folder)
    lines = [f"camera of {folders[0]}{f' and {len(folders) - 1} more' if folders[1:] else ''}: "
             f"{words}" for words, folders in cameras.items()]
    return lines[:SHOWN_CAMERAS] + [f"... and {len(lines) - SHOWN_CAMERAS} more cameras"] * (
        len(lines) > SHOWN_CAMERAS)


def describe_motion(flows: np.ndarray, source: int | str) -> str:
    """Return the mean parallax, and the share of pairs that are nearly static."""
    if not len(flows):
        return "motion: no sample could be read"
    static = (flows < MIN_FLOW).mean()
    advice = " Leave them out: they teach nothing." * bool(static > 0.1 and source != "s")
    return (f"motion: frame 0 to {source} moves {flows.mean():.2f} pixels of {WIDTH} on average "
            f"(5 % less than {np.percentile(flows, 5):.2f}); {static:.0%} of {len(flows)} pairs "
            f"are nearly static, below {MIN_FLOW:g}.{advice}")


def describe_stereo(shifts: np.ndarray) -> list[str]:
    """Return a line on the parallax of stereo pairs, if there are some."""
    if not len(shifts):
        return []
    wrong = (shifts < 0).mean()
    advice = ". Exchange left and right: in the right view, things lie further left"
    return [f"stereo: from left to right, things move {np.median(shifts):.2f} pixels of {WIDTH} to "
            f"the left (median); the wrong way in {wrong:.0%} of {len(shifts)} pairs"
            + advice * bool(wrong > 0.5)]


def rows_of(dataset: MonoDataset, faults: dict[int, str], weights: str | None,
            no_cuda: bool) -> list[Row]:
    """Return the rows of the picture: frames, differences and, with weights, what is predicted."""
    whole = [i for i in range(len(dataset)) if i not in faults]
    rows = []
    for index in (whole[i] for i in evenly(len(whole), ROWS)):
        item = dataset[index]
        target, *sources = ((f, item["color", f, 0]) for f in dataset.frame_idxs)
        row = {"frame 0": target[1].permute(1, 2, 0).numpy()}
        row |= {f"frame {f}": image.permute(1, 2, 0).numpy() for f, image in sources}
        row |= {f"|0 - {f}|": difference(target[1], image) for f, image in sources}
        rows.append(Row(str(dataset.filenames[index]), row))
        if weights is not None:
            rows.append(Row("as these weights see it",
                            predicted(item, dataset.frame_idxs, weights, no_cuda)))
    return rows


@torch.no_grad()
def predicted(item: dict, frames: Sequence[int | str], weights: str,
              no_cuda: bool) -> dict[str, np.ndarray]:
    """Return the pictures of an item's disparity, of its warped sources and of its mask.

    Raises:
        DataError: the weights are of another size or of other frames.
    """
    device = get_device(no_cuda)
    in_time = [f for f in frames if f != "s"]
    model, form = load_model(weights, with_pose=len(in_time) > 1, device=device)
    height, width = item["color", 0, 0].shape[1:]
    if (form.height, form.width) != (height, width):
        raise DataError(f"{weights} is of images of {form.width}x{form.height}; add --height "
                        f"{form.height} --width {form.width}")
    if model.pose_model_input == "all" and len(model.times) != len(in_time):
        raise DataError(f"the pose network in {weights} takes {len(model.times)} frames at once; "
                        "give the --frame_ids that it was trained with")
    model.frame_ids, model.times = list(frames), in_time
    camera = read_training_camera(weights, form.use_stereo)
    inputs = {key: torch.as_tensor(value).to(device) for key, value in collate([item]).items()}
    for f in frames:
        inputs["color", f, 0] = inputs["color_aug", f, 0] = as_float(inputs["color", f, 0])
    objective = ReprojectionObjective(frames, [0], camera.min_depth, camera.max_depth,
                                      scale_translation=model.pose_model_type == "posecnn")
    outputs = model(inputs)
    _, views = objective(inputs, outputs)
    pictures = {"disparity": colorize(outputs["disp", 0][0, 0].cpu().numpy())}
    for f in frames[1:]:
        warped = (255 * views["color", f, 0][0]).byte().cpu()
        pictures[f"{f} warped to 0"] = warped.permute(1, 2, 0).numpy()
        pictures[f"|0 - {f} warped|"] = difference(item["color", 0, 0], warped)
    return pictures | {"mask (white counts)": gray_mask(views["automask", 0][0].cpu().numpy())}


def check(opts: Namespace) -> bool:
    """Say what a split's data is like, and write the picture; return whether all can be read.

    Args:
        opts: of the command line.
    """
    check_data_path(opts.data_path)
    frames = opts.frame_ids + ["s"] * opts.use_stereo
    lines = read_split(split_path(opts.split, f"{opts.list}_files.txt"))
    dataset = dataset_class(opts.dataset)(
        opts.data_path, lines, opts.height, opts.width, frames, 1, is_train=True,
        img_ext=".png" if opts.png else ".jpg", load_depth=False)
    faults, flows, shifts = read_all(dataset, opts.num_workers)
    print(*describe_faults(faults, len(dataset)), *describe_cameras(dataset),
          describe_motion(flows, frames[1]), *describe_stereo(shifts), sep="\n")
    rows = rows_of(dataset, faults, opts.load_weights_folder, opts.no_cuda)
    if rows:
        contact_sheet(rows, Path(opts.out))
        print(f"wrote {opts.out}: look whether things move between frames as they should"
              + ", and whether the warped frames look like frame 0" * bool(
                  opts.load_weights_folder))
    return not faults

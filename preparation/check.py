"""Check the data of a split: read every file, measure motion, and draw samples to look at."""
from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets import Augment, Masks, MonoDataset, collate, dataset_class
from datasets.intrinsics import Intrinsics, from_normalised
from datasets.splits import parse_line, read_split, split_path
from datasets.stereo import LEFT_SIDES
from losses import ReprojectionObjective
from prediction.predictor import Predictor
from prediction.write import colorize
from preparation.contact_sheet import Strip, difference, gray_mask, write_contact_sheet
from preparation.optical_flow import MIN_FLOW, WIDTH, mean_flow, median_parallax, small_gray
from runtime.distributed import get_device
from runtime.errors import DataError, counted
from runtime.files import check_data_path
from runtime.shared_memory import checked_workers
from runtime.signals import leave_interrupts_to_parent

SHOWN_FAULTS = 10
SHOWN_CAMERAS = 5
MAX_STATIC = 0.1        # share of static pairs; above it, the advice is to leave them out
MEASURED_SAMPLES = 200  # samples whose optical flow is measured
DRAWN_SAMPLES = 4       # samples on the contact sheet


def check_split(opts: Namespace) -> bool:
    """Read a split's samples, print what was found, and write a contact sheet.

    Args:
        opts: options of `prepare_data.py check`.

    Returns:
        Whether every sample can be read.

    Raises:
        DataError: the data path, the split or the weights are missing or unsuitable.
    """
    check_data_path(opts.data_path)
    frames = [*opts.frame_ids, "s"] if opts.use_stereo else opts.frame_ids
    lines = read_split(split_path(opts.split, f"{opts.list}_files.txt"))
    dataset = dataset_class(opts.dataset)(
        opts.data_path, lines, opts.height, opts.width, frames, 1, is_train=True,
        img_ext=".png" if opts.png else ".jpg")
    if opts.mask_dir:
        dataset.masks = Masks(opts.mask_dir, dataset)
    if opts.speeds:
        dataset.use_odometers()
    predictor = load_predictor(opts, frames) if opts.load_weights_folder else None

    readings = read_samples(dataset, opts.num_workers)
    faults = {reading.index: reading.fault for reading in readings if reading.fault}
    flows = [reading.flow for reading in readings if reading.flow is not None]
    parallaxes = [reading.parallax for reading in readings if reading.parallax is not None]
    print(*describe_faults(faults, len(dataset)), *describe_cameras(dataset),
          describe_motion(np.array(flows), frames[1]), *describe_stereo(np.array(parallaxes)),
          *describe_masks(readings), sep="\n")

    strips = draw_samples(dataset, faults, predictor)
    if opts.speeds and flows:
        from preparation.speed_check import describe_speeds, draw_speeds  # imports matplotlib
        distances = np.array([r.distance for r in readings if r.flow is not None])
        print(describe_speeds(distances, np.array(flows)))
        strips.append(Strip("speed", {"": draw_speeds(distances, np.array(flows))}, span=3))
    if strips:
        write_contact_sheet(strips, Path(opts.out))
        advice = "" if predictor is None else ", and whether the warped frames look like frame 0"
        print(f"wrote {opts.out}: look whether things move between frames as they should{advice}")
    return not faults


class SampleReading(NamedTuple):
    """Result of reading one sample.

    Attributes:
        index: index of the sample in its dataset.
        fault: error message; empty if the sample can be read.
        flow: mean optical flow from frame 0 to the first source frame, in pixels; None if not
            measured.
        parallax: median shift to the left from the left to the right view, in pixels; None if not
            measured.
        masked: share of the pixels that --mask_dir leaves out; None without masks.
        distance: metres from frame 0 to the first source frame; None without speeds.
    """

    index: int
    fault: str = ""
    flow: float | None = None
    parallax: float | None = None
    masked: float | None = None
    distance: float | None = None


class SampleReader(Dataset):
    """Read the samples of a dataset to find faults, and measure the motion of some of them."""

    def __init__(self, dataset: MonoDataset, measured: Sequence[int]):
        self.dataset, self.measured = dataset, frozenset(measured)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> SampleReading:
        """Read one sample; measure its motion if `index` is among those to measure."""
        try:
            item = self.dataset.load(index)
        except DataError as error:
            return SampleReading(index, str(error))
        masked = 1 - float(item["mask"].float().mean()) if "mask" in item else None
        if index not in self.measured:
            return SampleReading(index, masked=masked)
        frames, parallax = self.dataset.frame_idxs, None
        target, source = (small_gray(item["color", f, 0]) for f in frames[:2])
        if "s" in frames:
            left, right = target, small_gray(item["color", "s", 0])
            if parse_line(self.dataset.filenames[index])[2] not in LEFT_SIDES:
                left, right = right, left
            parallax = median_parallax(left, right)
        distance = float(item["distances"][0]) if "distances" in item else None
        return SampleReading(index, "", mean_flow(target, source), parallax, masked, distance)


def read_samples(dataset: MonoDataset, workers: int) -> list[SampleReading]:
    """Read every sample in worker processes, and measure the motion of an even selection."""
    reader = SampleReader(dataset, evenly_spaced(len(dataset), MEASURED_SAMPLES))
    loader = DataLoader(reader, batch_size=None,
                        num_workers=checked_workers(min(workers, len(dataset))),
                        worker_init_fn=leave_interrupts_to_parent)
    return list(tqdm(loader, desc="reading", unit="sample", dynamic_ncols=True))


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced indices below `count`."""
    return [i * count // min(count, most) for i in range(min(count, most))]


def describe_faults(faults: dict[int, str], count: int) -> list[str]:
    """Return lines that count the unreadable samples and name the first faulty files.

    Args:
        faults: error messages by sample index.
        count: number of samples in all.
    """
    if not faults:
        return [f"files: all {counted(count, 'sample')} can be read"]
    # a file belongs to several samples, whose messages differ in the advice after the file's fault
    files = dict.fromkeys(fault.partition(";")[0].partition(" (")[0] for fault in faults.values())
    missing = sum(" is missing" in file for file in files)
    lines = [f"files: {len(faults)} of {count} samples cannot be read; "
             f"{counted(missing, 'missing file')}, "
             f"{counted(len(files) - missing, 'other fault')}, the first of them:",
             *(f"  {file}" for file in list(files)[:SHOWN_FAULTS])]
    if len(files) > SHOWN_FAULTS:
        lines.append(f"  ... and {len(files) - SHOWN_FAULTS} more")
    return [*lines, f"  the first in full: {next(iter(faults.values()))}"]


def describe_intrinsics(intrinsics: Intrinsics) -> str:
    """Return intrinsics in words: in pixels, normalised, and as a field of view."""
    fx, fy, cx, cy, width, height, _ = intrinsics
    K = intrinsics.normalised
    across, down = (2 * math.degrees(math.atan(size / 2 / focal))
                    for size, focal in ((width, fx), (height, fy)))
    return (f"fx {fx:.2f} fy {fy:.2f} cx {cx:.2f} cy {cy:.2f} pixels of {width}x{height}; "
            f"normalised fx {K[0, 0]:.4f} fy {K[1, 1]:.4f} cx {K[0, 2]:.4f} cy {K[1, 2]:.4f}; "
            f"it sees {across:.1f} x {down:.1f} degrees")


def describe_cameras(dataset: MonoDataset) -> list[str]:
    """Return one line for each different camera of a dataset, with its sequences."""
    sequences: dict[str, list[str]] = {}
    for folder in dict.fromkeys(parse_line(line)[0] for line in dataset.filenames):
        with suppress(DataError):  # reported as a fault of the samples
            height, width = dataset.get_image_size(folder) or (dataset.height, dataset.width)
            intrinsics = from_normalised(dataset.get_intrinsics(folder), width, height)
            sequences.setdefault(describe_intrinsics(intrinsics), []).append(folder)
    lines = []
    for words, folders in sequences.items():
        more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        lines.append(f"camera of {folders[0]}{more}: {words}")
    if len(lines) > SHOWN_CAMERAS:
        lines[SHOWN_CAMERAS:] = [f"... and {len(lines) - SHOWN_CAMERAS} more cameras"]
    return lines


def describe_motion(flows: np.ndarray, source: int | str) -> str:
    """Return a line on the mean optical flow and the share of nearly static pairs.

    Args:
        flows: (N,) mean flow of each measured sample, pixels.
        source: the source frame that flow was measured to.
    """
    if not len(flows):
        return "motion: not measured, because no sample can be read"
    static, advice = (flows < MIN_FLOW).mean(), ""
    if static > MAX_STATIC and source != "s":
        advice = " Leave them out: static pairs teach the network nothing."
    return (f"motion: frame 0 to {source} moves {flows.mean():.2f} pixels of {WIDTH} on average "
            f"(in 5 % of the pairs less than {np.percentile(flows, 5):.2f}); {static:.0%} of "
            f"{len(flows)} pairs are nearly static, below {MIN_FLOW:g}.{advice}")


def describe_stereo(parallaxes: np.ndarray) -> list[str]:
    """Return a line on the parallax of the stereo pairs (N,); empty without stereo pairs."""
    if not len(parallaxes):
        return []
    wrong, advice = (parallaxes < 0).mean(), ""
    if wrong > 0.5:
        advice = ". Exchange left and right: in the right view, things lie further left"
    return [f"stereo: from left to right, things move {np.median(parallaxes):.2f} pixels of "
            f"{WIDTH} to the left (median); the wrong way in {wrong:.0%} of {len(parallaxes)} "
            f"pairs{advice}"]


def describe_masks(readings: Sequence[SampleReading]) -> list[str]:
    """Return a line on the pixels that --mask_dir leaves out; empty without masks."""
    shares = [reading.masked for reading in readings if reading.masked is not None]
    if not shares:
        return []
    advice = "" if np.mean(shares) < 0.5 else (
        ". That is most of them: 0 must mark what is left out, not what counts")
    return [f"masks: {sum(share > 0 for share in shares)} of {counted(len(shares), 'sample')} have "
            f"masked pixels; {np.mean(shares):.0%} of all pixels are left out{advice}"]


def draw_samples(dataset: MonoDataset, faults: dict[int, str],
                 predictor: Predictor | None) -> list[Strip]:
    """Draw some of the samples that can be read, and what a network predicts for them.

    Args:
        dataset: dataset to draw samples of.
        faults: error messages by sample index; these samples are skipped.
        predictor: network to show; None: show the images only.
    """
    readable = [i for i in range(len(dataset)) if i not in faults]
    strips = []
    for index in (readable[i] for i in evenly_spaced(len(readable), DRAWN_SAMPLES)):
        item = dataset.load(index)
        images = {f: item["color", f, 0] for f in dataset.frame_idxs}
        cells = {f"frame {f}": image.permute(1, 2, 0).numpy() for f, image in images.items()}
        cells |= {f"|0 - {f}|": difference(images[0], images[f]) for f in dataset.frame_idxs[1:]}
        if "mask" in item:
            masked = images[0] * item["mask"]
            cells["0 under --mask_dir"] = masked.permute(1, 2, 0).numpy()
        strips.append(Strip(str(dataset.filenames[index]), cells))
        if predictor is not None:
            cells = draw_prediction(predictor, item, dataset.frame_idxs)
            strips.append(Strip("as these weights see it", cells))
    return strips


def load_predictor(opts: Namespace, frames: Sequence[int | str]) -> Predictor:
    """Load the weights to show, with the pose network if there are source frames in time.

    Args:
        opts: options of `prepare_data.py check`.
        frames: frames of a sample, "s" included.

    Raises:
        DataError: the weights need another image size or other frames.
    """
    weights, times = opts.load_weights_folder, [f for f in frames if f != "s"]
    predictor = Predictor(weights, get_device(opts.no_cuda), with_pose=len(times) > 1)
    height, width, model = predictor.height, predictor.width, predictor.model
    if (height, width) != (opts.height, opts.width):
        raise DataError(f"{weights} takes images of {width}x{height}; add --height {height} "
                        f"--width {width}")
    if model.pose_model_input == "all" and len(model.times) != len(times):
        raise DataError(f"the pose network in {weights} takes {len(model.times)} frames at once; "
                        "give the --frame_ids that it was trained with")
    model.frame_ids, model.times = list(frames), times
    return predictor


@torch.no_grad()
def draw_prediction(predictor: Predictor, item: dict,
                    frames: Sequence[int | str]) -> dict[str, np.ndarray]:
    """Draw the disparity, the warped source frames and the automask of one sample.

    Args:
        predictor: network, as `load_predictor` returns it.
        item: sample of a dataset.
        frames: frames of the sample, 0 first.

    Returns:
        (H, W, 3) uint8 images by their labels.
    """
    model, training_camera = predictor.model, predictor.training_camera
    device = next(model.parameters()).device
    inputs = Augment(device, [f for f in frames if f != "s"]).eval()(collate([item]))
    outputs = model(inputs)
    objective = ReprojectionObjective(frames, [0], training_camera.min_depth,
                                      training_camera.max_depth,
                                      scale_translation=model.pose_model_type == "posecnn")
    _, views = objective(inputs, outputs)
    cells = {"disparity": colorize(outputs["disp", 0][0, 0].cpu().numpy())}
    for f in frames[1:]:
        warped = (255 * views["color", f, 0][0]).byte().cpu()
        cells[f"{f} warped to 0"] = warped.permute(1, 2, 0).numpy()
        cells[f"|0 - {f} warped|"] = difference(item["color", 0, 0], warped)
    return cells | {"mask (white counts)": gray_mask(views["automask", 0][0].cpu().numpy())}

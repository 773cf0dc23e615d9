"""Import Cityscapes: linked frames, the camera of each snippet, and depth of its disparity."""
from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.image_files import IMAGE_ERRORS, open_image
from datasets.intrinsics import FILE_NAME, Intrinsics, parse_intrinsics, write_intrinsics
from datasets.kitti_dataset import read_depth_png
from datasets.masks import FILE_NAME as MASK_NAME
from kitti_utils import DEPTH_PNG_SCALE
from metrics.depth import MAX_DEPTH
from preparation.imported import link_file, print_evaluation, write_list, write_test_list
from preparation.video import print_next_commands
from runtime.errors import DataError
from runtime.files import new_folder

WIDTH, HEIGHT = 2048, 1024  # pixels of every image
BONNET = 768                # first row of the lower quarter, which shows the car
BEFORE, AFTER = 19, 10      # frames of a snippet before and after the one with a camera file
# Published samples take every second frame of the 17 a second; a target has neighbours that far
FRAME_IDS = (0, -2, 2)
# Pixels that published errors are of: the middle half of the rows, without the sides
ROWS, COLUMNS = slice(256, BONNET), slice(192, 1856)
# Folders of each side; frames of the sequences, or else single images
FOLDERS = {"left": ("leftImg8bit_sequence", "leftImg8bit"),
           "right": ("rightImg8bit_sequence", "rightImg8bit")}
MASKS = "masks"
DOWNLOAD = ("expected leftImg8bit_sequence_trainvaltest.zip (324 GB; or leftImg8bit_trainvaltest"
            ".zip, single images, 11 GB), camera_trainvaltest.zip (2 MB) and "
            "disparity_trainvaltest.zip (3.5 GB) of cityscapes-dataset.com, extracted into one "
            "folder")


class Snippet(NamedTuple):
    """Hold the frames around an image that has a camera file.

    Attributes:
        subset: train, val or test.
        city: folder of the city.
        name: <city>_<6 digits>, the beginning of the names of all its files.
        number: of the image that has a camera file.
        camera: that file.
    """

    subset: str
    city: str
    name: str
    number: int
    camera: Path

    @property
    def place(self) -> str:
        """Folder of the frames in the dataset."""
        return f"{self.subset}/{self.name}_{self.number:06d}"

    def file(self, source: Path, folder: str, number: int) -> Path:
        """Return the path of a PNG of Cityscapes; its kind is the name of its folder."""
        kind = folder.removesuffix("_sequence")
        return source / folder / self.subset / self.city / f"{self.name}_{number:06d}_{kind}.png"


def import_cityscapes(source: Path, out: Path, crop_bonnet: bool) -> None:
    """Write Cityscapes as a dataset for `--dataset folder`, and print the next commands.

    Args:
        source: folder that the archives were extracted into.
        out: folder to make.
        crop_bonnet: write images without their lower quarter; otherwise link them, and write a
            mask.

    Raises:
        DataError: files are missing or broken, or the folder cannot be written.
    """
    snippets = find_snippets(source)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    truths, intrinsics = [], None
    is_video = (source / FOLDERS["left"][0]).is_dir()
    with new_folder(out) as folder, ThreadPoolExecutor() as pool:
        for snippet in tqdm(snippets, unit="snippet", dynamic_ncols=True):
            frames = place_frames(snippet, source, folder, crop_bonnet, pool)
            if not frames["left"]:
                continue
            intrinsics = read_camera(snippet.camera, BONNET if crop_bonnet else HEIGHT)
            write_intrinsics(folder / snippet.place / FILE_NAME, intrinsics)
            if snippet.subset != "test":
                lists[snippet.subset] += training_lines(snippet.place, frames, is_video)
            elif (disparity := snippet.file(source, "disparity", snippet.number)).is_file():
                lists["test"].append(f"{snippet.place} {snippet.number} l")
                truths.append((disparity, intrinsics))
        if intrinsics is None:
            raise DataError(f"{source} has no image for any of its camera files; {DOWNLOAD}")
        for name in ("train", "val"):
            if lists[name]:
                write_list(folder, f"{name}_files.txt", lists[name])
        if truths:
            write_test_list(folder, lists["test"],
                            (evaluated_depth(path, camera) for path, camera in truths))
        if not crop_bonnet:
            write_mask(folder / MASKS)
    print_report(source, out, lists, intrinsics, is_video, crop_bonnet)


def find_snippets(source: Path) -> list[Snippet]:
    """Return a snippet for each camera file, by name.

    Raises:
        DataError: there is no camera file, or one has an odd name.
    """
    snippets = []
    for path in sorted(source.glob("camera/*/*/*_camera.json")):
        name, _, number = path.name.removesuffix("_camera.json").rpartition("_")
        if not number.isdecimal() or path.parts[-3] not in ("train", "val", "test"):
            raise DataError(f"{path} is no file of Cityscapes; expected names such as camera/train/"
                            "aachen/aachen_000000_000019_camera.json: remove it")
        snippets.append(Snippet(path.parts[-3], path.parts[-2], name, int(number), path))
    if not snippets:
        raise DataError(f"{source} has no camera/<set>/<city>/*_camera.json; {DOWNLOAD}")
    return snippets


def place_frames(snippet: Snippet, source: Path, folder: Path, crop_bonnet: bool,
                 pool: Executor) -> dict[str, list[int]]:
    """Link or crop the frames of a snippet, of a test snippet only the one with a camera file.

    Returns:
        The numbers of the frames that exist, for "left" and "right".
    """
    numbers = [snippet.number]
    if snippet.subset != "test":
        numbers = range(max(0, snippet.number - BEFORE), snippet.number + AFTER + 1)
    frames: dict[str, list[int]] = {}
    copy = crop_image if crop_bonnet else link_file
    for side, folders in FOLDERS.items():
        paths = {number: path for number in numbers for each in reversed(folders)
                 if (path := snippet.file(source, each, number)).is_file()}
        place = folder / snippet.place / side
        if paths:
            place.mkdir(parents=True)
        for _ in pool.map(copy, paths.values(), [place / f"{n:010d}.png" for n in paths]):
            pass  # raises the error of a thread
        frames[side] = list(paths)
    return frames


def crop_image(source: Path, target: Path) -> None:
    """Write an image without its lower quarter as a PNG, with the same pixels.

    Raises:
        DataError: the image cannot be read, or has another size.
    """
    try:
        with open_image(source) as image:
            size, cropped = image.size, image.crop((0, 0, WIDTH, BONNET))
    except IMAGE_ERRORS as error:
        raise DataError(f"{source} cannot be read as an image: {error}; extract it again") from None
    if size != (WIDTH, HEIGHT):
        raise DataError(f"{source} has {size[0]}x{size[1]} pixels, expected {WIDTH}x{HEIGHT}; "
                        "extract it again")
    cropped.save(target)


def read_camera(path: Path, height: int) -> Intrinsics:
    """Read a camera file: focal lengths, centre and baseline.

    Args:
        path: of the file.
        height: of the images, whose lower rows may be cropped.

    Raises:
        DataError: the file is broken.
    """
    try:
        fields = json.loads(path.read_bytes())
        inner, outer = fields["intrinsic"], fields["extrinsic"]
        values = {"fx": inner["fx"], "fy": inner["fy"], "cx": inner["u0"], "cy": inner["v0"],
                  "width": WIDTH, "height": height, "baseline": float(outer["baseline"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no camera file of Cityscapes ({type(error).__name__}: "
                        f"{error}); extract camera_trainvaltest.zip again (2 MB)") from None
    return parse_intrinsics(json.dumps(values).encode(), path)


def training_lines(place: str, frames: dict[str, list[int]], is_video: bool) -> Iterator[str]:
    """Yield a line for each frame and side that has its neighbours, or its other view."""
    for side, other in (("left", "right"), ("right", "left")):
        has, pairs = set(frames[side]), set(frames[other])
        for number in frames[side]:
            if {number + f for f in FRAME_IDS} <= has if is_video else number in pairs:
                yield f"{place} {number} {side[0]}"


def evaluated_depth(path: Path, intrinsics: Intrinsics) -> np.ndarray:
    """Return the depth of a disparity PNG where published errors are measured.

    A pixel p > 0 is a disparity of (p - 1) / 256 pixels; depth is fx baseline / disparity.

    Args:
        path: of the PNG, 2048 x 1024.
        intrinsics: with the baseline; its height is that of the result.

    Returns:
        (height, 2048) float32 metres; 0 = no disparity, 80 m or farther, or not evaluated.

    Raises:
        DataError: the PNG is broken, or has another size.
    """
    disp = read_depth_png(path) - 1 / DEPTH_PNG_SCALE
    if disp.shape != (HEIGHT, WIDTH):
        raise DataError(f"{path} has {disp.shape[1]}x{disp.shape[0]} pixels, expected "
                        f"{WIDTH}x{HEIGHT}; extract it again")
    depth = np.zeros((intrinsics.height, WIDTH), np.float32)
    disp = disp[ROWS, COLUMNS]
    is_near = disp * MAX_DEPTH > intrinsics.fx * intrinsics.baseline  # false without disparity
    np.divide(intrinsics.fx * intrinsics.baseline, disp, out=depth[ROWS, COLUMNS], where=is_near)
    return depth


def write_mask(folder: Path) -> None:
    """Write a mask for all images that leaves the bonnet out."""
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[BONNET:] = 0
    folder.mkdir()
    Image.fromarray(mask).save(folder / MASK_NAME)


def print_report(source: Path, out: Path, lists: dict[str, list[str]], intrinsics: Intrinsics,
                 is_video: bool, crop_bonnet: bool) -> None:
    """Print the commands that are possible now, and what is missing for the others."""
    counts = {name: len(lines) for name, lines in lists.items()}
    words = ["--frame_ids", *(FRAME_IDS if is_video else (0, "--use_stereo"))]
    if not crop_bonnet:
        words += ["--mask_dir", out / MASKS]
    if counts["train"] and counts["val"]:
        print_next_commands(out, intrinsics, counts, words)
    else:
        print(f"{source} has too few images to train and validate on; {DOWNLOAD}")
    if counts["test"]:
        print_evaluation(out, counts["test"])
    else:
        print(f"{source} has no test image with a disparity/test/<city>/*_disparity.png; "
              f"{DOWNLOAD}")

"""Read Make3D's 134 test images and their laser scans, cut to the part that is evaluated."""
from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.image_files import list_files, pil_loader
from datasets.mono_dataset import MonoDataset
from datasets.splits import SplitLine, parse_line
from runtime.errors import DataError
from runtime.files import BROKEN

SPLIT = "make3d"  # value of --eval_split and of --dataset
IMAGES, SCANS = "Test134", "Gridlaserdata"
COUNT = 134  # test images
FARTHEST = 70.0  # metres; the errors called C1 are those of nearer points
# Height of a central crop that is twice as wide as high, of images of 1704 x 2272 pixels
CENTRE = 1704 / 2 / 2272
# Width and height of the image plane at distance 1 (defaults of Make3D's toolkit)
PLANE = (0.70783777, 0.946584169)
DOWNLOAD = (f"download Test134.tar.gz and Test134Depth.tar.gz from "
            f"make3d.cs.cornell.edu/data.html, and extract both into --data_path, as {IMAGES}/ and "
            f"{SCANS}/")


class Make3DDataset(MonoDataset):
    """Read the central crop of single images, <data_path>/Test134/<folder>.jpg."""

    K = np.array([[1 / PLANE[0], 0, 0.5, 0],
                  [0, 1 / PLANE[1] / CENTRE, 0.5, 0],
                  [0, 0, 1, 0],
                  [0, 0, 0, 1]], dtype=np.float32)
    cure = DOWNLOAD

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loader = load_centre

    def get_image_path(self, folder: str, frame_index: int, side: str | None) -> str:
        """Return the path of an image; `folder` is its name, as in `img-op1-p-015t000 0`."""
        return str(Path(self.data_path, IMAGES, f"{folder}{self.img_ext}"))


def load_centre(path: str | Path) -> Image.Image:
    """Read an image, and crop the centre that is twice as wide as high.

    Raises:
        ValueError: the image is not upright, as Make3D's are.
        one of IMAGE_ERRORS: the file is missing or broken.
    """
    image = pil_loader(path)
    if image.height <= image.width:
        raise ValueError(f"it has {image.width}x{image.height} pixels, and Make3D's images are "
                         "upright, 1704x2272")
    rows = central_rows(image.height)
    return image.crop((0, rows.start, image.width, rows.stop))


def central_rows(height: int) -> slice:
    """Return the rows of the central crop of an image, or of a map of it, of this height."""
    kept = round(height * CENTRE)
    first = (height - kept) // 2
    return slice(first, first + kept)


def list_images(data_path: str | Path) -> list[SplitLine]:
    """Return a split line `name 0` for each test image, in the natural order of the names.

    Raises:
        DataError: there is no image.
    """
    folder = Path(data_path, IMAGES)
    images = [path for path in list_files(folder) if path.name.startswith("img-")
              and path.suffix == ".jpg"] if folder.is_dir() else []
    if not images:
        raise DataError(f"{folder} has no images img-*.jpg; {DOWNLOAD}")
    if len(images) != COUNT:
        print(f"warning: {folder} has {len(images)} of the {COUNT} test images; the errors cannot "
              "be compared with published ones")
    return [SplitLine(f"{path.stem} 0", str(path)) for path in images]


def read_scan(data_path: str | Path, line: str) -> np.ndarray:
    """Read the laser scan of a test image, in its central rows.

    Args:
        data_path: folder that holds Gridlaserdata/.
        line: split line of the image.

    Returns:
        (21, 305) float32 metres, 0 = no point, or none nearer than 70 m.

    Raises:
        DataError: the scan is missing or broken.
    """
    import scipy.io  # training needs no scans
    name = parse_line(line)[0].removeprefix("img-")
    path = Path(data_path, SCANS, f"depth_sph_corr-{name}.mat")
    if not path.is_file():
        raise DataError(f"{path} is missing; {DOWNLOAD}")
    try:
        grid = scipy.io.loadmat(path, variable_names=["Position3DGrid"])["Position3DGrid"]
        depth = grid[:, :, 3].astype(np.float32)  # x, y, z and depth of each point
    except (OSError, zlib.error, scipy.io.matlab.MatReadError, *BROKEN) as error:
        raise DataError(f"{path} cannot be read as a scan ({type(error).__name__}: {error}); "
                        "expected MATLAB's Position3DGrid, 55 x 305 x 4: extract it again"
                        ) from None
    depth = depth[central_rows(len(depth))]
    return np.where((depth > 0) & (depth < FARTHEST), depth, 0)

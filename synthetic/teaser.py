"""Make the film of README's first screen: `python -m synthetic.teaser OUT`.

A network learns on a rendered street as in the demo, for longer and at a larger size. Then a street
that it never saw passes by: each frame beside its disparity, above the cloud of all frames so far,
which is fused from predicted depth and predicted motions.
"""
from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from datasets import as_float
from datasets.footage import Footage
from datasets.images import resize
from metrics.trajectory import chain_motions
from options import PROJECT
from prediction.motions import motion_stream
from prediction.predictor import Predictor
from prediction.scene import SceneCloud, View
from prediction.write import colorize
from runtime.arguments import OneLineParser, whole_path
from runtime.errors import run
from runtime.files import write_atomically
from synthetic.render import FPS, HELD_OUT
from synthetic.street import kitti_K
from synthetic.training import Training
from utils import sec_to_hm_str

TRAINING = Training(frames=600, height=128, width=416, stereo_epochs=16, video_epochs=4)
SHOWN = slice(38, 92)             # frames of the held-out street: the camera drives
BRIGHTEST = 0.22                  # 1 / m: disparities from here on get the brightest colour
FAR, VOXEL = 25.0, 0.08           # m, of the cloud
# the camera that looks at the cloud: metres above and behind the car, radians downwards
ABOVE, BEHIND, DOWN = 5.5, 9.0, 0.32
FOCAL, CLOSEST = 0.55, 1.0        # widths of the picture; m, nearer points are not drawn
VIEW_HEIGHT = 320                 # pixels, of the view of the cloud
BACKGROUND, PATH_COLOUR = (22, 20, 28), (255, 196, 64)  # RGB
QUALITY = 62                      # of WebP


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line.

    Args:
        argv: words of the command line (default: those of this program).
    """
    parser = OneLineParser(
        prog="python -m synthetic.teaser",
        description="Render a street, train on it for about an hour on two cores, and film depth.")
    parser.add_argument("out", type=whole_path,
                        help="folder for all files; after a kill, the same command resumes")
    return parser.parse_args(argv)


def main() -> None:
    """Render, train, and write the film `teaser.webp`.

    Raises:
        DataError: a command failed.
    """
    out = Path(os.path.relpath(parse_args().out, PROJECT))
    os.chdir(PROJECT)
    started = time.monotonic()
    film = out / "teaser.webp"
    drive, weights = TRAINING.run(out, "--resume", "auto")
    write_film(film, list(film_frames(weights, drive)))
    print(f"{film}: {film.stat().st_size / 1e6:.1f} MB\n"
          f"done in {sec_to_hm_str(time.monotonic() - started)}")


def film_frames(weights: Path, drive: Path, shown: slice = SHOWN) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 RGB of the film.

    Args:
        weights: folder with depth and pose networks.
        drive: folder of the rendered drive.
        shown: frames of its held-out street.
    """
    predictor = Predictor(weights, with_pose=True)
    images = [torch.from_numpy(still.read())
              for still in Footage(drive / HELD_OUT / "image_02/data", "jpg")][shown]
    inputs = [as_float(resize(image, predictor.height, predictor.width, exact=True))
              for image in images]
    poses = chain_motions(motion_stream(predictor).add(inputs),
                          predictor.training_camera.unit().factor)
    height, width = images[0].shape[1:]
    K = torch.eye(4)
    K[:3, :3] = torch.from_numpy(kitti_K(height, width))
    scene = SceneCloud(FAR, VOXEL)
    for i, (image, pose) in enumerate(zip(images, poses, strict=True)):
        rgb = image.permute(1, 2, 0).numpy()
        depth = predictor.predict(rgb).depth[0, 0]
        scene.add(View(depth, image, K, pose))  # fuses the frame two frames before
        pair = np.hstack([rgb, colorize(1 / depth.numpy(), (0, BRIGHTEST))])
        view = draw_cloud(*scene.voxels.means(), poses[:i + 1, :3, 3], chasing_pose(pose),
                          VIEW_HEIGHT, 2 * width)
        yield np.vstack([pair, view])


def chasing_pose(pose: np.ndarray) -> np.ndarray:
    """Return the camera-to-world matrix (4, 4) of a camera above and behind a car's camera."""
    moved = np.eye(4)
    cos, sin = np.cos(DOWN), np.sin(DOWN)
    moved[:3, :3] = [[1, 0, 0], [0, cos, sin], [0, -sin, cos]]
    moved[:3, 3] = 0, -ABOVE, -BEHIND
    return pose @ moved


def draw_cloud(points: np.ndarray, colours: np.ndarray, path: np.ndarray, pose: np.ndarray,
               height: int, width: int) -> np.ndarray:
    """Draw a coloured cloud and the path of a camera, the far points first.

    Args:
        points: (N, 3) in the world.
        colours: (N, 3) uint8 RGB.
        path: (M, 3) positions of the camera in the world, in order.
        pose: (4, 4) camera to world, of the camera that looks at them.
        height: height of the picture, pixels.
        width: width of the picture, pixels.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    focal = FOCAL * width
    to_camera = np.linalg.inv(pose)[:3]

    def project(world: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return pixels (M, 2) and depths (M,) of the M points ahead, and which of N are (N,)."""
        seen = world @ to_camera[:, :3].T + to_camera[:, 3]
        ahead = seen[:, 2] > CLOSEST
        depth = seen[ahead, 2]
        return focal * seen[ahead, :2] / depth[:, None] + [width / 2, height / 2], depth, ahead

    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    pixels, depth, ahead = project(points)
    far_first = np.argsort(-depth)
    edges = np.ceil(focal * VOXEL / depth).astype(int)  # pixels, of the square that a point fills
    areas = edges[far_first] ** 2
    index = far_first.repeat(areas)
    nth = np.arange(len(index)) - (areas.cumsum() - areas).repeat(areas)  # pixel of the square
    u, v = (pixels[index] - edges[index, None] / 2).round().astype(int).T
    u, v = u + nth % edges[index], v + nth // edges[index]
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    picture[v[inside], u[inside]] = colours[ahead][index[inside]]  # of equal pixels, the last stays
    line = project(path)[0].round().astype(np.int32)
    return cv2.polylines(picture, [line], False, PATH_COLOUR, 3, cv2.LINE_AA)


def write_film(path: Path, frames: list[np.ndarray]) -> None:
    """Write frames (H, W, 3) uint8 RGB as a WebP animation that repeats for ever."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    film = io.BytesIO()
    first.save(film, "WEBP", save_all=True, append_images=others, duration=1000 // FPS, loop=0,
               quality=QUALITY, method=6)
    write_atomically(path, film.getvalue())


if __name__ == "__main__":
    run(main)

"""Encode surfaces and clouds as GLB files, which viewers in browsers show."""
from __future__ import annotations

import numpy as np
from PIL import Image

from datasets.intrinsics import Intrinsics
from prediction.write import pixel_points

JOINED = 1.1   # largest ratio of the depths of neighbours on one surface
FARTHEST = 4   # times the median depth; the sky would dwarf everything else
GLTF_AXES = np.diag([1, -1, -1])  # from x right, y down, z forward to x right, y up, z backward


def surface_glb(depth: np.ndarray, image: np.ndarray,
                intrinsics: Intrinsics) -> tuple[bytes, float]:
    """Encode the points of a depth map, with neighbours of similar depth joined.

    The camera is the origin.

    Args:
        depth: (h, w) along the optical axis, of any size.
        image: (3, H, W) uint8 RGB, of any size.
        intrinsics: of an image of the size of `depth`.

    Returns:
        The file, and the distance from the camera to the middle of the surface.
    """
    import trimesh
    h, w = depth.shape
    corner = np.arange(h * w).reshape(h, w)
    a, b, c, d = (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    triangles = np.concatenate([np.stack(three, -1).reshape(-1, 3)
                                for three in ((a, c, b), (b, c, d))])
    depths = depth.ravel()[triangles]
    is_joined = depths.max(1) < np.minimum(JOINED * depths.min(1), FARTHEST * np.median(depth))
    # a material that emits its colour looks the same in any light
    colours = trimesh.visual.material.PBRMaterial(
        emissiveTexture=Image.fromarray(image.transpose(1, 2, 0)), emissiveFactor=[1, 1, 1],
        baseColorFactor=[0, 0, 0, 255], metallicFactor=0, roughnessFactor=1, doubleSided=True)
    v, u = np.indices(depth.shape)
    uv = np.stack([(u + 0.5) / w, 1 - (v + 0.5) / h], -1).reshape(-1, 2)
    points = pixel_points(depth, intrinsics) @ GLTF_AXES
    mesh = trimesh.Trimesh(points, triangles[is_joined], process=False,
                           visual=trimesh.visual.TextureVisuals(uv=uv, material=colours))
    mesh.remove_unreferenced_vertices()
    return mesh.export(file_type="glb"), float(-mesh.bounds[:, 2].mean())


def scene_glb(points: np.ndarray, colours: np.ndarray, path: np.ndarray, unit: str) -> bytes:
    """Encode a coloured cloud and the camera's path.

    Args:
        points: (N, 3), x right, y down, z forward.
        colours: (N, 3) uint8 RGB.
        path: (M, 3) positions of the camera, M > 1.
        unit: of the points; stored as the scene's "unit".
    """
    import trimesh
    scene = trimesh.Scene({"cloud": trimesh.PointCloud(points @ GLTF_AXES, colours),
                           "path": trimesh.load_path(path @ GLTF_AXES)}, metadata={"unit": unit})
    return scene.export(file_type="glb")

"""Write the cloud of an image as a coloured surface that viewers in browsers show."""
from __future__ import annotations

import numpy as np
from PIL import Image

from datasets.intrinsics import Intrinsics

JOINED = 1.1   # largest ratio of the depths of neighbours on one surface
FARTHEST = 4   # times the median depth; the sky would dwarf everything else


def surface_glb(depth: np.ndarray, image: np.ndarray,
                intrinsics: Intrinsics) -> tuple[bytes, float]:
    """Encode the points of a depth map as a GLB file, with neighbours of similar depth joined.

    Convention: x right, y up, z backward, as in glTF; the camera is the origin.

    Args:
        depth: (h, w) along the optical axis, of any size.
        image: (3, H, W) uint8 RGB, of any size.
        intrinsics: of an image of the size of `depth`.

    Returns:
        The file, and the distance from the camera to the middle of the surface.
    """
    import trimesh
    h, w = depth.shape
    v, u = np.indices(depth.shape)
    points = np.stack([(u - intrinsics.cx) / intrinsics.fx * depth,
                       (intrinsics.cy - v) / intrinsics.fy * depth, -depth], -1).reshape(-1, 3)
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
    uv = np.stack([(u + 0.5) / w, 1 - (v + 0.5) / h], -1).reshape(-1, 2)
    mesh = trimesh.Trimesh(points, triangles[is_joined], process=False,
                           visual=trimesh.visual.TextureVisuals(uv=uv, material=colours))
    mesh.remove_unreferenced_vertices()
    return mesh.export(file_type="glb"), float(-mesh.bounds[:, 2].mean())

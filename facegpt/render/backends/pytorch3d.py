"""PyTorch3D's rasterizer (an optional dependency) behind the rules of `facegpt.render.rasterize`.

Which triangle a pixel sees comes from `rasterize_meshes`; weights, depth and gradients are computed from that
as for the reference. Where it differs: a centre exactly on an edge belongs to neither triangle, and triangles
of less than 1e-8 (doubled area, where the shorter side of the image is 2) draw nothing. Its CPU code needs a
second per face; it is here to compare with.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
from pytorch3d.structures import Meshes
from torch import Tensor

from facegpt.render.backends.torch import BACKEND as REFERENCE


def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Triangle ids (B,H,W) int64, -1 on the background.

    vertices (B,V,3): pixels and depth. triangles (F,3) int64.
    """
    meshes = Meshes(
        verts=to_ndc(vertices, height, width), faces=triangles[None].expand(len(vertices), -1, -1)
    )
    seen, _, _, _ = rasterize_meshes(
        meshes,
        image_size=(height, width),
        blur_radius=0.0,
        faces_per_pixel=1,
        perspective_correct=False,
        cull_backfaces=False,
    )
    # It numbers the triangles of the whole batch in a row.
    start = torch.arange(len(vertices), device=seen.device)[:, None, None] * len(triangles)
    return torch.where(seen[..., 0] >= 0, seen[..., 0] - start, -1)


def to_ndc(vertices: Tensor, height: int, width: int) -> Tensor:
    """Pixels and depth (B,V,3) in PyTorch3D's normalised coordinates, float32.

    x to the left and y up from the image's centre, the shorter side from -1 to 1; z away from the viewer,
    moved so that the nearest vertex is at 1, since what lies behind 0 is not drawn.
    """
    half = min(height, width) / 2
    x = (width / 2 - vertices[..., 0]) / half
    y = (height / 2 - vertices[..., 1]) / half
    nearest = vertices[..., 2].amin() if vertices.numel() else 0.0
    return torch.stack([x, y, vertices[..., 2] - nearest + 1], dim=-1).float()


BACKEND = replace(REFERENCE, name="pytorch3d", triangle_ids=triangle_ids)

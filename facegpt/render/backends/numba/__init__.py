"""The CPU backend: loops that numba compiles.

A textured surface goes from vertices to image in a few of them. Vertex colours and `Rendering.geometry`,
which only pictures want, take the reference's tensor code after the rasterizer: loops for that saved a third
of a picture's time, a twentieth of a second.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from facegpt.render.backends.numba.fused import shade_textured
from facegpt.render.backends.numba.rasterize import triangle_ids
from facegpt.render.backends.numba.vertices import ProjectFunction
from facegpt.render.backends.torch import BACKEND as REFERENCE


def cannot_use(device: torch.device) -> str:
    """Why the loops cannot run on a device, or ""."""
    return (
        "" if device.type == "cpu" else f"the numba rasterizer runs on the CPU, the vertices are on {device}"
    )


def project_surface(
    vertices: Tensor, camera: Tensor, triangles: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Projected vertices (B,V,3) and their unit normals (B,V,3) in the world's frame."""
    surface: tuple[Tensor, Tensor] = ProjectFunction.apply(vertices, camera, triangles, height, width)
    return surface


BACKEND = replace(
    REFERENCE,
    name="numba",
    cannot_use=cannot_use,
    triangle_ids=triangle_ids,
    project=project_surface,
    shade_textured=shade_textured,
)

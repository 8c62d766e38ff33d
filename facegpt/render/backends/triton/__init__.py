"""The GPU backend: triton kernels for everything that the reference does with tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.render.backends.interface import Backend
from facegpt.render.backends.triton import rasterize
from facegpt.render.backends.triton.interpolate import TritonInterpolation, TritonWeights, all_pixels
from facegpt.render.backends.triton.normals import TritonNormals
from facegpt.render.backends.triton.shade import TritonShading, TritonTexels
from facegpt.render.camera import project
from facegpt.render.pixels import Pixels


def cannot_use(device: torch.device) -> str:
    """Why the kernels cannot run on a device, or ""."""
    if device.type == "cuda" or rasterize.is_interpreted():
        return ""
    return (
        f"the triton rasterizer runs on a GPU, the vertices are on {device}; to try it there through "
        "triton's interpreter set TRITON_INTERPRET=1 before Python starts"
    )


def project_surface(
    vertices: Tensor, camera: Tensor, triangles: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Projected vertices (B,V,3) and their unit normals (B,V,3) in the world's frame."""
    normals: Tensor = TritonNormals.apply(vertices, triangles)
    return project(vertices, camera, height, width), normals


def barycentric_weights(points: Tensor, pixels: Pixels) -> Tensor:
    """See `render.interpolate.barycentric_weights`; 0 on the background."""
    weights: Tensor = TritonWeights.apply(points, pixels.rows, pixels.centers)
    return weights


def interpolate(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """See `render.interpolate.interpolate`; 0 on the background."""
    values: Tensor = TritonInterpolation.apply(table, rows, weights)
    return values


def shade_at(normals: Tensor, lighting: Tensor, pixels: Pixels) -> Tensor:
    """See `render.lighting.shade_at`; 0 on the background."""
    shading: Tensor = TritonShading.apply(normals, lighting, pixels.face)
    return shading


def texture_at(texture: Tensor, uv: Tensor, pixels: Pixels) -> Tensor:
    """See `render.surface.texture_at`; 0 on the background."""
    texels: Tensor = TritonTexels.apply(texture, uv, pixels.face)
    return texels


BACKEND = Backend(
    name="triton",
    cannot_use=cannot_use,
    waits=False,
    triangle_ids=rasterize.triangle_ids,
    project=project_surface,
    covered_pixels=all_pixels,
    barycentric_weights=barycentric_weights,
    interpolate=interpolate,
    shade_at=shade_at,
    texture_at=texture_at,
)

"""The GPU backend: triton kernels for everything that the reference does with tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.render.backends.interface import Backend
from facegpt.render.backends.triton import rasterize
from facegpt.render.backends.triton.interpolate import BarycentricWeights, Interpolate, all_pixels
from facegpt.render.backends.triton.normals import VertexNormals
from facegpt.render.backends.triton.shade import SampleTexture, Shade
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
    normals: Tensor = VertexNormals.apply(vertices, triangles)
    return project(vertices, camera, height, width), normals


def barycentric_weights(points: Tensor, pixels: Pixels) -> Tensor:
    weights: Tensor = BarycentricWeights.apply(points, pixels.rows, pixels.centers)
    return weights


def interpolate(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    values: Tensor = Interpolate.apply(table, rows, weights)
    return values


def shade_at(normals: Tensor, lighting: Tensor, pixels: Pixels) -> Tensor:
    shading: Tensor = Shade.apply(normals, lighting, pixels.face)
    return shading


def texture_at(texture: Tensor, uv: Tensor, pixels: Pixels) -> Tensor:
    texels: Tensor = SampleTexture.apply(texture, uv, pixels.face)
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

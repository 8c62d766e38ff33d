"""What pixels see of the surface: where in which triangle, how far away, and which way it faces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facegpt.render.interpolate import (
    Pixels,
    barycentric_weights,
    covered_pixels,
    interpolate,
    to_image,
    vertex_table,
)
from facegpt.render.rasterize import Fragments, fragments
from facegpt.render.surface import unit


@dataclass
class Geometry:
    """Images of the surface; normals (B,3,H,W) and depth (B,H,W) as in `renderer.Rendering`."""

    normals: Tensor
    depth: Tensor
    fragments: Fragments


@dataclass
class Seen:
    """The surface at the P covered pixels of B images.

    triangle (B,H,W) int64: -1 on the background. weights (3,P), depth (1,P), normals (3,P): unit.
    """

    triangle: Tensor
    pixels: Pixels
    weights: Tensor
    depth: Tensor
    normals: Tensor

    def geometry(self) -> Geometry:
        seen = fragments(self.triangle, self.weights, self.depth, self.pixels)
        return Geometry(to_image(self.normals, self.pixels), seen.depth, seen)


def see(projected: Tensor, normals: Tensor, triangles: Tensor, ids: Tensor, backend: str = "auto") -> Seen:
    """The surface at the covered pixels, differentiable in vertices and normals.

    projected (B,V,3): of `camera.project`. normals (B,V,3): unit. triangles (F,3). ids (B,H,W): of
    `triangle_ids`.
    """
    pixels = covered_pixels(ids, triangles, projected.shape[1], projected.dtype, backend)
    table = vertex_table(torch.cat([projected, normals], dim=-1))
    weights = barycentric_weights(table[:2], pixels, backend)
    values = interpolate(table[2:], pixels.rows, weights, backend)
    return Seen(ids, pixels, weights, values[:1], unit(values[1:]))

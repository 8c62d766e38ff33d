"""What pixels see of the surface: where in which triangle, how far away, and which way it faces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facegpt.render.backends import Backend
from facegpt.render.pixels import Pixels, to_image, vertex_table
from facegpt.render.rasterize import pixel_fragments
from facegpt.render.rendering import Geometry
from facegpt.render.surface import unit


@dataclass
class SurfaceSamples:
    """The surface at the P covered pixels of B images.

    triangle (B,H,W) int64: -1 on the background. weights (3,P), depth (1,P), normals (3,P): unit.
    """

    triangle: Tensor
    pixels: Pixels
    weights: Tensor
    depth: Tensor
    normals: Tensor

    def geometry(self) -> Geometry:
        """The same as images; see `Rendering`."""
        fragments = pixel_fragments(self.triangle, self.weights, self.depth, self.pixels)
        return Geometry(to_image(self.normals, self.pixels), fragments.depth, fragments)


def surface_at_pixels(
    projected: Tensor, normals: Tensor, triangles: Tensor, ids: Tensor, backend: Backend
) -> SurfaceSamples:
    """The surface at the covered pixels, differentiable in vertices and normals.

    projected (B,V,3): of `camera.project`. normals (B,V,3): unit. triangles (F,3). ids (B,H,W): of
    `triangle_ids`.
    """
    pixels = backend.covered_pixels(ids, triangles, projected.shape[1], projected.dtype)
    table = vertex_table(torch.cat([projected, normals], dim=-1))
    weights = backend.barycentric_weights(table[:2], pixels)
    values = backend.interpolate(table[2:], pixels.rows, weights)
    return SurfaceSamples(ids, pixels, weights, values[:1], unit(values[1:]))

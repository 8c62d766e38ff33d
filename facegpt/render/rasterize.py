"""Which triangle each pixel sees, and where in it: the entry to the rasterizers.

The rules, the same for every backend:
- Pixel centres are at half integers; a pixel belongs to a triangle that contains its centre.
- A centre on an edge belongs to the triangle for which that edge is a top edge (horizontal, the triangle
  below) or a left edge, so triangles that share an edge neither overlap nor leave a hole.
- Both sides of a triangle are drawn; a triangle without area draws nothing.
- The nearest triangle wins; of equally near ones (in float32) the one with the lowest index.
- Vertices are first snapped to 1/4096 pixel. That makes the edge functions exact in float64 for coordinates
  within ±8192 pixels, which is what makes the second rule hold without tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facegpt.render import rasterize_torch
from facegpt.render.backends import resolve
from facegpt.render.finite import check_finite
from facegpt.render.interpolate import (
    Pixels,
    barycentric_weights,
    covered_pixels,
    interpolate,
    to_image,
    vertex_table,
)

SUBPIXELS = 4096


@dataclass
class Fragments:
    """What each pixel of B images sees.

    triangle (B,H,W) int64: row of the triangle array, -1 where there is only background.
    barycentric (B,H,W,3): weights of the triangle's three corners, sum 1; 0 on the background.
    depth (B,H,W): interpolated depth, smaller is nearer; 0 on the background.
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor


def rasterize(
    vertices: Tensor, triangles: Tensor, height: int, width: int, backend: str = "auto"
) -> Fragments:
    """Rasterize B meshes of one topology; the rules are in this module's docstring.

    vertices (B,V,3): x right, y down in pixels and depth, as `camera.project` gives. triangles (F,3) int64.
    backend: "torch" (any device), "numba" (CPU), "triton" (GPU), "pytorch3d" (its package), or "auto", the
    fastest of the first three that can be used.
    Barycentric weights and depth are differentiable with respect to the vertices; the triangle ids are not.
    The forward pass gives the same numbers every time. So does the backward pass on the CPU; on a GPU the
    gradients of pixels meet in their vertices in an order that varies, and with it their last digits.
    Raises ValueError when a vertex is not finite (naming the face of the batch; with triton on a GPU a call
    later, see `finite.check_finite`), the image has no pixel or the backend does not exist or cannot work on
    this device, ImportError when a backend's package is missing.
    """
    triangle = triangle_ids(vertices, triangles, height, width, backend)
    pixels = covered_pixels(triangle, triangles, vertices.shape[1], vertices.dtype, backend)
    table = vertex_table(vertices)
    weights = barycentric_weights(table[:2], pixels, backend)
    return fragments(triangle, weights, interpolate(table[2:], pixels.rows, weights, backend), pixels)


def fragments(triangle: Tensor, weights: Tensor, depth: Tensor, pixels: Pixels) -> Fragments:
    """Fragments of ids (B,H,W) from the weights (3,P) and depth (1,P) of the covered pixels."""
    barycentric = to_image(weights, pixels).permute(0, 2, 3, 1)
    return Fragments(triangle, barycentric, to_image(depth, pixels).squeeze(1))


@torch.no_grad()
def triangle_ids(
    vertices: Tensor, triangles: Tensor, height: int, width: int, backend: str = "auto"
) -> Tensor:
    """The (B,H,W) int64 triangle ids of `rasterize` alone, without gradients; -1 is background."""
    backend = resolve(backend, vertices.device)
    if height < 1 or width < 1:
        raise ValueError(f"an image needs at least one pixel, got height {height} and width {width}")
    check_finite(vertices, wait=backend != "triton")
    snapped = vertices.detach().to(torch.float64, copy=True)
    snapped[..., :2].mul_(SUBPIXELS).round_().div_(SUBPIXELS)
    if backend == "numba":
        from facegpt.render import rasterize_numba  # numba is optional and slow to import

        return rasterize_numba.triangle_ids(snapped, triangles, height, width)
    if backend == "triton":
        from facegpt.render import rasterize_triton

        return rasterize_triton.triangle_ids(snapped, triangles, height, width)
    if backend == "pytorch3d":
        from facegpt.render.rasterize_pytorch3d import triangle_ids as ids_of_pytorch3d

        return ids_of_pytorch3d(snapped, triangles, height, width)
    return rasterize_torch.triangle_ids(snapped, triangles, height, width)

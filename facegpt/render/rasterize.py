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

import torch
from torch import Tensor

from facegpt.errors import RenderingError
from facegpt.render.backends import Backend, choose
from facegpt.render.finite import check_vertices
from facegpt.render.pixels import Pixels, to_image, vertex_table
from facegpt.render.rendering import Fragments

SUBPIXELS = 4096


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
    Raises RenderingError, a ValueError, when a vertex is not finite or beyond `finite.LARGEST_COORDINATE`
    (naming the face of the batch; with triton on a GPU a call later, see `finite.check_vertices`), the image
    has no pixel or the backend does not exist or cannot work on this device, ImportError when a backend's
    package is missing.
    """
    chosen = choose(backend, vertices.device)
    triangle = triangle_ids(vertices, triangles, height, width, chosen)
    pixels = chosen.covered_pixels(triangle, triangles, vertices.shape[1], vertices.dtype)
    table = vertex_table(vertices)
    weights = chosen.barycentric_weights(table[:2], pixels)
    return pixel_fragments(triangle, weights, chosen.interpolate(table[2:], pixels.rows, weights), pixels)


def pixel_fragments(triangle: Tensor, weights: Tensor, depth: Tensor, pixels: Pixels) -> Fragments:
    """Fragments of ids (B,H,W) from the weights (3,P) and depth (1,P) of the covered pixels."""
    barycentric = to_image(weights, pixels).permute(0, 2, 3, 1)
    return Fragments(triangle, barycentric, to_image(depth, pixels).squeeze(1))


@torch.no_grad()
def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int, backend: Backend) -> Tensor:
    """The (B,H,W) int64 triangle ids of `rasterize` alone, without gradients; -1 is background."""
    if height < 1 or width < 1:
        raise RenderingError(f"an image needs at least one pixel, got height {height} and width {width}")
    check_vertices(vertices, wait=backend.waits)
    snapped = vertices.detach().to(torch.float64, copy=True)
    snapped[..., :2].mul_(SUBPIXELS).round_().div_(SUBPIXELS)
    return backend.triangle_ids(snapped, triangles, height, width)

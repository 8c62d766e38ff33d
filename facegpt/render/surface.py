"""What a surface looks like before light: vertex normals and texture look-up."""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.errors import RenderingError
from facegpt.render.pixels import Pixels, pack, unpack


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Unit normals (B,V,3) of vertices (B,V,3): the sum of the adjacent triangles' normals weighted by area.

    The frame is that of the vertices; counter-clockwise triangles give outward normals. A vertex without a
    triangle of positive area gets the zero vector.
    """
    batch, count, _ = vertices.shape
    # Rows (x, y, z of all B faces), so that one index moves 3B numbers.
    table = vertices.permute(1, 2, 0).reshape(count, -1)
    a, b, c = (table.index_select(0, corner).reshape(len(triangles), 3, batch) for corner in triangles.t())
    cross_products = torch.linalg.cross(b - a, c - a, dim=1).flatten(1)
    total = torch.zeros_like(table)
    for corner in triangles.t():
        total = total.index_add(0, corner, cross_products)
    return unit(total.reshape(count, 3, batch).transpose(0, 1)).permute(2, 1, 0)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (3,...) scaled to length 1; the zero vector stays zero, with a finite gradient."""
    return vectors * (vectors.square().sum(dim=0) + 1e-24).rsqrt()


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear texture look-up, differentiable in both.

    texture (B,H,W,C): row 0 at v = 1, texel centres at ((i+0.5)/W, 1-(j+0.5)/H); beyond the border the border
    texel repeats. uv (B,N,2), v up. Returns (B,N,C).
    """
    if 0 in texture.shape[1:3]:
        raise RenderingError(f"a texture needs at least one texel, got the shape {tuple(texture.shape)}")
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], dim=-1)[:, None]  # (B, 1, N, 2)
    # torch makes addresses of memory from it: what is not finite or huge must not get there, and everything
    # beyond 1 means the border texel.
    grid = grid.nan_to_num(0.0, 2.0, -2.0).clamp(-2, 2)
    sampled = torch.nn.functional.grid_sample(
        texture.permute(0, 3, 1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.squeeze(2).transpose(1, 2)


def texture_at(texture: Tensor, uv: Tensor, pixels: Pixels) -> Tensor:
    """`sample_texture` for a list of pixels: each face's texture (B,H,W,C) at uv (2,P) -> (C,P)."""
    return unpack(sample_texture(texture, pack(uv, pixels)), pixels)

"""Values at covered pixels: barycentric weights, interpolated attributes, normals and textures.

Covered pixels are gathered once into a list of P pixels over all B images; everything per pixel works on
(P,...) and goes back into images at the end. Backward passes are written out where autograd would be slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Doubled area in square pixels; the backward pass takes a smaller triangle as one of this area: the exact
# gradient grows with the inverse of a sliver's height and would drown all others.
SLIVER_AREA = 1e-3


@dataclass
class Pixels:
    """The P pixels of B images that see a triangle, in image order.

    index (P,): position in a flat (B,H,W) image. face (P,): image of the batch. triangle (P,): triangle seen.
    rows (P,3): its corners as rows of a flat (B*V, ...) vertex table. centers (P,2): x, y in pixels.
    shape: (B, H, W).
    """

    index: Tensor
    face: Tensor
    triangle: Tensor
    rows: Tensor
    centers: Tensor
    shape: tuple[int, int, int]


def covered_pixels(triangle_ids: Tensor, triangles: Tensor, vertex_count: int) -> Pixels:
    """List the covered pixels of (B,H,W) triangle ids (-1: background); `vertex_count` is V of the meshes."""
    batch, height, width = triangle_ids.shape
    flat = triangle_ids.flatten()
    index = (flat >= 0).nonzero().flatten()
    triangle = flat.index_select(0, index)
    face = index // (height * width)
    within = index - face * (height * width)
    row = within // width
    centers = torch.stack([within - row * width, row], dim=1) + 0.5
    rows = triangles.index_select(0, triangle) + (face * vertex_count)[:, None]
    return Pixels(index, face, triangle, rows, centers, (batch, height, width))


def barycentric_weights(vertices: Tensor, pixels: Pixels) -> Tensor:
    """Weights (P,3) of each pixel's triangle corners, in [0,1] with sum 1, differentiable in the vertices.

    vertices (B,V,3 or 2): x, y in pixels first.
    """
    return _BarycentricWeights.apply(vertices[..., :2].flatten(0, 1), pixels.rows, pixels.centers)


def interpolate(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Interpolate vertex attributes: table (R,C), rows (P,3) into it, weights (P,3) -> (P,C)."""
    return _Interpolate.apply(table, rows, weights)


def to_image(values: Tensor, pixels: Pixels) -> Tensor:
    """Spread a list (P,C) into images (B,H,W,C), 0 on the background."""
    batch, height, width = pixels.shape
    flat = values.new_zeros(batch * height * width, values.shape[1])
    return flat.index_copy(0, pixels.index, values).reshape(batch, height, width, -1)


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Unit normals (B,V,3) of vertices (B,V,3): the sum of the adjacent triangles' normals weighted by area.

    The frame is that of the vertices; counter-clockwise triangles give outward normals. A vertex without a
    triangle of positive area gets the zero vector.
    """
    batch, count, _ = vertices.shape
    # All faces of the batch in one row: one index addresses 3B numbers, and gathers and sums need 3F of them.
    table = vertices.transpose(0, 1).reshape(count, batch * 3)
    a, b, c = (table.index_select(0, triangles[:, i]).reshape(-1, batch, 3) for i in range(3))
    normals = torch.linalg.cross(b - a, c - a).reshape(-1, batch * 3)
    total = torch.zeros_like(table)
    for i in range(3):
        total = total.index_add(0, triangles[:, i], normals)
    return unit(total.reshape(count, batch, 3)).transpose(0, 1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (...,3) scaled to length 1; the zero vector stays zero, with a finite gradient."""
    return vectors * (vectors.square().sum(dim=-1, keepdim=True) + 1e-24).rsqrt()


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear texture look-up, differentiable in both.

    texture (B,H,W,C): row 0 at v = 1, texel centres at ((i+0.5)/W, 1-(j+0.5)/H); beyond the border the border
    texel repeats. uv (B,N,2), v up. Returns (B,N,C).
    """
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], dim=-1)[:, None]  # (B, 1, N, 2)
    sampled = torch.nn.functional.grid_sample(
        texture.permute(0, 3, 1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.squeeze(2).transpose(1, 2)


class _BarycentricWeights(torch.autograd.Function):
    """With Σ w_j v_j = p for a fixed pixel p, moving v_j by δ changes the weights like moving p by -w_j δ."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, rows: Tensor, centers: Tensor) -> Tensor:
        # float64: with float32 the weights of thin triangles are noise.
        corners = points.double().index_select(0, rows.flatten()).reshape(-1, 3, 2)
        a, b, c = corners.unbind(1)
        toward_b, toward_c, toward_p = b - a, c - a, centers - a
        area = _cross(toward_b, toward_c)
        safe = torch.where(area.abs() < 1e-12, torch.ones_like(area), area)
        second = _cross(toward_p, toward_c) / safe
        third = _cross(toward_b, toward_p) / safe
        # The ids come from snapped vertices, so a centre may lie a hair outside.
        weights = torch.stack([1 - second - third, second, third], dim=1).clamp(0, 1)
        weights = (weights / weights.sum(dim=1, keepdim=True)).to(points.dtype)
        ctx.save_for_backward(corners.to(points.dtype), area.to(points.dtype), rows, weights)
        ctx.count = len(points)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        corners, area, rows, weights = ctx.saved_tensors
        # The weight of corner i grows along the normal of the opposite edge: ∇w_i = rot90(edge_i) / area.
        edges = corners[:, [2, 0, 1]] - corners[:, [1, 2, 0]]  # (P, 3, 2)
        along = (grad[:, :, None] * edges).sum(dim=1)  # (P, 2)
        bounded = torch.where(area < 0, area.clamp(max=-SLIVER_AREA), area.clamp(min=SLIVER_AREA))
        of_pixel = torch.stack([-along[:, 1], along[:, 0]], dim=1) / bounded[:, None]
        of_corners = -weights[:, :, None] * of_pixel[:, None, :]
        total = grad.new_zeros(ctx.count, 2).index_add_(0, rows.flatten(), of_corners.flatten(0, 1))
        return total, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        corners = table.index_select(0, rows.flatten()).reshape(*rows.shape, -1)  # (P, 3, C)
        ctx.save_for_backward(corners, rows, weights)
        ctx.count = len(table)
        return (corners * weights[:, :, None]).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        corners, rows, weights = ctx.saved_tensors
        of_table = of_weights = None
        if ctx.needs_input_grad[0]:
            of_corners = (weights[:, :, None] * grad[:, None, :]).flatten(0, 1)
            of_table = grad.new_zeros(ctx.count, grad.shape[1]).index_add_(0, rows.flatten(), of_corners)
        if ctx.needs_input_grad[2]:
            of_weights = (corners * grad[:, None, :]).sum(dim=2)
        return of_table, None, of_weights


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]

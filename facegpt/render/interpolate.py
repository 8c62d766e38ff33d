"""Values at covered pixels: barycentric weights and interpolated attributes.

Covered pixels are gathered once into a list of P pixels over all B images; everything per pixel works on that
list and goes back into images at the end. Lists are channel-first, (C,P): torch then runs through contiguous
memory instead of rows of three, which is several times faster on a CPU. Backward passes are written out; the
same formulas as compiled loops are in `interpolate_numba`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.render.backends import resolve

# Doubled area in square pixels; the backward pass takes a smaller triangle as one of this area: the exact
# gradient grows with the inverse of a sliver's height and would drown all others.
SLIVER_AREA = 1e-3


@dataclass
class Pixels:
    """The P pixels of B images that see a triangle, in image order.

    For triton the list holds all pixels; face and rows are -1, and triangle 0, where nothing is seen.

    index (P,): position in a flat (B,H,W) image. face (P,): image of the batch. triangle (P,): triangle seen.
    rows (3,P): its corners, as columns of a flat (C,B*V) vertex table. centers (2,P): x, y in pixels.
    shape: (B, H, W).
    """

    index: Tensor
    face: Tensor
    triangle: Tensor
    rows: Tensor
    centers: Tensor
    shape: tuple[int, int, int]

    @cached_property
    def slots(self) -> tuple[Tensor, int]:
        """Positions (P,) of the pixels in a flat (B,N) block, one row per face, and its N (at least 1)."""
        counts = torch.bincount(self.face, minlength=self.shape[0])
        longest = max(int(counts.max()), 1)
        offset = torch.arange(len(counts), device=counts.device) * longest - (counts.cumsum(0) - counts)
        order = torch.arange(len(self.face), device=counts.device)
        return order + offset.index_select(0, self.face), longest


def covered_pixels(
    triangle_ids: Tensor, triangles: Tensor, vertex_count: int, dtype: torch.dtype, backend: str = "auto"
) -> Pixels:
    """List the covered pixels of (B,H,W) triangle ids (-1 is background).

    vertex_count is V of the meshes, dtype that of the pixel centres. For triton the list holds all pixels, as
    counting them would make the host wait: see `interpolate_triton.all_pixels`.
    """
    if resolve(backend, triangle_ids.device) == "triton":
        from facegpt.render.interpolate_triton import all_pixels

        return all_pixels(triangle_ids, triangles, vertex_count, dtype)
    batch, height, width = triangle_ids.shape
    face, row, column = (triangle_ids >= 0).nonzero().t().contiguous()
    index = (face * height + row) * width + column
    triangle = triangle_ids.flatten().index_select(0, index)
    centers = torch.stack([column, row]).to(dtype) + 0.5
    rows = triangles.t().contiguous().index_select(1, triangle) + face * vertex_count
    return Pixels(index, face, triangle, rows, centers, (batch, height, width))


def vertex_table(attributes: Tensor) -> Tensor:
    """Vertex attributes (B,V,C) as the table (C,B*V) that `Pixels.rows` points into."""
    return attributes.permute(2, 0, 1).flatten(1)


def barycentric_weights(points: Tensor, pixels: Pixels, backend: str = "auto") -> Tensor:
    """Weights (3,P) of each pixel's triangle corners, in [0,1] with sum 1, differentiable in the points.

    points (2,B*V): x, y of the vertices in pixels.
    """
    function: type[torch.autograd.Function] = _BarycentricWeights
    backend = resolve(backend, points.device)
    if backend == "numba":
        from facegpt.render.interpolate_numba import BarycentricWeights as function
    elif backend == "triton":
        from facegpt.render.interpolate_triton import BarycentricWeights as function
    weights: Tensor = function.apply(points, pixels.rows, pixels.centers)
    return weights


def interpolate(table: Tensor, rows: Tensor, weights: Tensor, backend: str = "auto") -> Tensor:
    """Interpolate attributes: table (C,R), rows (3,P) into it, weights (3,P) -> (C,P)."""
    function: type[torch.autograd.Function] = _Interpolate
    backend = resolve(backend, table.device)
    if backend == "numba":
        from facegpt.render.interpolate_numba import Interpolate as function
    elif backend == "triton":
        from facegpt.render.interpolate_triton import Interpolate as function
    values: Tensor = function.apply(table, rows, weights)
    return values


def to_image(values: Tensor, pixels: Pixels) -> Tensor:
    """Spread a list (C,P) into images (B,C,H,W), 0 on the background."""
    batch, height, width = pixels.shape
    if len(pixels.index) == batch * height * width:  # every pixel is there, in order
        return values.reshape(len(values), batch, height, width).transpose(0, 1)
    flat = values.new_zeros(len(values), batch * height * width)
    return flat.index_copy(1, pixels.index, values).reshape(len(values), batch, height, width).transpose(0, 1)


def pack(values: Tensor, pixels: Pixels) -> Tensor:
    """A list (C,P) as a block (B,N,C), one row per face, so that faces can be processed as a batch.

    The block is zero where a face has fewer pixels than N.
    """
    slots, longest = pixels.slots
    batch = pixels.shape[0]
    block = values.new_zeros(len(values), batch * longest).index_copy(1, slots, values)
    return block.reshape(-1, batch, longest).permute(1, 2, 0)


def unpack(block: Tensor, pixels: Pixels) -> Tensor:
    """The list (C,P) of a block (B,N,C) that `pack` laid out."""
    return block.permute(2, 0, 1).flatten(1).index_select(1, pixels.slots[0])


class _BarycentricWeights(torch.autograd.Function):
    """With Σ w_j v_j = p for a fixed pixel p, moving v_j by δ changes the weights like moving p by -w_j δ."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, rows: Tensor, centers: Tensor) -> Tensor:
        # Relative to the pixel all numbers are small, so float32 suffices for thin triangles too.
        corners = points.index_select(1, rows.flatten()).reshape(2, *rows.shape) - centers[:, None]
        x, y = corners  # (3, P) each
        opposite = torch.stack([x[i] * y[j] - y[i] * x[j] for i, j in ((1, 2), (2, 0), (0, 1))])
        area = opposite.sum(dim=0)  # doubled, signed
        # The ids come from snapped vertices, so a centre may lie a hair outside: hence the clamp.
        share = (opposite * area.sign()).clamp(min=1e-20)
        weights = share / share.sum(dim=0)
        ctx.save_for_backward(corners, area, rows, weights)
        ctx.count = points.shape[1]
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x, y), area, rows, weights = ctx.saved_tensors
        bounded = torch.where(area < 0, area.clamp(max=-SLIVER_AREA), area.clamp(min=SLIVER_AREA))
        # A weight grows along the normal of the opposite edge: ∇w_0 = (y_1 - y_2, x_2 - x_1) / area.
        a, b, c = grad
        along_x = a * (y[1] - y[2]) + b * (y[2] - y[0]) + c * (y[0] - y[1])
        along_y = a * (x[2] - x[1]) + b * (x[0] - x[2]) + c * (x[1] - x[0])
        of_pixel = torch.stack([along_x, along_y]) / bounded
        of_corners = -weights * of_pixel[:, None]  # (2, 3, P)
        total = grad.new_zeros(2, ctx.count).index_add_(1, rows.flatten(), of_corners.flatten(1))
        return total, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        corners = table.index_select(1, rows.flatten()).reshape(len(table), *rows.shape)
        ctx.save_for_backward(corners, rows, weights)
        ctx.count = table.shape[1]
        a, b, c = corners.unbind(1)
        return torch.addcmul(torch.addcmul(a * weights[0], b, weights[1]), c, weights[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        corners, rows, weights = ctx.saved_tensors
        of_table = of_weights = None
        if ctx.needs_input_grad[0]:
            of_corners = (grad[:, None] * weights).flatten(1)
            of_table = grad.new_zeros(len(grad), ctx.count).index_add_(1, rows.flatten(), of_corners)
        if ctx.needs_input_grad[2]:
            of_weights = (corners * grad[:, None]).sum(dim=0)
        return of_table, None, of_weights

"""Values at covered pixels: barycentric weights and interpolated attributes, backward passes written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.render.pixels import Pixels

# Doubled area in square pixels; the backward pass takes a smaller triangle as one of this area: the exact
# gradient grows with the inverse of a sliver's height and would drown all others.
SLIVER_AREA = 1e-3


def barycentric_weights(points: Tensor, pixels: Pixels) -> Tensor:
    """Weights (3,P) of each pixel's triangle corners, in [0,1] with sum 1, differentiable in the points.

    points (2,B*V): x, y of the vertices in pixels.
    """
    weights: Tensor = _TorchWeights.apply(points, pixels.rows, pixels.centers)
    return weights


def interpolate(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Interpolate attributes: table (C,R), rows (3,P) into it, weights (3,P) -> (C,P)."""
    values: Tensor = _TorchInterpolation.apply(table, rows, weights)
    return values


class _TorchWeights(torch.autograd.Function):
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
        grad_pixel = torch.stack([along_x, along_y]) / bounded
        grad_corners = -weights * grad_pixel[:, None]  # (2, 3, P)
        grad_points = grad.new_zeros(2, ctx.count)
        grad_points.index_add_(1, rows.flatten(), grad_corners.flatten(1))
        return grad_points, None, None


class _TorchInterpolation(torch.autograd.Function):
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
        grad_table = grad_weights = None
        if ctx.needs_input_grad[0]:
            grad_corners = (grad[:, None] * weights).flatten(1)
            grad_table = grad.new_zeros(len(grad), ctx.count).index_add_(1, rows.flatten(), grad_corners)
        if ctx.needs_input_grad[2]:
            grad_weights = (corners * grad[:, None]).sum(dim=0)
        return grad_table, None, grad_weights

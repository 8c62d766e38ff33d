"""The work of `render.pixels` and `render.interpolate` as triton kernels, for the GPU.

Same formulas as there. The list of pixels holds all pixels of the images in order, background too, so that no
shape depends on data: `all_pixels`. Background has the row and face -1 and gets zeros everywhere.

The forward passes are deterministic. Backward, the gradients of pixels are summed into their vertices by
float atomics, whose order, and with it the last digits, changes from run to run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.render.backends.triton.rasterize import block
from facegpt.render.interpolate import SLIVER_AREA
from facegpt.render.pixels import Pixels

_SLIVER_AREA = tl.constexpr(SLIVER_AREA)


def all_pixels(triangle_ids: Tensor, triangles: Tensor, vertex_count: int, dtype: torch.dtype) -> Pixels:
    """`pixels.covered_pixels`, but every pixel of (B,H,W) triangle ids is in the list.

    Where nothing is seen, triangle is 0, and face and rows are -1. All three are int32.
    """
    batch, height, width = triangle_ids.shape
    device, total = triangle_ids.device, triangle_ids.numel()
    rows = torch.empty(3, total, dtype=torch.int32, device=device)
    centers = torch.empty(2, total, dtype=dtype, device=device)
    face, triangle = (torch.empty(total, dtype=torch.int32, device=device) for _ in range(2))
    size = block(total)
    _list[_programs(total, size)](
        triangle_ids.contiguous(),
        triangles.contiguous(),
        rows,
        centers,
        face,
        triangle,
        total,
        height,
        width,
        vertex_count,
        BLOCK=size,
    )
    index = torch.arange(total, device=device)
    return Pixels(index, face, triangle, rows, centers, (batch, height, width))


class TritonWeights(torch.autograd.Function):
    """points (2,R), rows (3,P), centers (2,P) -> weights (3,P)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, rows: Tensor, centers: Tensor) -> Tensor:
        count = rows.shape[1]
        weights = torch.empty(3, count, dtype=points.dtype, device=points.device)
        size = block(count)
        _weights[_programs(count, size)](points, *points.stride(), rows, centers, weights, count, BLOCK=size)
        ctx.save_for_backward(points, rows, weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        points, rows, weights = ctx.saved_tensors
        grad_points, count = _zeros_by_row(points), rows.shape[1]
        size = block(count)
        _weights_backward[_programs(count, size)](
            points,
            *points.stride(),
            rows,
            weights,
            grad.contiguous(),
            grad_points,
            *grad_points.stride(),
            count,
            BLOCK=size,
        )
        return grad_points, None, None


class TritonInterpolation(torch.autograd.Function):
    """table (C,R), rows (3,P), weights (3,P) -> values (C,P)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        count = rows.shape[1]
        values = torch.empty(len(table), count, dtype=table.dtype, device=table.device)
        weights, size = weights.contiguous(), block(count)
        _interpolate[_programs(count, size)](
            table, *table.stride(), rows, weights, values, count, CHANNELS=len(table), BLOCK=size
        )
        ctx.save_for_backward(table, rows, weights)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        grad_table = _zeros_by_row(table) if ctx.needs_input_grad[0] else None
        grad_weights = torch.empty_like(weights) if ctx.needs_input_grad[2] else None
        count = rows.shape[1]
        size = block(count)
        scattered = table if grad_table is None else grad_table
        _interpolate_backward[_programs(count, size)](
            table,
            *table.stride(),
            rows,
            weights,
            grad.contiguous(),
            scattered,
            *scattered.stride(),
            weights if grad_weights is None else grad_weights,
            count,
            CHANNELS=len(table),
            GRAD_TABLE=grad_table is not None,
            GRAD_WEIGHTS=grad_weights is not None,
            BLOCK=size,
        )
        return grad_table, None, grad_weights


def _programs(count: int, size: int) -> tuple[int]:
    return (triton.cdiv(max(count, 1), size),)


def _zeros_by_row(table: Tensor) -> Tensor:
    """Zeros like a table (C,R), but with each column together in memory: sums of a vertex go side by side."""
    return torch.zeros(table.shape[1], len(table), dtype=table.dtype, device=table.device).t()


# From here on triton compiles.


@triton.jit
def _list(  # type: ignore[no-untyped-def]
    ids, triangles, rows, centers, face, triangle, total, height, width, vertex_count, BLOCK: tl.constexpr
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    real = p < total
    number = tl.load(ids + p, mask=real, other=-1)
    seen = number >= 0
    image = (p // (height * width)).to(tl.int64)
    place = p % (height * width)
    for k in tl.static_range(3):
        vertex = tl.load(triangles + 3 * number + k, mask=seen, other=0)
        tl.store(rows + k * total + p, tl.where(seen, vertex + image * vertex_count, -1), mask=real)
    tl.store(centers + p, (place % width).to(centers.dtype.element_ty) + 0.5, mask=real)
    tl.store(centers + total + p, (place // width).to(centers.dtype.element_ty) + 0.5, mask=real)
    tl.store(face + p, tl.where(seen, image, -1), mask=real)
    tl.store(triangle + p, tl.where(seen, number, 0), mask=real)


@triton.jit
def _rows(rows, p, count):  # type: ignore[no-untyped-def]
    """The three rows of pixels p and whether they see a triangle."""
    i = tl.load(rows + p, mask=p < count, other=-1)
    seen = i >= 0
    j = tl.load(rows + count + p, mask=seen, other=0)
    k = tl.load(rows + 2 * count + p, mask=seen, other=0)
    return tl.where(seen, i, 0), j, k, seen


@triton.jit
def _weights(  # type: ignore[no-untyped-def]
    points, axis, step, rows, centers, weights, count, BLOCK: tl.constexpr
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i, j, k, seen = _rows(rows, p, count)
    x = tl.load(centers + p, mask=seen, other=0.0)
    y = tl.load(centers + count + p, mask=seen, other=0.0)
    ax = tl.load(points + i * step, mask=seen, other=0.0) - x
    ay = tl.load(points + axis + i * step, mask=seen, other=0.0) - y
    bx = tl.load(points + j * step, mask=seen, other=0.0) - x
    by = tl.load(points + axis + j * step, mask=seen, other=0.0) - y
    cx = tl.load(points + k * step, mask=seen, other=0.0) - x
    cy = tl.load(points + axis + k * step, mask=seen, other=0.0) - y
    a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    area = a + b + c
    a, b, c = tl.where(area > 0, a, -a), tl.where(area > 0, b, -b), tl.where(area > 0, c, -c)
    a, b, c = tl.maximum(a, 1e-20), tl.maximum(b, 1e-20), tl.maximum(c, 1e-20)
    total = a + b + c
    tl.store(weights + p, tl.where(seen, a / total, 0.0), mask=p < count)
    tl.store(weights + count + p, tl.where(seen, b / total, 0.0), mask=p < count)
    tl.store(weights + 2 * count + p, tl.where(seen, c / total, 0.0), mask=p < count)


@triton.jit
def _weights_backward(  # type: ignore[no-untyped-def]
    points, axis, step, rows, weights, grad, grad_points, grad_axis, grad_step, count, BLOCK: tl.constexpr
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i, j, k, seen = _rows(rows, p, count)
    x0 = tl.load(points + i * step, mask=seen, other=0.0)
    x1 = tl.load(points + j * step, mask=seen, other=0.0)
    x2 = tl.load(points + k * step, mask=seen, other=0.0)
    y0 = tl.load(points + axis + i * step, mask=seen, other=0.0)
    y1 = tl.load(points + axis + j * step, mask=seen, other=0.0)
    y2 = tl.load(points + axis + k * step, mask=seen, other=0.0)
    a = tl.load(grad + p, mask=seen, other=0.0)
    b = tl.load(grad + count + p, mask=seen, other=0.0)
    c = tl.load(grad + 2 * count + p, mask=seen, other=0.0)
    # Relative to the first corner, as far-off triangles would lose their digits.
    area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
    area = tl.where(area < 0, tl.minimum(area, -_SLIVER_AREA), tl.maximum(area, _SLIVER_AREA))
    along_x = (a * (y1 - y2) + b * (y2 - y0) + c * (y0 - y1)) / area
    along_y = (a * (x2 - x1) + b * (x0 - x2) + c * (x1 - x0)) / area
    w = tl.load(weights + p, mask=seen, other=0.0)
    tl.atomic_add(grad_points + i * grad_step, -w * along_x, mask=seen, sem="relaxed")
    tl.atomic_add(grad_points + grad_axis + i * grad_step, -w * along_y, mask=seen, sem="relaxed")
    w = tl.load(weights + count + p, mask=seen, other=0.0)
    tl.atomic_add(grad_points + j * grad_step, -w * along_x, mask=seen, sem="relaxed")
    tl.atomic_add(grad_points + grad_axis + j * grad_step, -w * along_y, mask=seen, sem="relaxed")
    w = tl.load(weights + 2 * count + p, mask=seen, other=0.0)
    tl.atomic_add(grad_points + k * grad_step, -w * along_x, mask=seen, sem="relaxed")
    tl.atomic_add(grad_points + grad_axis + k * grad_step, -w * along_y, mask=seen, sem="relaxed")


@triton.jit
def _interpolate(  # type: ignore[no-untyped-def]
    table, channel, step, rows, weights, values, count, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i, j, k, seen = _rows(rows, p, count)
    a = tl.load(weights + p, mask=seen, other=0.0)
    b = tl.load(weights + count + p, mask=seen, other=0.0)
    c = tl.load(weights + 2 * count + p, mask=seen, other=0.0)
    first, second, third, out = table + i * step, table + j * step, table + k * step, values + p
    for _ in range(CHANNELS):
        value = tl.load(first, mask=seen, other=0.0) * a
        value += tl.load(second, mask=seen, other=0.0) * b
        value += tl.load(third, mask=seen, other=0.0) * c
        tl.store(out, value, mask=p < count)
        first, second, third, out = first + channel, second + channel, third + channel, out + count


@triton.jit
def _interpolate_backward(  # type: ignore[no-untyped-def]
    table,
    channel,
    step,
    rows,
    weights,
    grad,
    grad_table,
    grad_channel,
    grad_step,
    grad_weights,
    count,
    CHANNELS: tl.constexpr,
    GRAD_TABLE: tl.constexpr,
    GRAD_WEIGHTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    i, j, k, seen = _rows(rows, p, count)
    a = tl.load(weights + p, mask=seen, other=0.0)
    b = tl.load(weights + count + p, mask=seen, other=0.0)
    c = tl.load(weights + 2 * count + p, mask=seen, other=0.0)
    grad_a, grad_b, grad_c = a * 0, b * 0, c * 0
    given, column, out = grad + p, table, grad_table
    for _ in range(CHANNELS):
        g = tl.load(given, mask=seen, other=0.0)
        if GRAD_TABLE:
            tl.atomic_add(out + i * grad_step, a * g, mask=seen, sem="relaxed")
            tl.atomic_add(out + j * grad_step, b * g, mask=seen, sem="relaxed")
            tl.atomic_add(out + k * grad_step, c * g, mask=seen, sem="relaxed")
        if GRAD_WEIGHTS:
            grad_a += g * tl.load(column + i * step, mask=seen, other=0.0)
            grad_b += g * tl.load(column + j * step, mask=seen, other=0.0)
            grad_c += g * tl.load(column + k * step, mask=seen, other=0.0)
        given, column, out = given + count, column + channel, out + grad_channel
    if GRAD_WEIGHTS:
        tl.store(grad_weights + p, grad_a, mask=p < count)
        tl.store(grad_weights + count + p, grad_b, mask=p < count)
        tl.store(grad_weights + 2 * count + p, grad_c, mask=p < count)

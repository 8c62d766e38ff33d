"""Vertex normals as triton kernels, for the GPU: the work of `surface.vertex_normals`.

One lane per vertex walks through its triangles in a fixed order, forward and backward, so that both are the
same every time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.render.backends.triton.rasterize import block


class TritonNormals(torch.autograd.Function):
    """vertices (B,V,3), triangles (F,3) -> unit normals (B,V,3)."""

    @staticmethod
    def forward(ctx: Any, vertices: Tensor, triangles: Tensor) -> Tensor:
        vertices, triangles = vertices.contiguous(), triangles.contiguous()
        batch, count, _ = vertices.shape
        starts, incident = _incidence(triangles, count)
        normals, length = torch.empty_like(vertices), vertices.new_empty(batch, count)
        size = block(count)
        _normals[(triton.cdiv(max(count, 1), size), batch)](
            vertices, triangles, starts, incident, normals, length, count, BLOCK=size
        )
        ctx.save_for_backward(vertices, triangles, starts, incident, normals, length)
        return normals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        vertices, triangles, starts, incident, normals, length = ctx.saved_tensors
        # Through the division by the length: of the gradient only what turns the normal is left.
        along = (grad * normals).sum(dim=2, keepdim=True)
        grad_sum = ((grad - along * normals) / length[:, :, None]).contiguous()
        grad_vertices, count = torch.empty_like(vertices), vertices.shape[1]
        size = block(count)
        _normals_backward[(triton.cdiv(max(count, 1), size), len(vertices))](
            vertices, triangles, starts, incident, grad_sum, grad_vertices, count, BLOCK=size
        )
        return grad_vertices, None


def _incidence(triangles: Tensor, vertex_count: int) -> tuple[Tensor, Tensor]:
    """Which triangles a vertex belongs to: starts (V+1,), and corners sorted by vertex, as 3 triangle + k."""
    vertex, corner = triangles.flatten().sort(stable=True)
    starts = torch.searchsorted(vertex, torch.arange(vertex_count + 1, device=triangles.device))
    return starts, corner


# From here on triton compiles.


@triton.jit
def _normals(  # type: ignore[no-untyped-def]
    vertices, triangles, starts, incident, normals, length, count, BLOCK: tl.constexpr
):
    """One lane per vertex walks through its triangles."""
    vertex = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    face = tl.program_id(1).to(tl.int64)
    real = vertex < count
    points = vertices + face * count * 3
    start = tl.load(starts + vertex, mask=real, other=0)
    end = tl.load(starts + vertex + 1, mask=real, other=0)
    zero = tl.load(points + 3 * vertex, mask=real, other=0.0) * 0
    x, y, z = zero, zero, zero
    for step in range(tl.max(end - start).to(tl.int32)):
        live = start + step < end
        t = tl.load(incident + start + step, mask=live, other=0) // 3
        ux, uy, uz, wx, wy, wz, _, _, _ = _edges(points, triangles, t, live)
        x += uy * wz - uz * wy
        y += uz * wx - ux * wz
        z += ux * wy - uy * wx
    size = tl.sqrt(x * x + y * y + z * z + 1e-24)
    out = normals + face * count * 3 + 3 * vertex
    tl.store(out, x / size, mask=real)
    tl.store(out + 1, y / size, mask=real)
    tl.store(out + 2, z / size, mask=real)
    tl.store(length + face * count + vertex, size, mask=real)


@triton.jit
def _edges(points, triangles, t, live):  # type: ignore[no-untyped-def]
    """The edges from the first to the second and third corner of triangles t, and the three corners."""
    i = tl.load(triangles + 3 * t, mask=live, other=0)
    j = tl.load(triangles + 3 * t + 1, mask=live, other=0)
    k = tl.load(triangles + 3 * t + 2, mask=live, other=0)
    x, y, z = tl.load(points + 3 * i), tl.load(points + 3 * i + 1), tl.load(points + 3 * i + 2)
    ux, uy, uz = (
        tl.load(points + 3 * j) - x,
        tl.load(points + 3 * j + 1) - y,
        tl.load(points + 3 * j + 2) - z,
    )
    wx, wy, wz = (
        tl.load(points + 3 * k) - x,
        tl.load(points + 3 * k + 1) - y,
        tl.load(points + 3 * k + 2) - z,
    )
    return ux, uy, uz, wx, wy, wz, i, j, k


@triton.jit
def _normals_backward(  # type: ignore[no-untyped-def]
    vertices, triangles, starts, incident, grad_sum, grad_vertices, count, BLOCK: tl.constexpr
):
    """One lane per vertex collects what its triangles owe it: for n = u x w it is w x g to u, g x u to w."""
    vertex = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    face = tl.program_id(1).to(tl.int64)
    real = vertex < count
    points, sums = vertices + face * count * 3, grad_sum + face * count * 3
    start = tl.load(starts + vertex, mask=real, other=0)
    end = tl.load(starts + vertex + 1, mask=real, other=0)
    zero = tl.load(points + 3 * vertex, mask=real, other=0.0) * 0
    ox, oy, oz = zero, zero, zero
    for step in range(tl.max(end - start).to(tl.int32)):
        live = start + step < end
        corner = tl.load(incident + start + step, mask=live, other=0)
        ux, uy, uz, wx, wy, wz, i, j, k = _edges(points, triangles, corner // 3, live)
        x = tl.load(sums + 3 * i) + tl.load(sums + 3 * j) + tl.load(sums + 3 * k)
        y = tl.load(sums + 3 * i + 1) + tl.load(sums + 3 * j + 1) + tl.load(sums + 3 * k + 1)
        z = tl.load(sums + 3 * i + 2) + tl.load(sums + 3 * j + 2) + tl.load(sums + 3 * k + 2)
        to_second = live & (corner % 3 != 2)  # the first corner's gradient is minus that of both others
        to_third = live & (corner % 3 != 1)
        sign = tl.where(corner % 3 == 0, -1.0, 1.0)
        ox += sign * (tl.where(to_second, wy * z - wz * y, 0.0) + tl.where(to_third, y * uz - z * uy, 0.0))
        oy += sign * (tl.where(to_second, wz * x - wx * z, 0.0) + tl.where(to_third, z * ux - x * uz, 0.0))
        oz += sign * (tl.where(to_second, wx * y - wy * x, 0.0) + tl.where(to_third, x * uy - y * ux, 0.0))
    out = grad_vertices + face * count * 3 + 3 * vertex
    tl.store(out, ox, mask=real)
    tl.store(out + 1, oy, mask=real)
    tl.store(out + 2, oz, mask=real)

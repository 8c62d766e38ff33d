"""The work of `interpolate` and `surface` as loops compiled by numba, for the CPU (an optional dependency).

Same formulas as there; a loop without temporary arrays is several times faster than a chain of tensor
operations when there is one thread.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.head.compiled import as_array, loop
from facegpt.render.interpolate import SLIVER_AREA


class BarycentricWeights(torch.autograd.Function):
    """points (2,R), rows (3,P), centers (2,P) -> weights (3,P)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, rows: Tensor, centers: Tensor) -> Tensor:
        weights, area = points.new_empty(rows.shape), points.new_empty(rows.shape[1])
        _weights(as_array(points), as_array(rows), as_array(centers), as_array(weights), as_array(area))
        ctx.save_for_backward(points, rows, weights, area)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        points, rows, weights, area = ctx.saved_tensors
        total = torch.zeros_like(points, memory_format=torch.contiguous_format)
        _weights_backward(*map(as_array, (points, rows, weights, area, grad, total)))
        return total, None, None


class Interpolate(torch.autograd.Function):
    """table (C,R), rows (3,P), weights (3,P) -> values (C,P)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        values = table.new_empty(len(table), rows.shape[1])
        _interpolate(as_array(table), as_array(rows), as_array(weights), as_array(values))
        ctx.save_for_backward(table, rows, weights)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        of_table = of_weights = None
        if ctx.needs_input_grad[0]:
            of_table = torch.zeros_like(table, memory_format=torch.contiguous_format)
            _scatter(as_array(rows), as_array(weights), as_array(grad), as_array(of_table))
        if ctx.needs_input_grad[2]:
            of_weights = torch.zeros_like(weights)
            _weigh(as_array(table), as_array(rows), as_array(grad), as_array(of_weights))
        return of_table, None, of_weights


class VertexNormals(torch.autograd.Function):
    """vertices (B,V,3), triangles (F,3) -> unit normals (B,V,3)."""

    @staticmethod
    def forward(ctx: Any, vertices: Tensor, triangles: Tensor) -> Tensor:
        normals = torch.zeros_like(vertices, memory_format=torch.contiguous_format)
        length = vertices.new_empty(vertices.shape[:2])
        _normals(as_array(vertices), as_array(triangles), as_array(normals), as_array(length))
        ctx.save_for_backward(vertices, triangles, normals, length)
        return normals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        vertices, triangles, normals, length = ctx.saved_tensors
        total = torch.zeros_like(vertices, memory_format=torch.contiguous_format)
        _normals_backward(*map(as_array, (vertices, triangles, normals, length, grad, total)))
        return total, None


@loop
def _weights(points, rows, centers, weights, area):
    for p in range(rows.shape[1]):
        i, j, k = rows[0, p], rows[1, p], rows[2, p]
        x, y = centers[0, p], centers[1, p]
        ax, ay = points[0, i] - x, points[1, i] - y
        bx, by = points[0, j] - x, points[1, j] - y
        cx, cy = points[0, k] - x, points[1, k] - y
        a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
        area[p] = a + b + c
        sign = 1.0 if area[p] > 0 else -1.0
        a, b, c = max(sign * a, 1e-20), max(sign * b, 1e-20), max(sign * c, 1e-20)
        total = a + b + c
        weights[0, p], weights[1, p], weights[2, p] = a / total, b / total, c / total


@loop
def _weights_backward(points, rows, weights, area, grad, total):
    for p in range(rows.shape[1]):
        i, j, k = rows[0, p], rows[1, p], rows[2, p]
        a, b, c = grad[0, p], grad[1, p], grad[2, p]
        size = min(area[p], -SLIVER_AREA) if area[p] < 0 else max(area[p], SLIVER_AREA)
        y0, y1, y2 = points[1, i], points[1, j], points[1, k]
        x0, x1, x2 = points[0, i], points[0, j], points[0, k]
        along_x = (a * (y1 - y2) + b * (y2 - y0) + c * (y0 - y1)) / size
        along_y = (a * (x2 - x1) + b * (x0 - x2) + c * (x1 - x0)) / size
        for corner in range(3):
            row, weight = rows[corner, p], weights[corner, p]
            total[0, row] -= weight * along_x
            total[1, row] -= weight * along_y


@loop
def _interpolate(table, rows, weights, values):
    for channel in range(table.shape[0]):
        for p in range(rows.shape[1]):
            values[channel, p] = (
                table[channel, rows[0, p]] * weights[0, p]
                + table[channel, rows[1, p]] * weights[1, p]
                + table[channel, rows[2, p]] * weights[2, p]
            )


@loop
def _scatter(rows, weights, grad, total):
    for channel in range(grad.shape[0]):
        for p in range(rows.shape[1]):
            value = grad[channel, p]
            for corner in range(3):
                total[channel, rows[corner, p]] += weights[corner, p] * value


@loop
def _weigh(table, rows, grad, total):
    for channel in range(grad.shape[0]):
        for p in range(rows.shape[1]):
            value = grad[channel, p]
            for corner in range(3):
                total[corner, p] += table[channel, rows[corner, p]] * value


@loop
def _normals(vertices, triangles, normals, length):
    for b in range(vertices.shape[0]):
        add_normals(vertices[b], triangles, normals[b], length[b])


@loop
def _normals_backward(vertices, triangles, normals, length, grad, total):
    for b in range(vertices.shape[0]):
        add_normals_backward(vertices[b], triangles, normals[b], length[b], grad[b], total[b])


@loop
def add_normals(v, triangles, n, length):
    """Unit normals n (V,3), zero before, of one face's vertices v (V,3); length (V,) is what they had."""
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1], v[j, 2] - v[i, 2]
        wx, wy, wz = v[k, 0] - v[i, 0], v[k, 1] - v[i, 1], v[k, 2] - v[i, 2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for row in (i, j, k):
            n[row, 0] += x
            n[row, 1] += y
            n[row, 2] += z
    for row in range(n.shape[0]):
        x, y, z = n[row, 0], n[row, 1], n[row, 2]
        size = math.sqrt(x * x + y * y + z * z + 1e-24)
        n[row, 0], n[row, 1], n[row, 2], length[row] = x / size, y / size, z / size, size


@loop
def add_normals_backward(v, triangles, normals, length, grad, out):
    """Adds to out (V,3) what grad (V,3) of the unit normals is to the vertices."""
    of_sum = np.empty_like(grad)
    for row in range(v.shape[0]):
        x, y, z = normals[row, 0], normals[row, 1], normals[row, 2]
        gx, gy, gz = grad[row, 0], grad[row, 1], grad[row, 2]
        along, size = x * gx + y * gy + z * gz, length[row]
        of_sum[row, 0] = (gx - along * x) / size
        of_sum[row, 1] = (gy - along * y) / size
        of_sum[row, 2] = (gz - along * z) / size
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1], v[j, 2] - v[i, 2]
        wx, wy, wz = v[k, 0] - v[i, 0], v[k, 1] - v[i, 1], v[k, 2] - v[i, 2]
        x = of_sum[i, 0] + of_sum[j, 0] + of_sum[k, 0]
        y = of_sum[i, 1] + of_sum[j, 1] + of_sum[k, 1]
        z = of_sum[i, 2] + of_sum[j, 2] + of_sum[k, 2]
        # n = u x w: its gradient to u is w x g, to w it is g x u.
        pu, qu, ru = wy * z - wz * y, wz * x - wx * z, wx * y - wy * x
        pw, qw, rw = y * uz - z * uy, z * ux - x * uz, x * uy - y * ux
        out[j, 0] += pu
        out[j, 1] += qu
        out[j, 2] += ru
        out[k, 0] += pw
        out[k, 1] += qw
        out[k, 2] += rw
        out[i, 0] -= pu + pw
        out[i, 1] -= qu + qw
        out[i, 2] -= ru + rw

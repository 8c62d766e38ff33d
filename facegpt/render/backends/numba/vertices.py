"""Camera and vertex normals as one loop over the vertices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.head.compiled import loop
from facegpt.render.backends.numba.threads import run_faces


class ProjectFunction(torch.autograd.Function):
    """`camera.project` and `surface.vertex_normals` in one.

    vertices (B,V,3), camera (B,3), triangles (F,3), height, width -> projected (B,V,3), unit normals (B,V,3).
    """

    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, camera: Tensor, triangles: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        projected = torch.empty_like(vertices, memory_format=torch.contiguous_format)
        normals = torch.zeros_like(projected)
        lengths = vertices.new_empty(vertices.shape[:2])
        run_faces(_project, [vertices, camera, projected, normals, lengths], [triangles.int(), height, width])
        ctx.save_for_backward(vertices, camera, triangles, normals, lengths)
        ctx.size = (height, width)
        ctx.set_materialize_grads(False)
        return projected, normals

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_projected: Tensor | None, grad_normals: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        vertices, camera, triangles, normals, lengths = ctx.saved_tensors
        zero = torch.zeros_like(normals) if grad_projected is None or grad_normals is None else normals
        grad_projected = zero if grad_projected is None else grad_projected
        grad_normals = zero if grad_normals is None else grad_normals
        grad_vertices, grad_camera = torch.zeros_like(normals), torch.zeros_like(camera)
        given = [vertices, camera, normals, lengths, grad_projected, grad_normals]
        run_faces(_project_backward, [*given, grad_vertices, grad_camera], [triangles.int(), *ctx.size])
        return grad_vertices, grad_camera, None, None, None


@loop
def _project(vertices, camera, projected, normals, lengths, triangles, height, width):
    half = min(height, width) / 2
    scale, right, up = camera[0], camera[1], camera[2]
    for v in range(vertices.shape[0]):
        projected[v, 0] = width / 2 + half * (scale * (vertices[v, 0] + right))
        projected[v, 1] = height / 2 - half * (scale * (vertices[v, 1] + up))
        projected[v, 2] = -scale * vertices[v, 2]
    vertex_normals(vertices, triangles, normals, lengths)


@loop
def _project_backward(
    vertices,
    camera,
    normals,
    lengths,
    grad_projected,
    grad_normals,
    grad_vertices,
    grad_camera,
    triangles,
    height,
    width,
):
    half = min(height, width) / 2
    scale, right, up = camera[0], camera[1], camera[2]
    grad_scale, grad_right, grad_up = 0.0, 0.0, 0.0
    for v in range(vertices.shape[0]):
        px, py, pz = half * grad_projected[v, 0], -half * grad_projected[v, 1], -grad_projected[v, 2]
        grad_scale += px * (vertices[v, 0] + right) + py * (vertices[v, 1] + up) + pz * vertices[v, 2]
        grad_right += px
        grad_up += py
        grad_vertices[v, 0], grad_vertices[v, 1], grad_vertices[v, 2] = scale * px, scale * py, scale * pz
    grad_camera[0], grad_camera[1], grad_camera[2] = grad_scale, scale * grad_right, scale * grad_up
    vertex_normals_backward(vertices, triangles, normals, lengths, grad_normals, grad_vertices)


@loop
def vertex_normals(v, triangles, n, length):
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
def vertex_normals_backward(v, triangles, normals, length, grad, grad_v):
    """Adds the gradient of the vertices to grad_v (V,3), from that of the unit normals, grad (V,3)."""
    grad_sum = np.empty_like(grad)
    for row in range(v.shape[0]):
        x, y, z = normals[row, 0], normals[row, 1], normals[row, 2]
        gx, gy, gz = grad[row, 0], grad[row, 1], grad[row, 2]
        along, size = x * gx + y * gy + z * gz, length[row]
        grad_sum[row, 0] = (gx - along * x) / size
        grad_sum[row, 1] = (gy - along * y) / size
        grad_sum[row, 2] = (gz - along * z) / size
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = v[j, 0] - v[i, 0], v[j, 1] - v[i, 1], v[j, 2] - v[i, 2]
        wx, wy, wz = v[k, 0] - v[i, 0], v[k, 1] - v[i, 1], v[k, 2] - v[i, 2]
        x = grad_sum[i, 0] + grad_sum[j, 0] + grad_sum[k, 0]
        y = grad_sum[i, 1] + grad_sum[j, 1] + grad_sum[k, 1]
        z = grad_sum[i, 2] + grad_sum[j, 2] + grad_sum[k, 2]
        # n = u x w: its gradient to u is w x g, to w it is g x u.
        pu, qu, ru = wy * z - wz * y, wz * x - wx * z, wx * y - wy * x
        pw, qw, rw = y * uz - z * uy, z * ux - x * uz, x * uy - y * ux
        grad_v[j, 0] += pu
        grad_v[j, 1] += qu
        grad_v[j, 2] += ru
        grad_v[k, 0] += pw
        grad_v[k, 1] += qw
        grad_v[k, 2] += rw
        grad_v[i, 0] -= pu + pw
        grad_v[i, 1] -= qu + qw
        grad_v[i, 2] -= ru + rw

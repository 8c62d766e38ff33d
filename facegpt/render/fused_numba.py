"""The renderer's work as few compiled loops, for the CPU (optional): over vertices and over pixels.

Same formulas as `camera`, `surface`, `interpolate` and `lighting`, which they are tested against. Nothing
between vertices and images is stored per pixel but what a `Rendering` holds; the backward pass computes the
rest again. Faces are spread over plain threads, and each is summed by one of them: the result is the same to
the last bit in every run and for every number of threads, forward and backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.render.interpolate_numba import add_normals, add_normals_backward, as_array
from facegpt.render.lighting import BAND_CONSTANTS
from facegpt.render.pixels_backward_numba import shade_backward
from facegpt.render.pixels_numba import number_texels, shade, weigh
from facegpt.render.threads import for_each_face

_BANDS = np.array(BAND_CONSTANTS)


class Vertices(torch.autograd.Function):
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
        faces = [as_array(tensor) for tensor in (vertices, camera, projected, normals, lengths)]
        corners = as_array(triangles)
        _run(_vertices, faces, [corners, height, width])
        ctx.save_for_backward(vertices, camera, triangles, normals, lengths)
        ctx.size = (height, width)
        ctx.set_materialize_grads(False)
        return projected, normals

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_projected: Tensor | None, of_normals: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        vertices, camera, triangles, normals, lengths = ctx.saved_tensors
        zero = torch.zeros_like(normals) if of_projected is None or of_normals is None else normals
        of_projected = zero if of_projected is None else of_projected
        of_normals = zero if of_normals is None else of_normals
        total, of_camera = torch.zeros_like(normals), torch.zeros_like(camera)
        tensors = (vertices, camera, normals, lengths, of_projected, of_normals, total, of_camera)
        faces, corners = [as_array(tensor) for tensor in tensors], as_array(triangles)
        _run(_vertices_backward, faces, [corners, *ctx.size])
        return total, of_camera, None, None, None


class Pixels(torch.autograd.Function):
    """Everything per pixel: from the triangle that it sees to its colour.

    projected, normals (B,V,3): of the vertices. lighting (B,27). ids (B,H,W): triangles seen. uv (T,2).
    The texture: mean (h,w,3) with basis (h,w,3,A) and coefficients (B,A), made only where it is looked at and
    clamped as in `HeadModel.albedo`; or, if basis is None, coefficients is the texture (B,h,w,3) itself.
    skin_triangles (F,) bool.
    -> image (B,3,H,W) on black, normals (B,3,H,W), depth (B,H,W), barycentric weights (B,H,W,3), and without
    gradient mask and skin mask (B,H,W).
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        normals: Tensor,
        lighting: Tensor,
        coefficients: Tensor,
        ids: Tensor,
        triangles: Tensor,
        uv: Tensor,
        uv_triangles: Tensor,
        mean: Tensor | None,
        basis: Tensor | None,
        skin_triangles: Tensor,
    ) -> tuple[Tensor, ...]:
        batch, height, width = ids.shape
        image = projected.new_zeros(batch, 3, height, width)
        seen_normals = torch.zeros_like(image)
        depth = projected.new_zeros(batch, height, width)
        mask, skin = torch.zeros_like(depth), torch.zeros_like(depth)
        weights = projected.new_zeros(batch, height, width, 3)
        texture_size = coefficients.shape[1:3] if basis is None else basis.shape[:2]
        slots = torch.full(tuple(texture_size), -1, dtype=torch.int32)
        constant = [as_array(tensor) for tensor in (triangles, uv, uv_triangles, skin_triangles, slots)]
        first = [as_array(tensor) for tensor in (ids, projected, depth, weights, mask, skin)]
        _run(weigh, first, constant)
        if basis is None or mean is None:
            rows, values, clamp = None, coefficients.reshape(batch, -1), False
            slots = torch.arange(slots.numel(), dtype=torch.int32).view_as(slots)
        else:
            seen = torch.empty(slots.numel(), dtype=torch.int64)
            seen = seen[: number_texels(as_array(slots), as_array(seen))]
            rows = basis.flatten(2).flatten(0, 1).index_select(0, seen).view(-1, basis.shape[3])
            values = torch.addmm(mean.flatten(0, 1).index_select(0, seen).view(-1), coefficients, rows.t())
            clamp = True
        constant = [as_array(tensor) for tensor in (triangles, uv, uv_triangles, slots)]
        pixels = (ids.flatten(1), weights.flatten(1, 2), normals, lighting, values)
        second = [as_array(t) for t in (*pixels, image.flatten(2), seen_normals.flatten(2))]
        _run(shade, second, [*constant, clamp, _BANDS])
        ctx.save_for_backward(
            projected, normals, lighting, values, ids, weights, triangles, uv, uv_triangles, slots, rows
        )
        ctx.shape = coefficients.shape
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mask, skin)
        return image, seen_normals, depth, weights, mask, skin

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        projected, normals, lighting, values, ids, weights, *constant, rows = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3]
        of_projected = torch.zeros_like(projected, memory_format=torch.contiguous_format)
        of_normals = torch.zeros_like(of_projected)
        of_lighting = torch.zeros(lighting.shape, dtype=torch.float64)  # thousands of pixels add up
        of_values = torch.zeros_like(values) if wanted else values
        batch = len(ids)
        grads = grads[:4]
        given = tuple(grad is not None for grad in grads)
        # a missing gradient is not read, but numba wants an array
        missing = [weights.new_zeros(batch, *shape) for shape in ((3, 1, 1), (3, 1, 1), (1, 1), (1, 1, 3))]
        outputs = [blank if grad is None else grad for blank, grad in zip(missing, grads, strict=True)]
        outputs = [g.flatten(rank) for g, rank in zip(outputs, (2, 2, 1, 1), strict=True)]
        outputs[3] = outputs[3].view(batch, -1, 3)
        tensors = (ids.flatten(1), weights.flatten(1, 2), projected, normals, lighting, values, *outputs)
        totals = (of_projected, of_normals, of_lighting, of_values)
        faces = [as_array(tensor) for tensor in (*tensors, *totals)]
        shared = [as_array(tensor) for tensor in constant]
        _run(shade_backward, faces, [*shared, rows is not None, wanted, given, _BANDS])
        of_coefficients = None
        if wanted:
            of_coefficients = of_values.view(ctx.shape) if rows is None else of_values @ rows
        return of_projected, of_normals, of_lighting.to(lighting.dtype), of_coefficients, *[None] * 7


def _run(loop: Any, of_faces: list[np.ndarray], shared: list[Any]) -> None:
    """Call a compiled loop for each face: with its part of the first arrays, and with the others whole."""
    for_each_face(lambda face: loop(*(array[face] for array in of_faces), *shared), len(of_faces[0]))


# From here on numba infers the types.


@njit(cache=True, nogil=True)
def _vertices(vertices, camera, projected, normals, lengths, triangles, height, width):
    half = min(height, width) / 2
    scale, right, up = camera[0], camera[1], camera[2]
    for v in range(vertices.shape[0]):
        projected[v, 0] = width / 2 + half * (scale * (vertices[v, 0] + right))
        projected[v, 1] = height / 2 - half * (scale * (vertices[v, 1] + up))
        projected[v, 2] = -scale * vertices[v, 2]
    add_normals(vertices, triangles, normals, lengths)


@njit(cache=True, nogil=True)
def _vertices_backward(
    vertices, camera, normals, lengths, of_projected, of_normals, total, of_camera, triangles, height, width
):
    half = min(height, width) / 2
    scale, right, up = camera[0], camera[1], camera[2]
    of_scale, of_right, of_up = 0.0, 0.0, 0.0
    for v in range(vertices.shape[0]):
        px, py, pz = half * of_projected[v, 0], -half * of_projected[v, 1], -of_projected[v, 2]
        of_scale += px * (vertices[v, 0] + right) + py * (vertices[v, 1] + up) + pz * vertices[v, 2]
        of_right += px
        of_up += py
        total[v, 0], total[v, 1], total[v, 2] = scale * px, scale * py, scale * pz
    of_camera[0], of_camera[1], of_camera[2] = of_scale, scale * of_right, scale * of_up
    add_normals_backward(vertices, triangles, normals, lengths, of_normals, total)

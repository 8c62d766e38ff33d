"""The renderer's work as few compiled loops, for the CPU (optional): over vertices and over pixels.

Same formulas as `camera`, `surface`, `interpolate` and `lighting`, which they are tested against. Nothing
between vertices and image is stored but where pixels see their triangles; the backward pass computes the rest
again. Faces are spread over plain threads, and each is summed by one of them: the result is the same to the
last bit in every run and for every number of threads, forward and backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.head.compiled import as_array, loop
from facegpt.head.lbs import blend_backward, blend_forward
from facegpt.render.interpolate_numba import add_normals, add_normals_backward
from facegpt.render.lighting import BAND_CONSTANTS
from facegpt.render.pixels_backward_numba import shade_backward
from facegpt.render.pixels_numba import shade
from facegpt.render.threads import for_each_face
from facegpt.render.visible_numba import locate, number_texels, sort_pixels

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
        _run(_vertices, [vertices, camera, projected, normals, lengths], [triangles.int(), height, width])
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
        tensors = [vertices, camera, normals, lengths, of_projected, of_normals, total, of_camera]
        _run(_vertices_backward, tensors, [triangles.int(), *ctx.size])
        return total, of_camera, None, None, None


class Pixels(torch.autograd.Function):
    """Everything per pixel: from the triangle that it sees to its colour.

    projected, normals (B,V,3): of the vertices. lighting (B,27). ids (B,H,W): triangles seen. uv (T,2).
    The texture: mean (h,w,3) with basis (h,w,3,A) and coefficients (B,A), made only where it is looked at and
    clamped as in `HeadModel.albedo`; or, if basis is None, coefficients is the texture (B,h,w,3) itself.
    skin_triangles (F,) bool.
    -> image (B,3,H,W) on black and, without gradient, mask and skin mask (B,H,W).
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
        mask, skin = projected.new_zeros(2, batch, height, width)
        order = torch.empty(batch, height * width, dtype=torch.int32)
        visible, ends = torch.empty(2, batch, min(len(triangles), height * width), dtype=torch.int32)
        total = torch.empty(batch, 1, dtype=torch.int64)
        inside = projected.new_empty(batch, 5, height * width)
        corners = torch.cat([triangles, uv_triangles], dim=1).int()
        size = tuple(coefficients.shape[1:3] if basis is None else basis.shape[:2])
        looked = torch.zeros(size, dtype=torch.bool)

        seen = (order, visible, ends, total)
        masks = (ids.flatten(1), mask.flatten(1), skin.flatten(1))
        _run(sort_pixels, [*seen, *masks], [skin_triangles])
        _run(locate, [*seen, projected, inside], [corners, uv, looked, width])
        if basis is None or mean is None:
            rows, values = None, coefficients.reshape(batch, -1)
            slots = torch.arange(looked.numel(), dtype=torch.int32).view(size)
        else:
            slots = torch.empty(size, dtype=torch.int32)
            texels = torch.empty(looked.numel(), dtype=torch.int64)
            texels = texels[: number_texels(*map(as_array, (looked, slots, texels)))]
            rows = basis.flatten(2).flatten(0, 1).index_select(0, texels).view(-1, basis.shape[3])
            values = blend_forward(coefficients, mean.flatten(0, 1).index_select(0, texels).view(-1), rows)
        given = (*seen, inside, normals, lighting, values)
        _run(shade, [*given, image.flatten(2)], [corners, slots, rows is not None, _BANDS])
        ctx.shape = coefficients.shape
        ctx.save_for_backward(*given, projected, corners, slots, uv, rows)
        ctx.mark_non_differentiable(mask, skin)
        return image, mask, skin

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_image: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *given, lighting, values, projected, corners, slots, uv, rows = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3]
        of_projected = torch.zeros_like(projected, memory_format=torch.contiguous_format)
        of_normals = torch.zeros_like(of_projected)
        of_lighting = torch.zeros(lighting.shape, dtype=torch.float64)  # thousands of pixels add up
        of_values = torch.zeros_like(values) if wanted else values
        totals = (of_projected, of_normals, of_lighting, of_values)
        _run(
            shade_backward,
            [*given, lighting, values, projected, of_image.flatten(2), *totals],
            [corners, slots, rows is not None, _BANDS, uv, wanted],
        )
        of_coefficients = None
        if wanted:
            of_coefficients = of_values.view(ctx.shape) if rows is None else blend_backward(of_values, rows)
        return of_projected, of_normals, of_lighting.to(lighting.dtype), of_coefficients, *[None] * 7


def _run(compiled: Any, of_faces: list[Tensor], shared: list[Any]) -> None:
    """Call a compiled loop for each face: with its part of the first tensors, and with the others whole."""
    faces = [as_array(tensor) for tensor in of_faces]
    others = [as_array(value) if isinstance(value, Tensor) else value for value in shared]
    for_each_face(lambda face: compiled(*(array[face] for array in faces), *others), len(faces[0]))


@loop
def _vertices(vertices, camera, projected, normals, lengths, triangles, height, width):
    half = min(height, width) / 2
    scale, right, up = camera[0], camera[1], camera[2]
    for v in range(vertices.shape[0]):
        projected[v, 0] = width / 2 + half * (scale * (vertices[v, 0] + right))
        projected[v, 1] = height / 2 - half * (scale * (vertices[v, 1] + up))
        projected[v, 2] = -scale * vertices[v, 2]
    add_normals(vertices, triangles, normals, lengths)


@loop
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

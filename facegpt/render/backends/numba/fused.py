"""A textured surface's pixels in a few compiled loops, for the CPU.

Same formulas as `surface`, `interpolate` and `lighting`, which they are tested against. Of what lies between
vertices and image only the place of each pixel in its triangle is stored; the backward pass computes the rest
again. Faces are spread over plain threads, and each is summed by one of them: the result is the same to
the last bit in every run and for every number of threads, forward and backward.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.head.compiled import as_array
from facegpt.head.lbs import blend_backward, blend_forward
from facegpt.head.mesh import Mesh
from facegpt.render.backends.interface import TextureSource
from facegpt.render.backends.numba.shade import shade
from facegpt.render.backends.numba.shade_backward import shade_backward
from facegpt.render.backends.numba.threads import run_faces
from facegpt.render.backends.numba.visible import locate_pixels, number_texels, sort_pixels
from facegpt.render.lighting import BAND_CONSTANTS

_BANDS = np.array(BAND_CONSTANTS)


def shade_textured(
    projected: Tensor,
    normals: Tensor,
    ids: Tensor,
    mesh: Mesh,
    source: TextureSource,
    lighting: Tensor,
    skin_triangles: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Image, mask and skin mask: see `interface.ShadeTextured`."""
    assert mesh.uv is not None
    if skin_triangles is None:
        skin_triangles = torch.ones(len(mesh.triangles), dtype=torch.bool)
    texture, coefficients = (
        None if value is None else value.to(projected.dtype)
        for value in (source.texture, source.coefficients)
    )
    shaded: tuple[Tensor, Tensor, Tensor] = ShadeFunction.apply(
        projected, normals, lighting, texture, coefficients, source.mean, source.basis, ids, mesh.triangles,
        mesh.uv.to(projected.dtype), mesh.uv_triangles, skin_triangles,
    )  # fmt: skip
    return shaded


class ShadeFunction(torch.autograd.Function):
    """Everything per pixel: from the triangle that it sees to its colour.

    projected, normals (B,V,3): of the vertices. lighting (B,27). The texture (B,h,w,3); or None, and
    coefficients (B,A), mean (h,w,3) and basis (h,w,3,A), of which it is made, only where pixels touch it, and
    clamped as in `HeadModel.albedo`. ids (B,H,W): triangles seen. triangles, uv_triangles (F,3), uv (T,2),
    skin_triangles (F,) bool.
    -> image (B,3,H,W) on black and, without gradient, mask and skin mask (B,H,W).
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        normals: Tensor,
        lighting: Tensor,
        texture: Tensor | None,
        coefficients: Tensor | None,
        mean: Tensor | None,
        basis: Tensor | None,
        ids: Tensor,
        triangles: Tensor,
        uv: Tensor,
        uv_triangles: Tensor,
        skin_triangles: Tensor,
    ) -> tuple[Tensor, ...]:
        batch, height, width = ids.shape
        image = projected.new_zeros(batch, 3, height, width)
        mask, skin = projected.new_zeros(2, batch, height, width)
        order = torch.empty(batch, height * width, dtype=torch.int32)
        visible, run_end = torch.empty(2, batch, min(len(triangles), height * width), dtype=torch.int32)
        count = torch.empty(batch, 1, dtype=torch.int64)
        bary_uv = projected.new_empty(batch, 5, height * width)
        corners = torch.cat([triangles, uv_triangles], dim=1).int()
        size = tuple(basis.shape[:2] if texture is None else texture.shape[1:3])  # type: ignore[union-attr]
        touched = torch.zeros(size, dtype=torch.bool)

        sorted_pixels = (order, visible, run_end, count)
        masks = (ids.flatten(1), mask.flatten(1), skin.flatten(1))
        run_faces(sort_pixels, [*sorted_pixels, *masks], [skin_triangles])
        run_faces(locate_pixels, [*sorted_pixels, projected, bary_uv], [corners, uv, touched, width])
        if texture is not None:
            rows, values = None, texture.reshape(batch, -1)
            texel_slot = torch.arange(touched.numel(), dtype=torch.int32).view(size)
        else:
            assert coefficients is not None and mean is not None and basis is not None
            texel_slot = torch.empty(size, dtype=torch.int32)
            texels = torch.empty(touched.numel(), dtype=torch.int64)
            texels = texels[: number_texels(*map(as_array, (touched, texel_slot, texels)))]
            rows = basis.flatten(2).flatten(0, 1).index_select(0, texels).view(-1, basis.shape[3])
            values = blend_forward(coefficients, mean.flatten(0, 1).index_select(0, texels).view(-1), rows)
        given = (*sorted_pixels, bary_uv, normals, lighting, values)
        run_faces(shade, [*given, image.flatten(2)], [corners, texel_slot, rows is not None, _BANDS])
        ctx.texture_shape = None if texture is None else texture.shape
        ctx.save_for_backward(*given, projected, corners, texel_slot, uv, rows)
        ctx.mark_non_differentiable(mask, skin)
        return image, mask, skin

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *given, lighting, values, projected, corners, texel_slot, uv, rows = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        grad_projected = torch.zeros_like(projected, memory_format=torch.contiguous_format)
        grad_normals = torch.zeros_like(grad_projected)
        grad_lighting = torch.zeros(lighting.shape, dtype=torch.float64)  # thousands of pixels add up
        grad_values = torch.zeros_like(values) if wanted else values
        run_faces(
            shade_backward,
            [
                *given, lighting, values, projected, grad_image.flatten(2), grad_projected, grad_normals,
                grad_lighting, grad_values,
            ],
            [corners, texel_slot, rows is not None, _BANDS, uv, wanted],
        )  # fmt: skip
        grad_texture = grad_coefficients = None
        if wanted and rows is None:
            grad_texture = grad_values.view(ctx.texture_shape)
        elif wanted:
            grad_coefficients = blend_backward(grad_values, rows)
        found = (grad_projected, grad_normals, grad_lighting.to(lighting.dtype), grad_texture)
        return *found, grad_coefficients, *[None] * 7

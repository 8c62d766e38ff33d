"""SH shading of pixel lists as loops compiled by numba, for the CPU (optional); see `lighting.shade`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.head.compiled import as_array, loop
from facegpt.render.lighting import BAND_CONSTANTS

_BANDS = np.array(BAND_CONSTANTS)


class Shade(torch.autograd.Function):
    """normals (3,P), lighting (B,27), face (P,) -> shading (3,P)."""

    @staticmethod
    def forward(ctx: Any, normals: Tensor, lighting: Tensor, face: Tensor) -> Tensor:
        shading = torch.empty_like(normals, memory_format=torch.contiguous_format)
        bands = lighting.reshape(-1, 9, 3)
        arrays = [as_array(tensor) for tensor in (normals, bands, face, shading)]
        _shade(_BANDS.astype(arrays[0].dtype), *arrays)
        ctx.save_for_backward(normals, bands, face)
        return shading

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normals, bands, face = ctx.saved_tensors
        of_normals = torch.empty_like(normals, memory_format=torch.contiguous_format)
        # Colour by colour, so that the inner loop is over neighbours; float64, as thousands of pixels add up.
        of_bands = torch.zeros(len(bands), 3, 9, dtype=torch.float64)
        arrays = [as_array(tensor) for tensor in (normals, bands, face, grad, of_normals, of_bands)]
        _shade_backward(_BANDS.astype(arrays[0].dtype), *arrays)
        return of_normals, of_bands.transpose(1, 2).flatten(1).to(bands.dtype), None


# From here on numba infers the types.


@loop
def _shade(k, normals, bands, face, shading):
    for p in range(normals.shape[1]):
        x, y, z = normals[0, p], normals[1, p], normals[2, p]
        light = bands[face[p]]
        b1, b2, b3 = k[1] * x, k[2] * y, k[3] * z
        b4, b5, b6 = k[4] * x * y, k[5] * x * z, k[6] * y * z
        b7, b8 = k[7] * (x * x - y * y), k[8] * (3 * z * z - 1)
        for c in range(3):
            value = k[0] * light[0, c] + b1 * light[1, c] + b2 * light[2, c] + b3 * light[3, c]
            value += b4 * light[4, c] + b5 * light[5, c] + b6 * light[6, c]
            shading[c, p] = value + b7 * light[7, c] + b8 * light[8, c]


@loop
def _shade_backward(k, normals, bands, face, grad, of_normals, of_bands):
    basis = np.empty(9, of_bands.dtype)
    for p in range(normals.shape[1]):
        x, y, z = normals[0, p], normals[1, p], normals[2, p]
        light, out = bands[face[p]], of_bands[face[p]]
        basis[0], basis[1], basis[2], basis[3] = k[0], k[1] * x, k[2] * y, k[3] * z
        basis[4], basis[5], basis[6] = k[4] * x * y, k[5] * x * z, k[6] * y * z
        basis[7], basis[8] = k[7] * (x * x - y * y), k[8] * (3 * z * z - 1)
        dx, dy, dz = 0.0, 0.0, 0.0
        for c in range(3):
            g = grad[c, p]
            for band in range(9):
                out[c, band] += g * basis[band]
            m4, m5, m6 = k[4] * light[4, c], k[5] * light[5, c], k[6] * light[6, c]
            m7, m8 = k[7] * light[7, c], k[8] * light[8, c]
            dx += g * (k[1] * light[1, c] + m4 * y + m5 * z + 2 * m7 * x)
            dy += g * (k[2] * light[2, c] + m4 * x + m6 * z - 2 * m7 * y)
            dz += g * (k[3] * light[3, c] + m5 * x + m6 * y + 6 * m8 * z)
        of_normals[0, p], of_normals[1, p], of_normals[2, p] = dx, dy, dz

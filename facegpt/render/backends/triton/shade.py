"""Texture look-up and SH shading of pixel lists as triton kernels, for the GPU.

Same formulas as `surface.sample_texture` and `lighting.shade`, for lists in which face -1 marks the
background (`interpolate.all_pixels`); there the result is zero. Forward passes are deterministic, and
so is the gradient of the light (sums of sums of blocks of pixels); that of a texture is summed by float
atomics, whose order, and with it the last digits, changes from run to run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.render.backends.triton.rasterize import block
from facegpt.render.lighting import BAND_CONSTANTS

_K0, _K1, _K4 = (tl.constexpr(BAND_CONSTANTS[band]) for band in (0, 1, 4))
_K7, _K8 = (tl.constexpr(BAND_CONSTANTS[band]) for band in (7, 8))


class TritonTexels(torch.autograd.Function):
    """texture (B,H,W,C), uv (2,P), face (P,) -> texels (C,P)."""

    @staticmethod
    def forward(ctx: Any, texture: Tensor, uv: Tensor, face: Tensor) -> Tensor:
        texture, uv, count = texture.contiguous(), uv.contiguous(), uv.shape[1]
        _, height, width, channels = texture.shape
        texels = torch.empty(channels, count, dtype=texture.dtype, device=texture.device)
        size = block(count)
        _sample[_programs(count, size)](
            texture, uv, face, texels, count, height, width, CHANNELS=channels, BLOCK=size
        )
        ctx.save_for_backward(texture, uv, face)
        return texels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        texture, uv, face = ctx.saved_tensors
        _, height, width, channels = texture.shape
        wanted, count = ctx.needs_input_grad[0], uv.shape[1]
        grad_texture = torch.zeros_like(texture) if wanted else texture
        grad_uv, size = torch.empty_like(uv), block(count)
        _sample_backward[_programs(count, size)](
            texture,
            uv,
            face,
            grad.contiguous(),
            grad_texture,
            grad_uv,
            count,
            height,
            width,
            CHANNELS=channels,
            GRAD_TEXTURE=wanted,
            BLOCK=size,
        )
        return grad_texture if wanted else None, grad_uv, None


class TritonShading(torch.autograd.Function):
    """normals (3,P), lighting (B,27), face (P,) -> shading (3,P), for P = B x pixels of an image."""

    @staticmethod
    def forward(ctx: Any, normals: Tensor, lighting: Tensor, face: Tensor) -> Tensor:
        normals, lighting, count = normals.contiguous(), lighting.contiguous(), normals.shape[1]
        shading, size = torch.empty_like(normals), block(count)
        _shade[_programs(count, size)](normals, lighting, face, shading, count, BLOCK=size)
        ctx.save_for_backward(normals, lighting, face)
        return shading

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normals, lighting, face = ctx.saved_tensors
        batch, count = len(lighting), normals.shape[1]
        pixels = count // max(batch, 1)
        size = block(pixels, gpu=512)
        programs = triton.cdiv(max(pixels, 1), size)
        grad_normals = torch.empty_like(normals)
        sums = torch.empty(batch, programs, 27, dtype=lighting.dtype, device=lighting.device)
        if batch:
            _shade_backward[(programs, batch)](
                normals, lighting, face, grad.contiguous(), grad_normals, sums, count, pixels, BLOCK=size
            )
        return grad_normals, sums.sum(dim=1), None


def _programs(count: int, size: int) -> tuple[int]:
    return (triton.cdiv(max(count, 1), size),)


# From here on triton compiles. Constants stand behind tensors: the interpreter does not know them in front.


@triton.jit
def _texels(uv, p, seen, count, height, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Per axis the lower and upper texel, the share of the upper one, and whether inside the border."""
    px = tl.load(uv + p, mask=seen, other=0.0) * width - 0.5
    py = (1 - tl.load(uv + count + p, mask=seen, other=0.0)) * height - 0.5
    # Comparisons, which are false for NaN: only numbers within the texture become an index.
    x = tl.where(px > 0, tl.where(px < width - 1.0, px, width - 1.0), 0.0)
    y = tl.where(py > 0, tl.where(py < height - 1.0, py, height - 1.0), 0.0)
    left, top = x.to(tl.int32), y.to(tl.int32)
    right, bottom = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1)
    return left, right, x - left, top, bottom, y - top, px == x, py == y


@triton.jit
def _sample(  # type: ignore[no-untyped-def]
    texture, uv, face, texels, count, height, width, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.load(face + p, mask=p < count, other=-1)
    seen = image >= 0
    left, right, fx, top, bottom, fy, _, _ = _texels(uv, p, seen, count, height, width, BLOCK)
    first = texture + tl.where(seen, image, 0).to(tl.int64) * height * width * CHANNELS
    out = texels + p
    for c in range(CHANNELS):
        a = tl.load(first + (top * width + left) * CHANNELS + c, mask=seen, other=0.0)
        b = tl.load(first + (top * width + right) * CHANNELS + c, mask=seen, other=0.0)
        d = tl.load(first + (bottom * width + left) * CHANNELS + c, mask=seen, other=0.0)
        e = tl.load(first + (bottom * width + right) * CHANNELS + c, mask=seen, other=0.0)
        value = (a * (1 - fx) + b * fx) * (1 - fy) + (d * (1 - fx) + e * fx) * fy
        tl.store(out, value, mask=p < count)
        out += count


@triton.jit
def _sample_backward(  # type: ignore[no-untyped-def]
    texture,
    uv,
    face,
    grad,
    grad_texture,
    grad_uv,
    count,
    height,
    width,
    CHANNELS: tl.constexpr,
    GRAD_TEXTURE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.load(face + p, mask=p < count, other=-1)
    seen = image >= 0
    left, right, fx, top, bottom, fy, inside_x, inside_y = _texels(uv, p, seen, count, height, width, BLOCK)
    start = tl.where(seen, image, 0).to(tl.int64) * height * width * CHANNELS
    grad_u, grad_v = fx * 0, fy * 0
    given = grad + p
    for c in range(CHANNELS):
        g = tl.load(given, mask=seen, other=0.0)
        given += count
        upper_left = start + (top * width + left) * CHANNELS + c
        upper_right = start + (top * width + right) * CHANNELS + c
        lower_left = start + (bottom * width + left) * CHANNELS + c
        lower_right = start + (bottom * width + right) * CHANNELS + c
        a = tl.load(texture + upper_left, mask=seen, other=0.0)
        b = tl.load(texture + upper_right, mask=seen, other=0.0)
        d = tl.load(texture + lower_left, mask=seen, other=0.0)
        e = tl.load(texture + lower_right, mask=seen, other=0.0)
        grad_u += g * ((b - a) * (1 - fy) + (e - d) * fy)
        grad_v -= g * ((d - a) * (1 - fx) + (e - b) * fx)
        if GRAD_TEXTURE:
            tl.atomic_add(grad_texture + upper_left, g * (1 - fx) * (1 - fy), mask=seen, sem="relaxed")
            tl.atomic_add(grad_texture + upper_right, g * fx * (1 - fy), mask=seen, sem="relaxed")
            tl.atomic_add(grad_texture + lower_left, g * (1 - fx) * fy, mask=seen, sem="relaxed")
            tl.atomic_add(grad_texture + lower_right, g * fx * fy, mask=seen, sem="relaxed")
    tl.store(grad_uv + p, tl.where(inside_x & seen, grad_u * width, 0.0), mask=p < count)
    tl.store(grad_uv + count + p, tl.where(inside_y & seen, grad_v * height, 0.0), mask=p < count)


@triton.jit
def _shade(normals, lighting, face, shading, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.load(face + p, mask=p < count, other=-1)
    seen = image >= 0
    x = tl.load(normals + p, mask=seen, other=0.0)
    y = tl.load(normals + count + p, mask=seen, other=0.0)
    z = tl.load(normals + 2 * count + p, mask=seen, other=0.0)
    light = lighting + tl.where(seen, image, 0) * 27
    for c in tl.static_range(3):
        value = tl.load(light + c, mask=seen, other=0.0) * _K0
        value += x * tl.load(light + 3 + c, mask=seen, other=0.0) * _K1
        value += y * tl.load(light + 6 + c, mask=seen, other=0.0) * _K1
        value += z * tl.load(light + 9 + c, mask=seen, other=0.0) * _K1
        value += x * y * tl.load(light + 12 + c, mask=seen, other=0.0) * _K4
        value += x * z * tl.load(light + 15 + c, mask=seen, other=0.0) * _K4
        value += y * z * tl.load(light + 18 + c, mask=seen, other=0.0) * _K4
        value += (x * x - y * y) * tl.load(light + 21 + c, mask=seen, other=0.0) * _K7
        value += (3 * z * z - 1) * tl.load(light + 24 + c, mask=seen, other=0.0) * _K8
        tl.store(shading + c * count + p, value, mask=p < count)


@triton.jit
def _shade_backward(  # type: ignore[no-untyped-def]
    normals, lighting, face, grad, grad_normals, sums, count, pixels, BLOCK: tl.constexpr
):
    """Program (i, b) takes block i of the pixels of face b and leaves one row of sums (B,programs,27)."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1)
    p = image * pixels + place
    real = place < pixels
    seen = tl.load(face + p, mask=real, other=-1) >= 0
    x = tl.load(normals + p, mask=seen, other=0.0)
    y = tl.load(normals + count + p, mask=seen, other=0.0)
    z = tl.load(normals + 2 * count + p, mask=seen, other=0.0)
    light = lighting + image * 27
    out = sums + (image * tl.num_programs(0) + tl.program_id(0)) * 27
    dx, dy, dz = x * 0, y * 0, z * 0
    for c in tl.static_range(3):
        g = tl.load(grad + c * count + p, mask=seen, other=0.0)
        tl.store(out + c, tl.sum(g) * _K0)
        tl.store(out + 3 + c, tl.sum(g * x) * _K1)
        tl.store(out + 6 + c, tl.sum(g * y) * _K1)
        tl.store(out + 9 + c, tl.sum(g * z) * _K1)
        tl.store(out + 12 + c, tl.sum(g * x * y) * _K4)
        tl.store(out + 15 + c, tl.sum(g * x * z) * _K4)
        tl.store(out + 18 + c, tl.sum(g * y * z) * _K4)
        tl.store(out + 21 + c, tl.sum(g * (x * x - y * y)) * _K7)
        tl.store(out + 24 + c, tl.sum(g * (3 * z * z - 1)) * _K8)
        m4, m5 = tl.load(light + 12 + c) * _K4, tl.load(light + 15 + c) * _K4
        m6, m7 = tl.load(light + 18 + c) * _K4, tl.load(light + 21 + c) * 2 * _K7
        dx += g * (tl.load(light + 3 + c) * _K1 + m4 * y + m5 * z + m7 * x)
        dy += g * (tl.load(light + 6 + c) * _K1 + m4 * x + m6 * z - m7 * y)
        dz += g * (tl.load(light + 9 + c) * _K1 + m5 * x + m6 * y + tl.load(light + 24 + c) * 6 * _K8 * z)
    tl.store(grad_normals + p, dx, mask=real)
    tl.store(grad_normals + count + p, dy, mask=real)
    tl.store(grad_normals + 2 * count + p, dz, mask=real)

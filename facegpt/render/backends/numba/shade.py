"""The forward pixel loop of `fused`, one face at a time.

Pixels are taken triangle by triangle, so that what belongs to a triangle is fetched once, and in blocks:
short rows on which the arithmetic runs on vector registers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from facegpt.head.compiled import loop, vector_loop
from facegpt.render.backends.numba.visible import clamp_coordinate

# Large enough to be worth its preparation. Rows that begin multiples of 4096 bytes apart would have to share
# few places in the nearest cache.
BLOCK = 600


@loop
def band_light(lighting, bands):
    """The light (3,9) of one face, times the bands' constants."""
    light = np.empty((3, 9), lighting.dtype)
    for d in range(3):
        for k in range(9):
            light[d, k] = lighting[3 * k + d] * bands[k]
    return light


class PixelBlock(NamedTuple):
    """What is known of a block of N pixels, by `unit_normals`, `sample_texels` and `colors`.

    normal (4,N): unit normal and its inverse length before that. texel_share (4,N): share of the right and of
    the lower neighbour; 1 along an axis of the texture, 0 beyond the border. texels (12,N): 4 neighbours of 3
    colours. albedo, shading (3,N). texel_xy (2,N): column and row of the upper left neighbour. texel_index
    (4,N): where the neighbours' colours begin in the values of the texture.
    """

    normal: np.ndarray
    texel_share: np.ndarray
    texels: np.ndarray
    albedo: np.ndarray
    shading: np.ndarray
    texel_xy: np.ndarray
    texel_index: np.ndarray


@loop
def new_block(dtype):
    """Room for a block of pixels."""
    normal, texel_share = np.empty((4, BLOCK), dtype), np.empty((4, BLOCK), dtype)
    texels = np.empty((12, BLOCK), dtype)
    albedo, shading = np.empty((3, BLOCK), dtype), np.empty((3, BLOCK), dtype)
    texel_xy, texel_index = np.empty((2, BLOCK), np.int32), np.empty((4, BLOCK), np.uint32)
    return PixelBlock(normal, texel_share, texels, albedo, shading, texel_xy, texel_index)


@vector_loop
def unit_normals(run, start, stop, bary_uv, visible, run_end, normals, corners, block):
    """Unit normals of the pixels from start to stop in their order.

    bary_uv: of `locate_pixels`. run: of the first pixel, or the one before. Returns that of the last one.
    """
    normal = block.normal
    dtype = normal.dtype.type
    one, tiny = dtype(1), dtype(1e-24)
    x, y, z, inverse = normal[0], normal[1], normal[2], normal[3]
    n = start
    while n < stop:
        if run_end[run] <= n:
            run += 1
        t, end = visible[run], min(run_end[run], stop)
        i, j, k = corners[t, 0], corners[t, 1], corners[t, 2]
        xa, ya, za = normals[i, 0], normals[i, 1], normals[i, 2]
        xb, yb, zb = normals[j, 0], normals[j, 1], normals[j, 2]
        xc, yc, zc = normals[k, 0], normals[k, 1], normals[k, 2]
        for m in range(n, end):
            a, b, c = bary_uv[0, m], bary_uv[1, m], bary_uv[2, m]
            x[m - start] = a * xa + b * xb + c * xc
            y[m - start] = a * ya + b * yb + c * yc
            z[m - start] = a * za + b * zb + c * zc
        n = end
    for n in range(stop - start):
        inverse[n] = one / math.sqrt(x[n] * x[n] + y[n] * y[n] + z[n] * z[n] + tiny)
    for n in range(stop - start):
        x[n] *= inverse[n]
        y[n] *= inverse[n]
        z[n] *= inverse[n]
    return run


@vector_loop
def sample_texels(start, stop, bary_uv, texel_slot, values, block):
    """The texels that the pixels from start to stop look at.

    bary_uv: of `locate_pixels`. texel_slot (h,w): numbers of texels. values (3T,): colours by that number.
    """
    texel_share, texels = block.texel_share, block.texels
    texel_xy, texel_index = block.texel_xy, block.texel_index
    dtype = texel_share.dtype.type
    zero, one = dtype(0), dtype(1)
    height, width = texel_slot.shape
    count = stop - start
    for axis, size in ((0, width), (1, height)):
        share, within = texel_share[axis], texel_share[2 + axis]
        low, last = texel_xy[axis], dtype(size - 1)
        position = bary_uv[3 + axis, start:stop]
        for n in range(count):
            clamped = clamp_coordinate(position[n], zero, last)
            whole = np.int32(clamped)
            low[n], share[n] = whole, clamped - whole
            within[n] = one if position[n] == clamped else zero
    for n in range(count):
        left, top = texel_xy[0, n], texel_xy[1, n]
        bottom = min(top + 1, height - 1)
        # The texel to the right is numbered too, so it has the next number.
        step = 3 if left < width - 1 else 0
        p, r = 3 * texel_slot[top, left], 3 * texel_slot[bottom, left]
        q, s = p + step, r + step
        texel_index[0, n], texel_index[1, n], texel_index[2, n], texel_index[3, n] = p, q, r, s
        for d in range(3):
            texels[4 * d, n], texels[4 * d + 1, n] = values[p + d], values[q + d]
            texels[4 * d + 2, n], texels[4 * d + 3, n] = values[r + d], values[s + d]


@vector_loop
def colors(count, clamp, light, block):
    """Albedo and shading of a block; clamp: whether texels are first clamped to [0,1], in place."""
    normal, texel_share, texels = block.normal, block.texel_share, block.texels
    albedo, shading = block.albedo, block.shading
    dtype = normal.dtype.type
    zero, one, three = dtype(0), dtype(1), dtype(3)
    x, y, z, fx, fy = normal[0], normal[1], normal[2], texel_share[0], texel_share[1]
    if clamp:
        for row in range(12):
            values = texels[row]
            for n in range(count):
                values[n] = min(max(values[n], zero), one)
    for d in range(3):
        p, q, r, s, out = texels[4 * d], texels[4 * d + 1], texels[4 * d + 2], texels[4 * d + 3], albedo[d]
        for n in range(count):
            upper = p[n] + (q[n] - p[n]) * fx[n]
            lower = r[n] + (s[n] - r[n]) * fx[n]
            out[n] = upper + (lower - upper) * fy[n]
        out = shading[d]
        m0, m1, m2, m3, m4 = light[d, 0], light[d, 1], light[d, 2], light[d, 3], light[d, 4]
        m5, m6, m7, m8 = light[d, 5], light[d, 6], light[d, 7], light[d, 8]
        for n in range(count):
            linear = m0 + m1 * x[n] + m2 * y[n] + m3 * z[n]
            mixed = m4 * x[n] * y[n] + m5 * x[n] * z[n] + m6 * y[n] * z[n]
            out[n] = linear + mixed + m7 * (x[n] * x[n] - y[n] * y[n]) + m8 * (three * z[n] * z[n] - one)


@loop
def shade(
    order, visible, run_end, count, bary_uv, normals, lighting, values, image, corners, texel_slot, clamp,
    bands,
):  # fmt: skip
    """Colour the pixels of one face.

    order, visible, run_end, count: of `sort_pixels`. bary_uv: of `locate_pixels`. normals (V,3). lighting
    (27,). values, texel_slot: of `sample_texels`. image (3,P). corners (F,6): vertices and rows of uv (T,2).
    clamp: of `colors`.
    """
    block, light = new_block(normals.dtype), band_light(lighting, bands)
    albedo, shading = block.albedo, block.shading
    run = 0
    for start in range(0, count[0], BLOCK):
        stop = min(start + BLOCK, count[0])
        run = unit_normals(run, start, stop, bary_uv, visible, run_end, normals, corners, block)
        sample_texels(start, stop, bary_uv, texel_slot, values, block)
        colors(stop - start, clamp, light, block)
        for d in range(3):
            for n in range(stop - start):
                image[d, order[start + n]] = albedo[d, n] * shading[d, n]

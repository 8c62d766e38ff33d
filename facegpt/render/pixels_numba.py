"""The forward pixel loops of `fused_numba`, one face at a time.

Pixels are taken in blocks: values are gathered into short rows, on which the arithmetic runs on vector
registers (sums in any order, no NaN to look after), and scattered again. numba infers the types.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

BLOCK = 128
FAST = {"reassoc", "contract", "nsz", "nnan", "arcp"}
_MARKED = 0


@njit(cache=True, nogil=True)
def _texel(coordinate, count):
    """Among `count` texel centres: lower and upper neighbour, share of the upper one, whether inside."""
    position = coordinate * count - 0.5
    clamped = min(max(position, 0.0), count - 1.0)
    low = int(clamped)
    return low, min(low + 1, count - 1), clamped - low, position == clamped


@njit(cache=True, nogil=True)
def weigh(ids, projected, depth, weights, mask, skin, triangles, uv, uv_triangles, skin_triangles, slots):
    """Barycentric weights, depth and masks of the pixels; marks the texels that they look at with 0."""
    height, width = slots.shape
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            t = ids[row, column]
            if t < 0:
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            x, y = column + 0.5, row + 0.5
            ax, ay = projected[i, 0] - x, projected[i, 1] - y
            bx, by = projected[j, 0] - x, projected[j, 1] - y
            cx, cy = projected[k, 0] - x, projected[k, 1] - y
            a, b, c = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
            sign = 1.0 if a + b + c > 0 else -1.0
            a, b, c = max(sign * a, 1e-20), max(sign * b, 1e-20), max(sign * c, 1e-20)
            total = a + b + c
            a, b, c = a / total, b / total, c / total
            weights[row, column, 0], weights[row, column, 1], weights[row, column, 2] = a, b, c
            mask[row, column] = 1
            skin[row, column] = 1 if skin_triangles[t] else 0
            depth[row, column] = a * projected[i, 2] + b * projected[j, 2] + c * projected[k, 2]
            i, j, k = uv_triangles[t, 0], uv_triangles[t, 1], uv_triangles[t, 2]
            u = a * uv[i, 0] + b * uv[j, 0] + c * uv[k, 0]
            v = a * uv[i, 1] + b * uv[j, 1] + c * uv[k, 1]
            left, right, _, _ = _texel(u, width)
            top, bottom, _, _ = _texel(1 - v, height)
            slots[top, left] = slots[top, right] = slots[bottom, left] = slots[bottom, right] = _MARKED


@njit(cache=True, nogil=True)
def number_texels(slots, seen):
    """Number the marked texels in the order of the texture; returns how many there are."""
    count = 0
    for row in range(slots.shape[0]):
        for column in range(slots.shape[1]):
            if slots[row, column] == _MARKED:
                slots[row, column] = count
                seen[count] = row * slots.shape[1] + column
                count += 1
    return count


@njit(cache=True, nogil=True)
def light_of(lighting, bands):
    """The light (3,9) of one face, times the bands' constants."""
    light = np.empty((3, 9), lighting.dtype)
    for d in range(3):
        for k in range(9):
            light[d, k] = lighting[3 * k + d] * bands[k]
    return light


@njit(cache=True, nogil=True)
def next_block(ids, position, index):
    """Fill index with the next covered pixels from position on; returns how many, and where to go on."""
    count = 0
    while position < ids.shape[0] and count < index.shape[0]:
        if ids[position] >= 0:
            index[count] = position
            count += 1
        position += 1
    return count, position


@njit(cache=True, nogil=True, fastmath=FAST)
def surface(
    index, ids, weights, normals, triangles, uv, uv_triangles, height, width, normal, inverse, texel, place
):
    """Unit normals, inverse lengths before that, and where in the texture a block of pixels looks.

    texel (4,N): share of the right and of the lower neighbour; texels per u and v, 0 beyond the border.
    place (2,N): column and row of the upper left neighbour.
    """
    one, half, tiny = normal.dtype.type(1), normal.dtype.type(0.5), normal.dtype.type(1e-24)
    zero = normal.dtype.type(0)
    x, y, z = normal[0], normal[1], normal[2]
    for n in range(len(index)):
        p = index[n]
        t = ids[p]
        a, b, c = weights[p, 0], weights[p, 1], weights[p, 2]
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x[n] = a * normals[i, 0] + b * normals[j, 0] + c * normals[k, 0]
        y[n] = a * normals[i, 1] + b * normals[j, 1] + c * normals[k, 1]
        z[n] = a * normals[i, 2] + b * normals[j, 2] + c * normals[k, 2]
        i, j, k = uv_triangles[t, 0], uv_triangles[t, 1], uv_triangles[t, 2]
        texel[0, n] = a * uv[i, 0] + b * uv[j, 0] + c * uv[k, 0]
        texel[1, n] = one - (a * uv[i, 1] + b * uv[j, 1] + c * uv[k, 1])
    for n in range(len(index)):
        inverse[n] = one / math.sqrt(x[n] * x[n] + y[n] * y[n] + z[n] * z[n] + tiny)
    for n in range(len(index)):
        x[n] *= inverse[n]
        y[n] *= inverse[n]
        z[n] *= inverse[n]
    for axis, size in ((0, width), (1, height)):
        share, slope, low, count = texel[axis], texel[2 + axis], place[axis], normal.dtype.type(size)
        for n in range(len(index)):
            position = share[n] * count - half
            clamped = min(max(position, zero), count - one)
            whole = np.int32(clamped)
            low[n] = whole
            share[n] = clamped - whole
            slope[n] = count if position == clamped else zero


@njit(cache=True, nogil=True)
def corners_of(place, slots, values, found):
    """The 4 texels of 3 colours around each place, (12,N), and where they stand in values, (4,N)."""
    height, width = slots.shape
    corners, where = found
    for n in range(where.shape[1]):
        left, top = place[0, n], place[1, n]
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        p, q, r, s = slots[top, left], slots[top, right], slots[bottom, left], slots[bottom, right]
        where[0, n], where[1, n], where[2, n], where[3, n] = p, q, r, s
        for d in range(3):
            corners[4 * d, n] = values[3 * p + d]
            corners[4 * d + 1, n] = values[3 * q + d]
            corners[4 * d + 2, n] = values[3 * r + d]
            corners[4 * d + 3, n] = values[3 * s + d]


@njit(cache=True, nogil=True, fastmath=FAST)
def colours(count, normal, texel, corners, clamp, light, albedo, shading):
    """Albedo and shading (3,N) of a block."""
    zero, one, three = normal.dtype.type(0), normal.dtype.type(1), normal.dtype.type(3)
    x, y, z, fx, fy = normal[0], normal[1], normal[2], texel[0], texel[1]
    if clamp:
        for row in range(12):
            corner = corners[row]
            for n in range(count):
                corner[n] = min(max(corner[n], zero), one)
    for d in range(3):
        p, q, r, s, out = (
            corners[4 * d],
            corners[4 * d + 1],
            corners[4 * d + 2],
            corners[4 * d + 3],
            albedo[d],
        )
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


@njit(cache=True, nogil=True)
def shade(
    ids,
    weights,
    normals,
    lighting,
    values,
    image,
    seen_normals,
    triangles,
    uv,
    uv_triangles,
    slots,
    clamp,
    bands,
):
    kind = weights.dtype
    index, place = np.empty(BLOCK, np.int64), np.empty((2, BLOCK), np.int32)
    normal, inverse, texel = np.empty((3, BLOCK), kind), np.empty(BLOCK, kind), np.empty((4, BLOCK), kind)
    corners, where = np.empty((12, BLOCK), kind), np.empty((4, BLOCK), np.int32)
    albedo, shading = np.empty((3, BLOCK), kind), np.empty((3, BLOCK), kind)
    light = light_of(lighting, bands)
    height, width = slots.shape
    position = 0
    while position < len(ids):
        count, position = next_block(ids, position, index)
        block = index[:count]
        surface(
            block,
            ids,
            weights,
            normals,
            triangles,
            uv,
            uv_triangles,
            height,
            width,
            normal,
            inverse,
            texel,
            place,
        )
        corners_of(place, slots, values, (corners, where[:, :count]))
        colours(count, normal, texel, corners, clamp, light, albedo, shading)
        for d in range(3):
            for n in range(count):
                image[d, block[n]] = albedo[d, n] * shading[d, n]
                seen_normals[d, block[n]] = normal[d, n]

"""The forward pixel loop of `fused_numba`, one face at a time.

Pixels are taken triangle by triangle, so that what belongs to a triangle is fetched once, and in blocks:
short rows on which the arithmetic runs on vector registers.
"""

from __future__ import annotations

import math

import numpy as np

from facegpt.head.compiled import loop, vector_loop

# Large enough to be worth its preparation. Rows that begin multiples of 4096 bytes apart would have to share
# few places in the nearest cache.
BLOCK = 600


@loop
def light_of(lighting, bands):
    """The light (3,9) of one face, times the bands' constants."""
    light = np.empty((3, 9), lighting.dtype)
    for d in range(3):
        for k in range(9):
            light[d, k] = lighting[3 * k + d] * bands[k]
    return light


@loop
def new_block(kind):
    """Room for what is known of a block of N pixels, by `unit_normals`, `look_up` and `colours`.

    normal (4,N): unit normal and its inverse length before that. texel (4,N): share of the right and of the
    lower neighbour; 1 along an axis of the texture, 0 beyond the border. texels (12,N): 4 neighbours of 3
    colours. albedo, shading (3,N). place (2,N): column and row of the upper left neighbour. where (4,N):
    where the neighbours' colours begin in the values of the texture.
    """
    normal, texel, texels = (
        np.empty((4, BLOCK), kind),
        np.empty((4, BLOCK), kind),
        np.empty((12, BLOCK), kind),
    )
    place, where = np.empty((2, BLOCK), np.int32), np.empty((4, BLOCK), np.uint32)
    return normal, texel, texels, np.empty((3, BLOCK), kind), np.empty((3, BLOCK), kind), place, where


@vector_loop
def unit_normals(group, start, stop, inside, visible, ends, normals, corners, block):
    """Unit normals of the pixels from start to stop in their order.

    inside: of `locate`. group: of the first pixel, or the one before. Returns that of the last one.
    """
    normal = block[0]
    kind = normal.dtype.type
    one, tiny = kind(1), kind(1e-24)
    x, y, z, inverse = normal[0], normal[1], normal[2], normal[3]
    n = start
    while n < stop:
        if ends[group] <= n:
            group += 1
        t, end = visible[group], min(ends[group], stop)
        i, j, k = corners[t, 0], corners[t, 1], corners[t, 2]
        xa, ya, za = normals[i, 0], normals[i, 1], normals[i, 2]
        xb, yb, zb = normals[j, 0], normals[j, 1], normals[j, 2]
        xc, yc, zc = normals[k, 0], normals[k, 1], normals[k, 2]
        for m in range(n, end):
            a, b, c = inside[0, m], inside[1, m], inside[2, m]
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
    return group


@vector_loop
def look_up(start, stop, inside, slots, values, block):
    """The texels that the pixels from start to stop look at.

    inside: of `locate`. slots (h,w): numbers of texels. values (3T,): colours by that number.
    """
    texel, texels, place, where = block[1], block[2], block[5], block[6]
    kind = texel.dtype.type
    height, width = slots.shape
    count = stop - start
    for axis, size in ((0, width), (1, height)):
        share, within, low, last = texel[axis], texel[2 + axis], place[axis], kind(size - 1)
        position = inside[3 + axis, start:stop]
        for n in range(count):
            clamped = min(max(position[n], kind(0)), last)
            whole = np.int32(clamped)
            low[n], share[n] = whole, clamped - whole
            within[n] = kind(1) if position[n] == clamped else kind(0)
    for n in range(count):
        left, top = place[0, n], place[1, n]
        bottom = min(top + 1, height - 1)
        # The texel to the right is looked at too, so it has the next number.
        step = 3 if left < width - 1 else 0
        p, r = 3 * slots[top, left], 3 * slots[bottom, left]
        q, s = p + step, r + step
        where[0, n], where[1, n], where[2, n], where[3, n] = p, q, r, s
        for d in range(3):
            texels[4 * d, n], texels[4 * d + 1, n] = values[p + d], values[q + d]
            texels[4 * d + 2, n], texels[4 * d + 3, n] = values[r + d], values[s + d]


@vector_loop
def colors(count, clamp, light, block):
    """Albedo and shading of a block; clamp: whether texels are first clamped to [0,1], in place."""
    normal, texel, texels, albedo, shading = block[:5]
    kind = normal.dtype.type
    zero, one, three = kind(0), kind(1), kind(3)
    x, y, z, fx, fy = normal[0], normal[1], normal[2], texel[0], texel[1]
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
    order, visible, ends, total, inside, normals, lighting, values, image, corners, slots, clamp, bands
):  # fmt: skip
    """Colour the pixels of one face.

    order, visible, ends, total: of `sort_pixels`. inside: of `locate`. normals (V,3). lighting (27,). values,
    slots: of `look_up`. image (3,P). corners (F,6): vertices and rows of uv (T,2).
    """
    block, light = new_block(normals.dtype), light_of(lighting, bands)
    albedo, shading = block[3], block[4]
    group = 0
    for start in range(0, total[0], BLOCK):
        stop = min(start + BLOCK, total[0])
        group = unit_normals(group, start, stop, inside, visible, ends, normals, corners, block)
        look_up(start, stop, inside, slots, values, block)
        colors(stop - start, clamp, light, block)
        for d in range(3):
            for n in range(stop - start):
                image[d, order[start + n]] = albedo[d, n] * shading[d, n]

"""The forward pixel loop of `fused_numba`, one face at a time.

Pixels are taken triangle by triangle, so that what belongs to a triangle is fetched once, and in blocks:
short rows on which the arithmetic runs on vector registers.
"""

from __future__ import annotations

import math

import numpy as np

from facegpt.compiled import loop, vector_loop

BLOCK = 128


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
    """Room for what is known of a block of N pixels, by `gather`, `look_up` and `colours`.

    inside (6,N): the pixel's centre (x, y), barycentric weights (3), inverse length of the normal. normal
    (3,N): unit. texel (4,N): share of the right and of the lower neighbour; texels per u and v, 0 beyond the
    border. texels (12,N): 4 neighbours of 3 colours. albedo, shading (3,N). place (2,N): column and row of
    the upper left neighbour. where (4,N): where the neighbours' colours begin in the values of the texture.
    """
    inside, normal, texel = np.empty((6, BLOCK), kind), np.empty((3, BLOCK), kind), np.empty((4, BLOCK), kind)
    albedo, shading = np.empty((3, BLOCK), kind), np.empty((3, BLOCK), kind)
    place, where = np.empty((2, BLOCK), np.int32), np.empty((4, BLOCK), np.int32)
    return inside, normal, texel, np.empty((12, BLOCK), kind), albedo, shading, place, where


@vector_loop
def gather(group, position, pixels, visible, ends, width, projected, normals, corners, uv, block):
    """Weights, unit normals and uv of `pixels`, those that begin at `position` of all in their order.

    group: of the first pixel, or the one before. Returns that of the last one.
    """
    inside, normal, texel = block[:3]
    kind = normal.dtype.type
    half, one, tiny, least = kind(0.5), kind(1), kind(1e-24), kind(1e-20)
    across, down, wa, wb, wc, inverse = inside[0], inside[1], inside[2], inside[3], inside[4], inside[5]
    x, y, z, u, v = normal[0], normal[1], normal[2], texel[0], texel[1]
    count = len(pixels)
    per_width = 1.0 / width
    for n in range(count):
        row = np.int32((pixels[n] + 0.5) * per_width)
        across[n], down[n] = kind(pixels[n] - row * width) + half, kind(row) + half
    start = 0
    while start < count:
        if ends[group] <= position + start:
            group += 1
        t, stop = visible[group], min(ends[group] - position, count)
        i, j, k = corners[t, 0], corners[t, 1], corners[t, 2]
        px, py = projected[i, 0], projected[i, 1]
        bx, by, cx, cy = (
            projected[j, 0] - px,
            projected[j, 1] - py,
            projected[k, 0] - px,
            projected[k, 1] - py,
        )
        area = bx * cy - by * cx
        if not area > 0:
            bx, by, cx, cy, area = -bx, -by, -cx, -cy, -area  # so are b and c below
        xa, ya, za = normals[i, 0], normals[i, 1], normals[i, 2]
        xb, yb, zb = normals[j, 0], normals[j, 1], normals[j, 2]
        xc, yc, zc = normals[k, 0], normals[k, 1], normals[k, 2]
        i, j, k = corners[t, 3], corners[t, 4], corners[t, 5]
        ua, va, ub, vb, uc, vc = uv[i, 0], uv[i, 1], uv[j, 0], uv[j, 1], uv[k, 0], uv[k, 1]
        for n in range(start, stop):
            dx, dy = across[n] - px, down[n] - py
            b, c = dx * cy - dy * cx, bx * dy - by * dx
            # The ids come from snapped vertices, so a centre may lie a hair outside.
            a, b, c = max(area - b - c, least), max(b, least), max(c, least)
            share = one / (a + b + c)
            a, b, c = a * share, b * share, c * share
            wa[n], wb[n], wc[n] = a, b, c
            x[n], y[n], z[n] = a * xa + b * xb + c * xc, a * ya + b * yb + c * yc, a * za + b * zb + c * zc
            u[n], v[n] = a * ua + b * ub + c * uc, one - (a * va + b * vb + c * vc)
        start = stop
    for n in range(count):
        inverse[n] = one / math.sqrt(x[n] * x[n] + y[n] * y[n] + z[n] * z[n] + tiny)
    for n in range(count):
        x[n] *= inverse[n]
        y[n] *= inverse[n]
        z[n] *= inverse[n]
    return group


@vector_loop
def look_up(count, starts, width, values, block):
    """The texels around the places of a texture (h,w) that a block looks at.

    starts (h,): the texel in a row and column has the number starts[row] + column. values (3T,): colours by
    that number.
    """
    texel, texels, place, where = block[2], block[3], block[6], block[7]
    kind, height = texel.dtype.type, len(starts)
    for axis, size in ((0, width), (1, height)):
        share, slope, low, many = texel[axis], texel[2 + axis], place[axis], kind(size)
        for n in range(count):
            position = share[n] * many - kind(0.5)
            clamped = min(max(position, kind(0)), many - kind(1))
            whole = np.int32(clamped)
            low[n], share[n] = whole, clamped - whole
            slope[n] = many if position == clamped else kind(0)
    for n in range(count):
        left, top = place[0, n], place[1, n]
        right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
        p, q = 3 * (starts[top] + left), 3 * (starts[top] + right)
        r, s = 3 * (starts[bottom] + left), 3 * (starts[bottom] + right)
        where[0, n], where[1, n], where[2, n], where[3, n] = p, q, r, s
        for d in range(3):
            texels[4 * d, n], texels[4 * d + 1, n] = values[p + d], values[q + d]
            texels[4 * d + 2, n], texels[4 * d + 3, n] = values[r + d], values[s + d]


@vector_loop
def colours(count, clamp, light, block):
    """Albedo and shading of a block; clamp: whether texels are first clamped to [0,1], in place."""
    normal, texel, texels, albedo, shading = block[1:6]
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
    order, visible, ends, total, projected, normals, lighting, values, image, corners, uv, starts, size,
    clamp, bands,
):  # fmt: skip
    """Colour the pixels of one face.

    order, visible, ends, total: of `sort_pixels`. projected, normals (V,3). lighting (27,). values, starts:
    of `look_up`. image (3,P). corners (F,6): vertices and rows of uv (T,2). size: widths of image, texture.
    """
    block, light = new_block(projected.dtype), light_of(lighting, bands)
    albedo, shading = block[4], block[5]
    group = 0
    for position in range(0, total[0], BLOCK):
        pixels = order[position : min(position + BLOCK, total[0])]
        count = len(pixels)
        group = gather(
            group, position, pixels, visible, ends, size[0], projected, normals, corners, uv, block
        )
        look_up(count, starts, size[1], values, block)
        colours(count, clamp, light, block)
        for d in range(3):
            for n in range(count):
                image[d, pixels[n]] = albedo[d, n] * shading[d, n]

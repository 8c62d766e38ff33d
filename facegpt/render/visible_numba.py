"""Which pixels see each triangle, and which texels they may look at: loops of `fused_numba`."""

from __future__ import annotations

import math

import numpy as np

from facegpt.compiled import loop

# The uv of a pixel is rounded: texels this near to its triangle's bounding box are counted to it.
_MARGIN = 1e-2


@loop
def sort_pixels(ids, order, visible, ends, total, mask, skin, looked, skin_triangles):
    """Sort the covered pixels of one face's ids (P,) by triangle, the triangles as the image meets them.

    Fills order (P,) with pixels, visible (G,) with the triangles that are seen, and ends (G,): the pixels of
    the first stand before ends[0] in order, where those of the second begin; total (1,) is how many there
    are. Sets mask and skin (P,) to 1 where a triangle, and one of skin, is seen; looked (F,): which are seen.
    Going down the image keeps what later loops read and write in the nearest caches.
    """
    place = np.full(len(looked), -1, np.int32)
    count = 0
    for pixel in range(len(ids)):
        t = ids[pixel]
        if t >= 0:
            if place[t] < 0:
                place[t] = count
                visible[count], ends[count] = t, 0
                looked[t] = True
                count += 1
            ends[place[t]] += 1
            mask[pixel] = 1
            skin[pixel] = skin_triangles[t]
    total[0] = 0
    for group in range(count):
        size = ends[group]
        ends[group] = total[0]
        total[0] += size
    for pixel in range(len(ids)):
        t = ids[pixel]
        if t >= 0:
            group = place[t]
            order[ends[group]] = pixel
            ends[group] += 1


@loop
def number_texels(width, looked, corners, uv, starts, seen):
    """Number the texels that may be looked at: in each row those from the first to the last one of them.

    width: of the texture (h,w). looked (F,): whether a triangle is seen. corners (F,6): its vertices and its
    rows of uv (T,2). Sets starts (h,), so that the texel in a row and column has the number
    starts[row] + column, and the first entries of seen (h*w,) to the texels in that order; returns how many
    there are.
    """
    height = len(starts)
    first, last = np.full(height, width), np.full(height, -1)
    for t in range(len(looked)):
        if looked[t]:
            i, j, k = corners[t, 3], corners[t, 4], corners[t, 5]
            left, right = _texels(uv[i, 0], uv[j, 0], uv[k, 0], width)
            top, bottom = _texels(1 - uv[i, 1], 1 - uv[j, 1], 1 - uv[k, 1], height)
            for row in range(top, bottom + 1):
                first[row], last[row] = min(first[row], left), max(last[row], right)
    count = 0
    for row in range(height):
        starts[row] = count - first[row]
        for column in range(first[row], last[row] + 1):
            seen[count] = row * width + column
            count += 1
    return count


@loop
def _texels(a, b, c, count):
    """First and last of `count` texels that are looked at between three coordinates in [0,1]."""
    low = min(a, b, c) * count - 0.5 - _MARGIN
    high = max(a, b, c) * count - 0.5 + _MARGIN
    return int(min(max(low, 0.0), count - 1.0)), math.ceil(min(max(high, 0.0), count - 1.0))

"""Which pixels see each triangle, where in it, and which texels they look at: loops of `fused_numba`."""

from __future__ import annotations

import numpy as np

from facegpt.head.compiled import loop, vector_loop


@loop
def sort_pixels(order, visible, ends, total, ids, mask, skin, skin_triangles):
    """Sort the covered pixels of one face's ids (P,) by triangle, the triangles as the image meets them.

    Fills order (P,) with pixels, visible (G,) with the triangles that are seen, and ends (G,): the pixels of
    the first stand before ends[0] in order, where those of the second begin; total (1,) is how many there
    are. Sets mask and skin (P,) to 1 where a triangle, and one of skin, is seen. Going down the image keeps
    what later loops read and write in the nearest caches.
    """
    place = np.full(len(skin_triangles), -1, np.int32)
    count = 0
    for pixel in range(len(ids)):
        t = ids[pixel]
        if t >= 0:
            if place[t] < 0:
                place[t] = count
                visible[count], ends[count] = t, 0
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


@vector_loop
def locate(order, visible, ends, total, projected, inside, corners, uv, looked, width):
    """Where one face's pixels see their triangles, and which texels they look at.

    order, visible, ends, total: of `sort_pixels`. Sets inside (5,P), in that order: the barycentric weights,
    and the place in the texture in texels right and down of the first one's centre. Sets looked (h,w) for
    the upper left one of the four texels around. corners (F,6): vertices and rows of uv (T,2). width: of the
    image.
    """
    kind = inside.dtype.type
    one, half, least = kind(1), kind(0.5), kind(1e-20)
    height, columns = looked.shape
    start, group, per_width = 0, 0, 1.0 / width
    while start < total[0]:
        t, stop = visible[group], ends[group]
        i, j, k = corners[t, 0], corners[t, 1], corners[t, 2]
        px, py = projected[i, 0], projected[i, 1]
        bx, by = projected[j, 0] - px, projected[j, 1] - py
        cx, cy = projected[k, 0] - px, projected[k, 1] - py
        area = bx * cy - by * cx
        if not area > 0:
            bx, by, cx, cy, area = -bx, -by, -cx, -cy, -area  # so are b and c below
        i, j, k = corners[t, 3], corners[t, 4], corners[t, 5]
        ua, va, ub, vb, uc, vc = uv[i, 0], uv[i, 1], uv[j, 0], uv[j, 1], uv[k, 0], uv[k, 1]
        for n in range(start, stop):
            row = np.int32((order[n] + 0.5) * per_width)
            dx, dy = kind(order[n] - row * width) + half - px, kind(row) + half - py
            b, c = dx * cy - dy * cx, bx * dy - by * dx
            # The ids come from snapped vertices, so a centre may lie a hair outside.
            a, b, c = max(area - b - c, least), max(b, least), max(c, least)
            share = one / (a + b + c)
            a, b, c = a * share, b * share, c * share
            x = (a * ua + b * ub + c * uc) * kind(columns) - half
            y = (one - (a * va + b * vb + c * vc)) * kind(height) - half
            inside[0, n], inside[1, n], inside[2, n], inside[3, n], inside[4, n] = a, b, c, x, y
            left, top = min(max(x, kind(0)), kind(columns - 1)), min(max(y, kind(0)), kind(height - 1))
            looked[np.int32(top), np.int32(left)] = True
        start, group = stop, group + 1


@loop
def number_texels(looked, slots, texels):
    """Number the texels that are looked at: those of looked (h,w), of `locate`, and right of and below them.

    Sets slots (h,w) to the numbers and the first entries of texels (h*w,) to the texels; returns how many
    there are.
    """
    height, width = looked.shape
    count = 0
    for row in range(height):
        above = max(row - 1, 0)
        for column in range(width):
            before = max(column - 1, 0)
            near = looked[row, column] or looked[row, before]
            if near or looked[above, column] or looked[above, before]:
                slots[row, column] = count
                texels[count] = row * width + column
                count += 1
    return count

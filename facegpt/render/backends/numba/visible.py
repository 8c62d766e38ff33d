"""Which pixels see each triangle, where in it, and which texels they touch: loops of `fused`."""

from __future__ import annotations

import numpy as np

from facegpt.head.compiled import loop, vector_loop


@loop
def sort_pixels(order, visible, run_end, count, ids, mask, skin, skin_triangles):
    """Sort the covered pixels of one face's ids (P,) by triangle, the triangles as the image meets them.

    Fills order (P,) with pixels, visible (R,) with the triangles that are seen, and run_end (R,): each has a
    run of pixels in order, and the first run ends before run_end[0], where the second begins; count (1,) is
    how many pixels there are. Sets mask and skin (P,) to 1 where a triangle, and one of skin, is seen. Going
    down the image keeps what later loops read and write in the nearest caches.
    """
    run_of = np.full(len(skin_triangles), -1, np.int32)
    runs = 0
    for pixel in range(len(ids)):
        t = ids[pixel]
        if t >= 0:
            if run_of[t] < 0:
                run_of[t] = runs
                visible[runs], run_end[runs] = t, 0
                runs += 1
            run_end[run_of[t]] += 1
            mask[pixel] = 1
            skin[pixel] = skin_triangles[t]
    count[0] = 0
    for run in range(runs):
        size = run_end[run]
        run_end[run] = count[0]
        count[0] += size
    for pixel in range(len(ids)):
        t = ids[pixel]
        if t >= 0:
            run = run_of[t]
            order[run_end[run]] = pixel
            run_end[run] += 1


@loop
def clamp_coordinate(x, zero, last):
    """x in [0, last], and 0 for NaN: nothing else may become an index. `min` and `max` could pass NaN on."""
    if x > zero:
        return x if x < last else last
    return zero


@vector_loop
def locate_pixels(order, visible, run_end, count, projected, bary_uv, corners, uv, touched, width):
    """Where one face's pixels see their triangles, and which texels they touch.

    order, visible, run_end, count: of `sort_pixels`. Sets bary_uv (5,P), in that order: the barycentric
    weights, and the place in the texture, texels right and down of the first one's centre. Sets touched (h,w)
    for the upper left one of the four texels around. corners (F,6): vertices and rows of uv (T,2). width: of
    the image.
    """
    dtype = bary_uv.dtype.type
    zero, one, half, least = dtype(0), dtype(1), dtype(0.5), dtype(1e-20)
    height, columns = touched.shape
    right_most, lowest = dtype(columns - 1), dtype(height - 1)
    start, run, per_width = 0, 0, 1.0 / width
    while start < count[0]:
        t, stop = visible[run], run_end[run]
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
            dx, dy = dtype(order[n] - row * width) + half - px, dtype(row) + half - py
            b, c = dx * cy - dy * cx, bx * dy - by * dx
            # The ids come from snapped vertices, so a centre may lie a hair outside.
            a, b, c = max(area - b - c, least), max(b, least), max(c, least)
            share = one / (a + b + c)
            a, b, c = a * share, b * share, c * share
            x = (a * ua + b * ub + c * uc) * dtype(columns) - half
            y = (one - (a * va + b * vb + c * vc)) * dtype(height) - half
            bary_uv[0, n], bary_uv[1, n], bary_uv[2, n], bary_uv[3, n], bary_uv[4, n] = a, b, c, x, y
            left, top = clamp_coordinate(x, zero, right_most), clamp_coordinate(y, zero, lowest)
            touched[np.int32(top), np.int32(left)] = True
        start, run = stop, run + 1


@loop
def number_texels(touched, texel_slot, texels):
    """Number the texels that pixels need: touched (h,w), of `locate_pixels`, and those right of and below.

    Sets texel_slot (h,w) to the numbers and the first entries of texels (h*w,) to the texels; returns how
    many there are.
    """
    height, width = touched.shape
    count = 0
    for row in range(height):
        above = max(row - 1, 0)
        for column in range(width):
            before = max(column - 1, 0)
            near = touched[row, column] or touched[row, before]
            if near or touched[above, column] or touched[above, before]:
                texel_slot[row, column] = count
                texels[count] = row * width + column
                count += 1
    return count

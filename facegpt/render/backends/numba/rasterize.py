"""The fast CPU rasterizer: a depth-buffered triangle loop compiled by numba (an optional dependency).

Faces of a batch are spread over threads, see `threads`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from facegpt.head.compiled import as_array, loop
from facegpt.render.backends.numba.threads import for_each_face


def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Triangle ids (B,H,W) int64 by the rules of `facegpt.render.rasterize`, -1 on the background.

    vertices (B,V,3) float64 on the CPU: snapped pixels and depth. triangles (F,3) int64.
    """
    points = as_array(vertices)
    corners = as_array(triangles.int())
    ids = np.full((len(points), height, width), -1, dtype=np.int64)

    def draw(face: int) -> None:
        _draw(points[face], corners, ids[face], np.full((height, width), np.inf, dtype=np.float32))

    for_each_face(draw, len(points))
    return torch.from_numpy(ids)


@loop
def _draw(points, triangles, ids, nearest):  # type: ignore[no-untyped-def]
    """Draw one face: first the triangles that face the viewer, then the others where they may be seen.

    Of a closed surface nearly all of the others are hidden, and the farthest pixel of a few tiles tells.
    """
    height, width = ids.shape
    others, count = np.empty(len(triangles), np.int32), 0
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, bx, cx = points[a, 0], points[b, 0], points[c, 0]
        ay, by, cy = points[a, 1], points[b, 1], points[c, 1]
        if (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0:  # counterclockwise, as y points down
            _draw_triangle(t, points, triangles, ids, nearest)
        else:
            others[count] = t
            count += 1
    farthest = _tiles(nearest)
    for t in others[:count]:
        if _may_be_seen(t, points, triangles, farthest, height, width):
            _draw_triangle(t, points, triangles, ids, nearest)


_TILE = 8
# Edge functions are multiples of 2**-24 (snapped coordinates of 2**-12 multiplied) below 2**29: their sums
# are exact, and "positive" is "at least that".
_POSITIVE = 2.0**-24
_MARGIN = 1e-6


@loop
def _tiles(nearest):  # type: ignore[no-untyped-def]
    """The largest depth of each tile of pixels."""
    height, width = nearest.shape
    farthest = np.full((height // _TILE + 1, width // _TILE + 1), -np.inf, nearest.dtype)
    for row in range(height):
        for column in range(width):
            tile = row // _TILE, column // _TILE
            farthest[tile] = max(farthest[tile], nearest[row, column])
    return farthest


@loop
def _may_be_seen(t, points, triangles, farthest, height, width):  # type: ignore[no-untyped-def]
    """Whether some tile that the triangle's bounding box touches is not nearer than all of the triangle."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    left, right = _bounds(points[a, 0], points[b, 0], points[c, 0], width)
    top, bottom = _bounds(points[a, 1], points[b, 1], points[c, 1], height)
    if left > right or top > bottom:
        return False
    depth = min(points[a, 2], points[b, 2], points[c, 2])
    depth -= 1e-6 * abs(depth)  # what interpolation and float32 may round away
    for row in range(top // _TILE, bottom // _TILE + 1):
        for column in range(left // _TILE, right // _TILE + 1):
            if depth <= farthest[row, column]:
                return True
    return False


@loop
def _bounds(a, b, c, count):  # type: ignore[no-untyped-def]
    """First and last of `count` pixels whose centres lie between three coordinates; none if first > last."""
    # Clamped on both sides: a huge float has no integer. The bound stands first, so that NaN becomes it.
    first = math.ceil(min(float(count), max(0.0, min(a, b, c) - 0.5)))
    last = math.floor(min(count - 1.0, max(-1.0, max(a, b, c) - 0.5)))
    return first, last


@loop
def _draw_triangle(t, points, triangles, ids, nearest):  # type: ignore[no-untyped-def]
    height, width = ids.shape
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    ay, by, cy = points[a, 1], points[b, 1], points[c, 1]
    top, bottom = _bounds(ay, by, cy, height)
    if top > bottom:
        return
    ax, bx, cx = points[a, 0], points[b, 0], points[c, 0]
    left, right = _bounds(ax, bx, cx, width)
    if left > right:
        return
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area < 0:
        b, c, bx, cx, by, cy, area = c, b, cx, bx, cy, by, -area
    if not area > 0:
        return
    dxa, dya, dxb, dyb, dxc, dyc = cx - bx, cy - by, ax - cx, ay - cy, bx - ax, by - ay
    # A centre on an edge is inside if that is a top or a left edge.
    least_a = 0.0 if dya < 0 or (dya == 0 and dxa > 0) else _POSITIVE
    least_b = 0.0 if dyb < 0 or (dyb == 0 and dxb > 0) else _POSITIVE
    least_c = 0.0 if dyc < 0 or (dyc == 0 and dxc > 0) else _POSITIVE
    za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
    # Where the edges cross a row says which of its columns to look at: to test all of the bounding box costs
    # more, most of all through branches that no processor foresees. That is rounded: a hair more are looked
    # at, and the edge functions decide.
    slope_a, slope_b, slope_c = 1 / dya, 1 / dyb, 1 / dyc
    x, y, columns = left + 0.5, top + 0.5, float(right - left)
    row_a = dxa * (y - by) - dya * (x - bx)
    row_b = dxb * (y - cy) - dyb * (x - cx)
    row_c = dxc * (y - ay) - dyc * (x - ax)
    for row in range(top, bottom + 1):
        qa, qb, qc = row_a * slope_a, row_b * slope_b, row_c * slope_c
        # 0 and columns stand first, so that NaN (of huge coordinates) leaves the bounds as they are.
        first = max(0.0, qa if dya < 0 else 0.0, qb if dyb < 0 else 0.0, qc if dyc < 0 else 0.0)
        last = min(columns, qa if dya > 0 else columns, qb if dyb > 0 else columns)
        last = min(last, qc if dyc > 0 else columns)
        if first <= last + _MARGIN:
            start, stop = math.ceil(first - _MARGIN), math.floor(last + _MARGIN)
            ea, eb, ec = row_a - dya * start, row_b - dyb * start, row_c - dyc * start
            for column in range(left + start, left + stop + 1):
                if ea >= least_a and eb >= least_b and ec >= least_c:
                    depth = np.float32((ea * za + eb * zb + ec * zc) / area)
                    before = nearest[row, column]
                    if depth < before or (depth == before and t < ids[row, column]):
                        nearest[row, column] = depth
                        ids[row, column] = t
                ea, eb, ec = ea - dya, eb - dyb, ec - dyc
        row_a, row_b, row_c = row_a + dxa, row_b + dxb, row_c + dxc

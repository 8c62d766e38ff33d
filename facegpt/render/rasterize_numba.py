"""The fast CPU rasterizer: a depth-buffered triangle loop compiled by numba (an optional dependency).

Faces of a batch are spread over threads, see `threads`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from facegpt.render.threads import for_each_face


def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Triangle ids (B,H,W) int64 by the rules of `facegpt.render.rasterize`, -1 on the background.

    vertices (B,V,3) float64 on the CPU: snapped pixels and depth. triangles (F,3) int64.
    """
    points = np.ascontiguousarray(vertices.numpy())
    corners = np.ascontiguousarray(triangles.numpy())
    ids = np.full((len(points), height, width), -1, dtype=np.int64)

    def draw(face: int) -> None:
        _draw(points[face], corners, ids[face], np.full((height, width), np.inf, dtype=np.float32))

    for_each_face(draw, len(points))
    return torch.from_numpy(ids)


# Edge functions are multiples of 2**-24 (snapped coordinates of 2**-12 multiplied): "positive" is "at least
# that".
_POSITIVE = 2.0**-24


@njit(cache=True, nogil=True)
def _crossing(edge, slope, least):  # type: ignore[no-untyped-def]
    """How many columns on edge - columns * slope falls to `least`; infinite where columns do not matter.

    Rounding the quotient of two such numbers is exact for coordinates within 8192 pixels: it cannot be closer
    to a whole number, without being one, than 2**-38.
    """
    if slope != 0:
        return (edge - least) / slope
    return np.inf if edge >= least else -np.inf


@njit(cache=True, nogil=True)
def _draw(points, triangles, ids, nearest):  # type: ignore[no-untyped-def]  # numba infers the types
    height, width = ids.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        # Both bounds are clamped on both sides: a huge float has no integer.
        ay, by, cy = points[a, 1], points[b, 1], points[c, 1]
        top = math.ceil(min(max(min(ay, by, cy) - 0.5, 0.0), height))
        bottom = math.floor(min(max(max(ay, by, cy) - 0.5, -1.0), height - 1.0))
        if top > bottom:
            continue
        ax, bx, cx = points[a, 0], points[b, 0], points[c, 0]
        left = math.ceil(min(max(min(ax, bx, cx) - 0.5, 0.0), width))
        right = math.floor(min(max(max(ax, bx, cx) - 0.5, -1.0), width - 1.0))
        if left > right:
            continue
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area < 0:
            b, c, bx, cx, by, cy, area = c, b, cx, bx, cy, by, -area
        if not area > 0:
            continue
        dxa, dya, dxb, dyb, dxc, dyc = cx - bx, cy - by, ax - cx, ay - cy, bx - ax, by - ay
        least_a = 0.0 if dya < 0 or (dya == 0 and dxa > 0) else _POSITIVE
        least_b = 0.0 if dyb < 0 or (dyb == 0 and dxb > 0) else _POSITIVE
        least_c = 0.0 if dyc < 0 or (dyc == 0 and dxc > 0) else _POSITIVE
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        # The columns of a row that are inside follow from where the edges cross it: to test each pixel of the
        # bounding box costs more, most of all through branches that no processor foresees.
        for row in range(top, bottom + 1):
            y, x = row + 0.5, left + 0.5
            qa = _crossing(dxa * (y - by) - dya * (x - bx), dya, least_a)
            qb = _crossing(dxb * (y - cy) - dyb * (x - cx), dyb, least_b)
            qc = _crossing(dxc * (y - ay) - dyc * (x - ax), dyc, least_c)
            first, last = 0.0, float(right - left)
            first = max(first, qa if dya < 0 else 0.0, qb if dyb < 0 else 0.0, qc if dyc < 0 else 0.0)
            last = min(last, qa if dya >= 0 else last, qb if dyb >= 0 else last, qc if dyc >= 0 else last)
            if not first <= last:
                continue
            for column in range(left + math.ceil(first), left + math.floor(last) + 1):
                x = column + 0.5
                ea = dxa * (y - by) - dya * (x - bx)
                eb = dxb * (y - cy) - dyb * (x - cx)
                ec = dxc * (y - ay) - dyc * (x - ax)
                depth = np.float32((ea * za + eb * zb + ec * zc) / area)
                if depth < nearest[row, column]:
                    nearest[row, column] = depth
                    ids[row, column] = t

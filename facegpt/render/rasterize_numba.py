"""The fast CPU rasterizer: a depth-buffered triangle loop compiled by numba (an optional dependency).

The loop is compiled without numba's own threads: they would not know how many threads torch was given, and
OpenMP kills a process that forks after using them (data loader workers). Faces of a batch are spread over
plain threads instead, as many as `torch.get_num_threads()`.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor


def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Triangle ids (B,H,W) int64 by the rules of `facegpt.render.rasterize`, -1 on the background.

    vertices (B,V,3) float64 on the CPU: snapped pixels and depth. triangles (F,3) int64.
    """
    points = np.ascontiguousarray(vertices.numpy())
    corners = np.ascontiguousarray(triangles.numpy())
    ids = np.full((len(points), height, width), -1, dtype=np.int64)

    def draw(face: int) -> None:
        _draw(points[face], corners, ids[face], np.full((height, width), np.inf, dtype=np.float32))

    threads = min(torch.get_num_threads(), len(points))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, range(len(points))))
    else:
        for face in range(len(points)):
            draw(face)
    return torch.from_numpy(ids)


# Edge functions are multiples of 2**-24 (snapped coordinates of 2**-12 multiplied), so "at least half of
# that" says "positive" and the top-left rule becomes a threshold: branches on it would be mispredicted.
_POSITIVE = 2.0**-25


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
        for row in range(top, bottom + 1):
            y = row + 0.5
            for column in range(left, right + 1):
                x = column + 0.5
                ea = dxa * (y - by) - dya * (x - bx)
                eb = dxb * (y - cy) - dyb * (x - cx)
                ec = dxc * (y - ay) - dyc * (x - ax)
                if (ea >= least_a) & (eb >= least_b) & (ec >= least_c):
                    depth = np.float32((ea * za + eb * zb + ec * zc) / area)
                    if depth < nearest[row, column]:
                        nearest[row, column] = depth
                        ids[row, column] = t

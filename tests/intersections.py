"""Which triangles of a mesh cut one another: a sweep along x, then edges against triangles.

Independent of the package, in double precision. Two triangles that share an edge are not compared; of two
that share one corner, only the opposite edges are. Touching without crossing does not count.
"""

from __future__ import annotations

import numpy as np
from numba import njit

Array = np.ndarray


def crossing_pairs(vertices: Array, triangles: Array, margin: float = 1e-6) -> Array:
    """Pairs (P,2) of triangle numbers that cross.

    vertices (V,3), in any unit; triangles (F,3). An edge crosses a triangle when it runs from one side to the
    other through the inside; `margin` is the share of the triangle that its border is not counted with.
    """
    vertices = np.asarray(vertices, np.float64)
    triangles = np.asarray(triangles, np.int64)
    corners = vertices[triangles]
    low, high = corners.min(1), corners.max(1)
    order = np.argsort(low[:, 0], kind="stable")
    return np.array(_sweep(corners, triangles, low, high, order, margin), np.int64).reshape(-1, 2)


def crossing_triangles(vertices: Array, triangles: Array, margin: float = 1e-6) -> Array:
    """Numbers (N,) of the triangles that cross another one."""
    return np.unique(crossing_pairs(vertices, triangles, margin))


@njit
def _sweep(corners: Array, triangles: Array, low: Array, high: Array, order: Array, margin: float) -> list:  # type: ignore[type-arg]
    found = [(np.int64(0), np.int64(0))][:0]
    for position in range(len(order)):
        i = order[position]
        for later in range(position + 1, len(order)):
            j = order[later]
            if low[j, 0] > high[i, 0]:
                break
            if low[j, 1] > high[i, 1] or low[i, 1] > high[j, 1]:
                continue
            if low[j, 2] > high[i, 2] or low[i, 2] > high[j, 2]:
                continue
            shared = 0
            mine, theirs = -1, -1
            for a in range(3):
                for b in range(3):
                    if triangles[i, a] == triangles[j, b]:
                        shared += 1
                        mine, theirs = a, b
            if shared > 1:
                continue
            if _edges_cross(corners[i], corners[j], mine, margin) or _edges_cross(
                corners[j], corners[i], theirs, margin
            ):
                found.append((min(i, j), max(i, j)))
    return found


@njit
def _edges_cross(one: Array, other: Array, shared: int, margin: float) -> bool:
    """Does an edge of `one` (without its shared corner, -1 for none) run through the inside of `other`?"""
    for edge in range(3):
        start, end = edge, (edge + 1) % 3
        if shared in (start, end):
            continue
        if _crosses(one[start], one[end], other[0], other[1], other[2], margin):
            return True
    return False


@njit
def _crosses(p: Array, q: Array, a: Array, b: Array, c: Array, margin: float) -> bool:
    above, below = _volume(a, b, c, p), _volume(a, b, c, q)
    if above * below >= 0:
        return False
    first, second, third = _volume(p, q, a, b), _volume(p, q, b, c), _volume(p, q, c, a)
    total = first + second + third
    if total == 0:
        return False
    return first / total > margin and second / total > margin and third / total > margin


@njit
def _volume(a: Array, b: Array, c: Array, d: Array) -> float:
    """Six times the signed volume of a tetrahedron."""
    u0, u1, u2 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    v0, v1, v2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    w0, w1, w2 = d[0] - a[0], d[1] - a[1], d[2] - a[2]
    return (u1 * v2 - u2 * v1) * w0 + (u2 * v0 - u0 * v2) * w1 + (u0 * v1 - u1 * v0) * w2

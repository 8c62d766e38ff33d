"""Triangles of the skin: Delaunay in a conformal disc, strips between rings, flips of bad edges in space."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.spatial import Delaunay

from facegpt.head.builtin.surface import CAPSULE_RADIUS, DOME_Y

Array = np.ndarray


def disc(capsule: Array) -> Array:
    """Conformal map of (azimuth, arc) (N,2) to the plane: crown at 0, azimuth kept, neck outside."""
    azimuth, arc = capsule[:, 0], capsule[:, 1]
    elevation = np.clip((arc - DOME_Y) / CAPSULE_RADIUS, 0, np.pi / 2 - 1e-6)
    mercator = np.where(arc > DOME_Y, np.arctanh(np.sin(elevation)), (arc - DOME_Y) / CAPSULE_RADIUS)
    return np.exp(-mercator)[:, None] * np.stack([np.sin(azimuth), np.cos(azimuth)], 1)


def inside(points: Array, polygon: Array) -> Array:
    """Even-odd test of (N,2) points in a polygon (M,2)."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    slope = (b[:, 0] - a[:, 0]) / np.where(a[:, 1] == b[:, 1], 1e-12, b[:, 1] - a[:, 1])
    return (crosses & (x < a[:, 0] + slope * (y - a[:, 1]))).sum(1) % 2 == 1


def triangulate(places: Array, holes: list[Array]) -> Array:
    """Delaunay triangles (F,3) on the capsule, counter-clockwise from outside, without those inside a hole.

    A hole is the set of point indices of its rim; a triangle with three corners on one rim lies inside.
    """
    flat = disc(places)
    triangles = Delaunay(flat).simplices
    for hole in holes:
        triangles = triangles[~np.isin(triangles, hole).all(1)]
    a, b, c = (flat[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    # The disc is the surface seen from inside the head, so outward triangles are clockwise in it.
    triangles = np.where((area < 0)[:, None], triangles, triangles[:, [0, 2, 1]])
    return triangles[np.abs(area) > 1e-9]


def strips(points: Array, rings: list[Array], closed: bool) -> Array:
    """Triangles (F,3) between rings of point ids, inner ring first, counter-clockwise; shorter diagonals."""
    triangles = []
    for inner, outer in pairwise(rings):
        a, b = (np.append(ring, ring[:1]) if closed else ring for ring in (inner, outer))
        p, q, r, s = a[:-1], b[:-1], b[1:], a[1:]
        short = np.linalg.norm(points[p] - points[r], axis=1) < np.linalg.norm(points[q] - points[s], axis=1)
        first = np.where(short[:, None], np.stack([p, q, r], 1), np.stack([p, q, s], 1))
        second = np.where(short[:, None], np.stack([p, r, s], 1), np.stack([q, r, s], 1))
        triangles += [first, second]
    return np.concatenate(triangles)


def flip_edges(points: Array, flat: Array, triangles: Array, rounds: int = 12) -> Array:
    """Triangles (F,3) with the edges flipped whose opposite angles sum to more than 180 degrees in space.

    The planar triangulation knows nothing of steep places such as lids, lips and the wings of the nose. A
    flip is made only where the two triangles form a convex quadrilateral in the plane, so nothing can fold.
    """
    triangles = triangles.copy()

    def area(a: int, b: int, c: int) -> float:
        u, v = flat[b] - flat[a], flat[c] - flat[a]
        return float(u[0] * v[1] - u[1] * v[0])

    for _ in range(rounds):
        # Directed edge -> (triangle, apex); the cosine of the angle at the apex, for all edges at once.
        start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
        apex = np.roll(triangles, -2, axis=1).ravel()
        u, v = points[start] - points[apex], points[end] - points[apex]
        angle = np.arccos(np.clip((u * v).sum(1) / np.sqrt((u * u).sum(1) * (v * v).sum(1)), -1, 1))
        sides = {edge: k for k, edge in enumerate(zip(start.tolist(), end.tolist(), strict=True))}
        touched: set[int] = set()
        for (a, b), here in sides.items():
            there = sides.get((b, a), -1)
            if a > b or there < 0 or angle[here] + angle[there] < np.pi + 1e-3:
                continue
            first, second, c, d = here // 3, there // 3, int(apex[here]), int(apex[there])
            if first in touched or second in touched or (c, d) in sides or (d, c) in sides:
                continue
            if area(a, d, c) > -1e-7 or area(d, b, c) > -1e-7:
                continue
            triangles[first], triangles[second] = (a, d, c), (d, b, c)
            touched |= {first, second}
        if not touched:
            break
    return triangles

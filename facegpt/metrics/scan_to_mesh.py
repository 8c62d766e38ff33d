"""How far a scan lies from a mesh: exact point-to-triangle distances, and the alignment that is best.

Shape legend: N points of the scan, V vertices, F triangles, K candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from facegpt.metrics.icp import Alignment, plane_step
from facegpt.metrics.procrustes import procrustes

FIRST_CANDIDATES = 8
AT_ONCE = 500_000  # pairs of a point and a triangle
SIZES = 12  # powers of two of triangle sizes that are told apart
STEPS, TOLERANCE = 100, 1e-9  # of the refinement; relative to the size of the scan


class Surface:
    """Triangles that are searched for the places nearest to points, exactly.

    Triangles of like size share a tree of their centers: one whose center is further away than the best place
    found so far and the radius of its class cannot be nearer.
    """

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        """vertices (V,3), triangles (F,3) int. Raises ValueError for none, or a number that is not finite."""
        if not len(triangles) or not np.isfinite(vertices).all():
            raise ValueError("a surface needs triangles, and vertices that are finite")
        corners = np.asarray(vertices, dtype=np.float64)[triangles]  # (F, 3, 3)
        self.start = corners[:, 0]
        self.ab, self.ac = corners[:, 1] - self.start, corners[:, 2] - self.start
        self.corner_tree = cKDTree(self.start)
        pairs = ((self.ab, self.ab), (self.ab, self.ac), (self.ac, self.ac))
        self.products = np.stack([(one * other).sum(axis=1) for one, other in pairs])  # (3, F)
        centers = corners.mean(axis=1)
        radius = np.linalg.norm(corners - centers[:, None], axis=2).max(axis=1)
        share = radius / max(radius.max(), np.finfo(float).tiny)
        sizes = np.ceil(np.log2(np.maximum(share, 2.0**-SIZES)))
        self.classes = []
        for size in np.unique(sizes):
            members = np.nonzero(sizes == size)[0]
            self.classes.append((members, cKDTree(centers[members]), float(radius[members].max())))

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """The place on the surface (N,3) nearest to each of points (N,3)."""
        best, row = self.corner_tree.query(points)  # a first bound
        for members, tree, radius in self.classes:
            waiting = np.nonzero(tree.query(points)[0] < best + radius)[0]
            count = min(FIRST_CANDIDATES, len(members))
            while len(waiting):
                unsure = []
                for some in np.array_split(waiting, -(-len(waiting) * count // AT_ONCE)):
                    away, near = tree.query(points[some], k=[*range(1, count + 1)])
                    near = members[near]  # (n, count)
                    _, _, squared = self._nearest_weights(points[some, None], near)
                    first = squared.argmin(axis=1)[:, None]
                    gap = np.sqrt(np.take_along_axis(squared, first, axis=1)[:, 0].clip(0))
                    nearer = gap < best[some]
                    best[some[nearer]] = gap[nearer]
                    row[some[nearer]] = np.take_along_axis(near, first, axis=1)[nearer, 0]
                    unsure.append(some[away[:, -1] < best[some] + radius])
                waiting = np.concatenate(unsure) if count < len(members) else waiting[:0]
                count = min(4 * count, len(members))
        v, w, _ = self._nearest_weights(points, row)
        return self.start[row] + v[:, None] * self.ab[row] + w[:, None] * self.ac[row]

    def _nearest_weights(self, points: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Weights of the second and third corner of the place on triangles `rows` (...) nearest to points
        (...,3), and its squared distance: inside, or the best of the three edges.
        """
        ab, ac, offset = self.ab[rows], self.ac[rows], points - self.start[rows]
        d11, d12, d22 = self.products[:, rows]
        p1, p2, length = (offset * ab).sum(-1), (offset * ac).sum(-1), (offset * offset).sum(-1)

        def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
            return (above / np.maximum(below, np.finfo(float).tiny)).clip(0, 1)

        along_ab, along_ac = ratio(p1, d11), ratio(p2, d22)
        along_bc = ratio(p2 - p1 - d12 + d11, d11 - 2 * d12 + d22)
        zero = np.zeros_like(along_ab)
        edges = ((along_ab, zero), (zero, along_ac), (1 - along_bc, along_bc))
        values = [v * v * d11 + 2 * v * w * d12 + w * w * d22 - 2 * (v * p1 + w * p2) for v, w in edges]
        area = d11 * d22 - d12 * d12
        with np.errstate(divide="ignore", invalid="ignore"):
            v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
        inside = (area > 0) & (v >= 0) & (w >= 0) & (v + w <= 1)
        best = np.argmin(values, axis=0)
        v = np.where(inside, v, np.choose(best, [edge[0] for edge in edges]))
        w = np.where(inside, w, np.choose(best, [edge[1] for edge in edges]))
        gained = np.where(inside, -(v * p1 + w * p2), np.min(values, axis=0))
        return v, w, length + gained


def align_landmarks(source: np.ndarray, target: np.ndarray, free_scale: bool) -> Alignment:
    """The similarity, or rigid motion, that brings landmarks source (L,3) nearest to target (L,3)."""
    ours, theirs = (torch.from_numpy(np.asarray(points, float))[None] for points in (source, target))
    scale, rotation, shift = procrustes(ours, theirs, free_scale)
    found = Alignment(float(scale), rotation[0].numpy(), shift[0].numpy(), 0.0, 1)
    found.residual = float(np.sqrt(np.mean(np.sum((found.apply(source) - target) ** 2, axis=1))))
    return found


def refine(surface: Surface, scan: np.ndarray, start: Alignment, free_scale: bool) -> Alignment:
    """The alignment of a mesh to a scan (N,3) with the least squared distances of the scan's points to it.

    Gauss-Newton from `start`, with the planes at right angles to the way from the mesh to each point, until a
    step lowers the distances no more. residual: root mean square distance.
    """
    extent = float(np.linalg.norm(np.ptp(scan, axis=0))) or 1.0
    best, current, least = start, start, np.inf
    for step in range(STEPS):
        places = current.apply(surface.nearest(_back(current, scan)))
        ways = scan - places
        lengths = np.linalg.norm(ways, axis=1)
        residual = float(np.sqrt(np.mean(lengths**2)))
        if not residual < least - TOLERANCE * extent:
            break
        least = residual
        best = Alignment(current.scale, current.rotation, current.translation, residual, step)
        apart = lengths > TOLERANCE * extent
        if apart.sum() < 7:
            break
        normals = ways[apart] / lengths[apart, None]
        move = plane_step(places[apart], scan[apart], normals, free_scale)
        current = Alignment(
            move.scale * current.scale,
            move.rotation @ current.rotation,
            move.apply(current.translation[None])[0],
            residual,
            step + 1,
        )
    return best


def scan_distances(surface: Surface, scan: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Distance (N,) of each point of a scan (N,3) to the aligned mesh, in the scan's unit."""
    return np.linalg.norm(scan - alignment.apply(surface.nearest(_back(alignment, scan))), axis=1)


def _back(alignment: Alignment, points: np.ndarray) -> np.ndarray:
    """Points (N,3) where they were before an alignment: in the mesh's frame its trees need no rebuilding."""
    moved: np.ndarray = (points - alignment.translation) @ alignment.rotation / alignment.scale
    return moved

"""Nearest places on a surface. trimesh's search would do as well but needs rtree, which nothing else does."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

CANDIDATES = 24  # triangles that are looked at around a point
TIE = 1e-9  # distances this near to each other are equal but for rounding, in metres or millimetres


def nearest_points(
    corners: np.ndarray, points: np.ndarray, candidates: int = CANDIDATES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest places on triangles (F,3,3) to points (N,3): rows (N,), barycentric (N,3), distances (N,).

    Only the `candidates` triangles with the nearest centroids are looked at, which is exact for even meshes.
    Of places as near as each other the one with the largest x is taken, so that the rounding of a processor
    has no say on the midline of a head.
    """
    _, near = cKDTree(corners.mean(1)).query(points, k=min(candidates, len(corners)))
    near = near.reshape(len(points), -1)  # (N, K)
    a, b, c = np.moveaxis(corners[near], 2, 0)  # (N, K, 3) each
    ab, ac, ap = b - a, c - a, points[:, None] - a
    d11, d12, d22 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    p1, p2 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(d11 * d22 - d12**2, 1e-30)
    v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
    options = [np.stack([1 - v - w, v, w], -1)]
    outside = (options[0] < 0).any(-1)
    for i, j in ((0, 1), (1, 2), (2, 0)):  # the nearest place of each edge
        start, end = (corners[near][:, :, k] for k in (i, j))
        edge = end - start
        along = ((points[:, None] - start) * edge).sum(-1) / np.maximum((edge**2).sum(-1), 1e-30)
        option = np.zeros_like(options[0])
        option[..., i], option[..., j] = 1 - along.clip(0, 1), along.clip(0, 1)
        options.append(option)
    every = np.stack(options, 2)  # (N, K, 4, 3)
    places = (every[..., None] * corners[near][:, :, None]).sum(3)  # (N, K, 4, 3)
    gap = np.linalg.norm(places - points[:, None, None], axis=-1)
    gap[..., 0] = np.where(outside, np.inf, gap[..., 0])
    tied = gap <= gap.min((1, 2), keepdims=True) + TIE
    best = np.where(tied, places[..., 0], -np.inf).reshape(len(points), -1).argmax(1)
    rows = np.arange(len(points))
    return near[rows, best // 4], every[rows, best // 4, best % 4], gap[rows, best // 4, best % 4]

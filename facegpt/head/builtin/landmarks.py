"""68 landmarks and the contour tables as triangles with barycentric coordinates."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import HeadMesh
from facegpt.head.builtin.surface import to_capsule

Array = np.ndarray


def embed(vertices: Array, triangles: Array, points: Array, candidates: int = 40) -> tuple[Array, Array]:
    """Nearest places on a surface: row of `triangles` (N,) and barycentric coordinates (N,3) for points
    (N,3)."""
    corners = vertices[triangles]
    _, near = cKDTree(corners.mean(1)).query(points, k=candidates)
    best = np.zeros(len(points), np.int64)
    weights = np.zeros((len(points), 3))
    for row, point in enumerate(points):
        bary = _nearest_barycentric(corners[near[row]], point)
        gap = np.linalg.norm((bary[:, :, None] * corners[near[row]]).sum(1) - point, axis=1)
        winner = int(np.argmin(gap))
        best[row], weights[row] = near[row][winner], bary[winner]
    return best, weights


def _nearest_barycentric(corners: Array, point: Array) -> Array:
    """Barycentric coordinates (N,3) of the point of each triangle (N,3,3) nearest to `point` (3,)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, point - a
    d11, d12, d22 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    p1, p2 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = np.maximum(d11 * d22 - d12 * d12, 1e-12)
    v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
    best = np.stack([1 - v - w, v, w], 1)
    distance = np.where((best >= 0).all(1), 0.0, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, j] - corners[:, i]
        t = np.clip(((point - corners[:, i]) * edge).sum(1) / np.maximum((edge * edge).sum(1), 1e-12), 0, 1)
        option = np.zeros_like(best)
        option[:, i], option[:, j] = 1 - t, t
        gap = np.linalg.norm((option[:, :, None] * corners).sum(1) - point, axis=1)
        best = np.where((gap < distance)[:, None], option, best)
        distance = np.minimum(distance, gap)
    return best


def static_landmarks(head: HeadMesh) -> tuple[Array, Array]:
    """Triangles (68,) and barycentric coordinates (68,3) of the frontal landmarks in iBUG order."""
    count = len(head.skin.triangles)
    return embed(head.vertices, head.triangles[:count], anatomy.landmark_table())


def contour_tables(head: HeadMesh) -> tuple[Array, Array]:
    """Contour landmarks for 79 yaw angles: triangles (79,17), barycentric coordinates (79,17,3).

    Rows 0..39 are yaw 0..+39 degrees, rows 40..78 are -1..-39 (DECA's sign: positive turns the face to the
    subject's left). On the side that turns away each point walks forwards along its height to the
    silhouette; on the
    other side it stays.
    """
    count = len(head.skin.triangles)
    table = anatomy.landmark_table()[:17]
    azimuth, arc, _ = to_capsule(table)
    paths = []
    for index in range(17):
        # How far forwards the silhouette can come: far on the cheek, little at the chin.
        stop = np.clip(0.40 * azimuth[index], -0.55, 0.55) if abs(8 - index) > 3 else 0.72 * azimuth[index]
        paths.append(np.stack([np.linspace(azimuth[index], stop, 41), np.full(41, arc[index])], 1))
    places = np.stack(paths)  # (17, 41, 2)
    triangle, weights = _embed_capsule(head, places.reshape(-1, 2), count)
    points = (weights[:, :, None] * head.vertices[head.triangles[triangle]]).sum(1).reshape(17, 41, 3)
    triangle, weights = triangle.reshape(17, 41), weights.reshape(17, 41, 3)
    start_triangle, start_weights = embed(head.vertices, head.triangles[:count], table)
    triangle[:, 0], weights[:, 0] = start_triangle, start_weights
    points[:, 0] = (start_weights[:, :, None] * head.vertices[head.triangles[start_triangle]]).sum(1)
    rows = []
    for yaw in [*range(40), *range(-1, -40, -1)]:
        angle = np.radians(yaw)
        across = points[..., 0] * np.cos(angle) + points[..., 2] * np.sin(angle)
        picks = np.zeros(17, np.int64)
        if yaw > 0:
            picks[9:] = across[9:].argmax(1)
        if yaw < 0:
            picks[:8] = across[:8].argmin(1)
        rows.append(picks)
    pick = np.array(rows)  # (79, 17)
    return triangle[np.arange(17), pick], weights[np.arange(17), pick]


def _embed_capsule(head: HeadMesh, places: Array, count: int) -> tuple[Array, Array]:
    """Triangles and barycentric coordinates of capsule points (N,2) in the frontal part of the skin."""
    flat = np.concatenate([head.skin.capsule * [80.0, 1.0], np.zeros((len(head.skin.capsule), 1))], 1)
    wanted = np.concatenate([places * [80.0, 1.0], np.zeros((len(places), 1))], 1)
    return embed(flat, head.triangles[:count], wanted)

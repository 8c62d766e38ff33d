"""Contour landmarks by yaw for a head that comes without such tables.

A contour point of a turned face is where the surface ends for the eye. On the side that turns away each of
the 17 frontal points walks forwards over the mean face, at its own height, and stops where it reaches
furthest out; on the other side, which the camera sees better, it stays.
"""

from __future__ import annotations

import numpy as np

from facegpt.head.files.format import CONTOUR, CONTOUR_ROWS

YAWS = [*range(40), *range(-1, -40, -1)]  # of the tables' rows, in degrees
STEPS = 41  # places on each path
CHEEK_STOP, CHIN_STOP = 0.40, 0.72  # share of the azimuth that is left at a path's end: the chin moves little
MAX_STOP = 0.55  # radians
_CHUNK = 1 << 20  # ray-triangle pairs at a time, to bound the memory


def cast_contour(
    vertices: np.ndarray, triangles: np.ndarray, contour: np.ndarray, center: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Tables of a head file: triangles (79,17) int64, barycentric coordinates (79,17,3).

    vertices (V,3): mean in metres, x to the subject's left, y up, z out of the face. triangles (F,3): the
    skin of the face, whose rows the tables name. contour (17,): vertices of the frontal contour, iBUG 0-16
    from the subject's right ear over the chin to the left. centre (3,): a point inside the head from which
    the face's skin can be seen; paths run around it.
    """
    direction = vertices[contour] - center
    length = np.linalg.norm(direction, axis=1)
    azimuth = np.arctan2(direction[:, 0], direction[:, 2])
    elevation = np.arcsin(direction[:, 1] / length)
    chin = abs(np.arange(CONTOUR) - CONTOUR // 2) <= 3
    stop = np.where(chin, CHIN_STOP * azimuth, np.clip(CHEEK_STOP * azimuth, -MAX_STOP, MAX_STOP))
    around = np.linspace(azimuth, stop, STEPS, axis=1)  # (17, STEPS)
    up = np.broadcast_to(elevation[:, None], around.shape)
    flat = np.cos(up)
    rays = np.stack([flat * np.sin(around), np.sin(up), flat * np.cos(around)], 2)
    index, barycentric = cast_rays(vertices[triangles], center, rays.reshape(-1, 3))
    index, barycentric = index.reshape(CONTOUR, STEPS), barycentric.reshape(CONTOUR, STEPS, 3)
    index[:, 0], barycentric[:, 0] = vertex_points(triangles, contour)
    for step in range(1, STEPS):  # where a ray left through a hole, the point stays
        hole = index[:, step] < 0
        index[hole, step], barycentric[hole, step] = index[hole, step - 1], barycentric[hole, step - 1]
    points = (barycentric[..., None] * vertices[triangles[index]]).sum(2)  # (17, STEPS, 3)
    pick = np.zeros((CONTOUR_ROWS, CONTOUR), np.int64)
    left, right = slice(CONTOUR // 2 + 1, CONTOUR), slice(0, CONTOUR // 2)
    for row, yaw in enumerate(np.radians(YAWS)):
        across = points[..., 0] * np.cos(yaw) + points[..., 2] * np.sin(yaw)  # x after the turn
        if yaw > 0:
            pick[row, left] = across[left].argmax(1)
        if yaw < 0:
            pick[row, right] = across[right].argmin(1)
    return index[np.arange(CONTOUR), pick], barycentric[np.arange(CONTOUR), pick]


def vertex_points(triangles: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first triangle (N,) at each of vertices (N,), and the corner as barycentric coordinates (N,3).

    Raises IndexError for a vertex that no triangle has.
    """
    index = np.array([np.flatnonzero((triangles == vertex).any(1))[0] for vertex in vertices])
    return index, (triangles[index] == np.asarray(vertices)[:, None]).astype(np.float64)


def cast_rays(corners: np.ndarray, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays (N,3) from origin (3,) leave triangles (F,3,3) last: rows (N,), barycentric (N,3).

    Möller and Trumbore 1997. A ray that meets nothing has row -1 and barycentric coordinates 0.
    """
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal, away = np.cross(ab, ac), origin - a
    moment = np.cross(away, ab)
    distance = (moment * ac).sum(1)
    index, barycentric = np.full(len(rays), -1), np.zeros((len(rays), 3))
    size = max(1, _CHUNK // max(len(corners), 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, len(rays), size):
            ray = rays[start : start + size]
            scale = -1 / (ray @ normal.T)  # (n, F)
            u = (ray @ np.cross(ac, away).T) * scale
            v = (ray @ moment.T) * scale
            t = distance * scale
            t = np.where((u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (t > 0), t, -1)
            best = t.argmax(1)
            rows = np.arange(len(ray))
            hit = t[rows, best] > 0
            weights = np.stack([1 - u[rows, best] - v[rows, best], u[rows, best], v[rows, best]], 1)
            index[start : start + size] = np.where(hit, best, -1)
            barycentric[start : start + size] = np.where(hit[:, None], weights.clip(0, 1), 0)
    return index, barycentric

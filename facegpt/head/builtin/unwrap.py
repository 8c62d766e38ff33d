"""Texture coordinates: the skin as a cylinder open at the back, islands below for the other parts.

The skin's rectangle is v in [SKIN_V, 1]; the strip under it holds eyeballs, ears, mouth cavity and teeth.
"""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import HeadMesh
from facegpt.head.builtin.grids import Grid
from facegpt.head.builtin.surface import CROWN_ARC

Array = np.ndarray

SKIN_V = 0.24
# Islands (u0, v0, u1, v1); a texel of a 256 map is 0.0039.
ISLANDS = {
    "right_eyeball": (0.008, 0.015, 0.198, 0.205), "left_eyeball": (0.212, 0.015, 0.402, 0.205),
    "right_ear": (0.416, 0.015, 0.581, 0.215), "left_ear": (0.595, 0.015, 0.760, 0.215),
    "cavity": (0.776, 0.125, 0.906, 0.215), "tongue": (0.916, 0.125, 0.992, 0.215),
    "upper_teeth": (0.776, 0.070, 0.992, 0.112),
    "lower_teeth": (0.776, 0.015, 0.992, 0.057),
}  # fmt: skip


def skin_uv(azimuth: Array, arc: Array) -> Array:
    """(u, v) (..., 2) of a capsule point; the face gets about one texel of a 256 map per millimetre."""
    turn = azimuth / np.pi
    u = 0.5 + 0.5 * np.sign(turn) * (1 - np.exp(-np.abs(turn) / 0.5)) / (1 - np.exp(-2.0))
    fine = np.linspace(anatomy.NECK_Y, CROWN_ARC, 400)
    density = 0.3 + 1 / (1 + np.exp(-(fine + 118) / 5)) / (1 + np.exp((fine - 55) / 14))
    height = np.concatenate([[0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    v = np.interp(arc, fine, height / height[-1])
    return np.stack([0.004 + 0.992 * u, SKIN_V + (0.997 - SKIN_V) * v], -1)


def unwrap(head: HeadMesh) -> tuple[Array, Array]:
    """Texture coordinates (T, 2), v upwards, and their triangles (F, 3) in the order of `head.triangles`."""
    pieces = [_unwrap_skin(head)]
    for name, grid in head.grids.items():
        if name.endswith(("inner_lids", "nostril")):
            pieces.append(_unwrap_hole(head, grid))
        elif name.endswith("eyeball"):
            pieces.append(_unwrap_eyeball(grid, ISLANDS[name]))
        else:
            pieces.append(grid.unwrap_rectangle(ISLANDS[name]))
    corners = np.concatenate(pieces)  # (F, 3, 2)
    uv, index = np.unique(np.round(corners.reshape(-1, 2), 7), axis=0, return_inverse=True)
    return uv, index.reshape(-1, 3)


def _unwrap_skin(head: HeadMesh) -> Array:
    triangles = head.skin.triangles
    azimuth, arc = head.skin.capsule[triangles, 0], head.skin.capsule[triangles, 1]
    # Midline vertices behind have azimuth +pi; triangles of the right half use -pi there.
    right = (np.where(np.abs(azimuth) > np.pi - 1e-6, 0, azimuth).sum(1) < 0)[:, None]
    azimuth = np.where(right & (azimuth > np.pi - 1e-6), -np.pi, azimuth)
    # The crown is one point with every azimuth: each triangle takes the mean of its other corners.
    crown = arc > CROWN_ARC - 1e-6
    others = np.where(crown, 0, azimuth).sum(1, keepdims=True) / np.maximum((~crown).sum(1, keepdims=True), 1)
    return skin_uv(np.where(crown, others, azimuth), arc)


def _unwrap_hole(head: HeadMesh, grid: Grid) -> Array:
    """Rings, and the end where there is one, inside a hole of the skin island."""
    rim = skin_uv(*head.skin.capsule[grid.ids[0]].T)
    middle = rim.mean(0)
    shares = np.array([0.0, 0.2, 0.4, 0.6, 1.0])[:, None, None]
    rings = rim + shares * (middle - rim)
    cells = grid.cells()
    return rings[cells[..., 0], cells[..., 1] % grid.ids.shape[1]]


def _unwrap_eyeball(grid: Grid, box: tuple[float, float, float, float]) -> Array:
    """Seen from the front, the iris large and the back squeezed into the rim."""
    from facegpt.head.builtin.eyes import POLAR_DEGREES

    cells = grid.cells()
    rows, columns = grid.ids.shape
    polar = np.concatenate([POLAR_DEGREES, [180.0, 0.0]])  # row R is the back pole, row -1 the front
    back = cells[..., 0] == rows
    radius = (1 - np.exp(-polar[cells[..., 0]] / 50)) / (1 - np.exp(-180 / 50))
    radius = np.where(back, 1.0, radius * 0.97)
    turn = (cells[..., 1] + 0.5 * back) * 2 * np.pi / columns
    x, y = radius * np.cos(turn), radius * np.sin(turn)
    # A mirrored eyeball has its columns mirrored too.
    x = x if _is_left(box) else -x
    half = 0.5 * np.array([box[2] - box[0], box[3] - box[1]])
    return np.array([box[0], box[1]]) + half + half * np.stack([x, y], -1)


def _is_left(box: tuple[float, float, float, float]) -> bool:
    return box == ISLANDS["left_eyeball"]


def texel_triangles(uv: Array, uv_triangles: Array, size: int) -> tuple[Array, Array]:
    """At the centres of texels: triangle (size, size), -1 outside, and barycentric (size, size, 3)."""
    pixel = np.stack([uv[:, 0] * size - 0.5, (1 - uv[:, 1]) * size - 0.5], 1)[uv_triangles]  # (F, 3, 2)
    triangle = np.full((size, size), -1)
    weights = np.zeros((size, size, 3))
    low = np.ceil(pixel.min(1) - 1e-6).astype(int)
    span = np.maximum(np.floor(pixel.max(1) + 1e-6).astype(int) + 1 - low, 0)  # (F, 2)
    # All texels of all bounding boxes in one list.
    owner = np.repeat(np.arange(len(pixel)), span.prod(1))
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(span.prod(1)) - span.prod(1), span.prod(1))
    x, y = low[owner, 0] + rank % span[owner, 0], low[owner, 1] + rank // span[owner, 0]
    a, b, c = pixel[owner, 0].T, pixel[owner, 1].T, pixel[owner, 2].T
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    w1 = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
    w2 = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
    inside = (w1 >= -1e-9) & (w2 >= -1e-9) & (w1 + w2 <= 1 + 1e-9)
    inside &= (x >= 0) & (y >= 0) & (x < size) & (y < size)
    triangle[y[inside], x[inside]] = owner[inside]
    weights[y[inside], x[inside]] = np.stack([1 - w1 - w2, w1, w2], -1)[inside]
    return triangle, weights

"""Vertices and triangles of the skin: rings around eyes and lips, an even filling, a Delaunay triangulation.

Only the left half is meshed and then mirrored, so the head is exactly symmetric. Points live on the capsule
of `surface.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.ears import CENTER_Y, CENTER_Z, ear_loop
from facegpt.head.builtin.nostrils import nostril_loop
from facegpt.head.builtin.surface import CROWN_ARC, SkinField
from facegpt.head.builtin.triangulate import disc, flip_edges, inside, strips, triangulate

Array = np.ndarray


@dataclass
class SkinMesh:
    """The skin of the head, both halves; millimetres.

    vertices (V,3), triangles (F,3), capsule (V,2) azimuth and arc of every vertex; mirror (V,) index of the
    mirror image. eye_loop: rim of the left lids, counter-clockwise seen from the front starting at the inner
    corner, upper lid last; mouth_loop: rim of the lips from the right corner along the upper lip to the left
    corner and back; ear_loop, nostril_loop: where the left ear and the left nostril leave the skin,
    counter-clockwise from outside. eye_rings: rings of ids around the left eye, the rim first.
    """

    vertices: Array
    triangles: Array
    capsule: Array
    mirror: Array
    eye_loop: Array
    mouth_loop: Array
    ear_loop: Array
    nostril_loop: Array
    eye_rings: list[Array] = field(default_factory=list)


def spacing(points: Array) -> Array:
    """Wanted edge length (mm) at 3D points (N,3): fine on the face, coarse on scalp and neck."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    eye = np.linalg.norm((points - [32, 0, 92]) * [1, 1, 0.5], axis=1)
    eye = np.minimum(eye, np.linalg.norm((points * [-1, 1, 1] - [32, 0, 92]) * [1, 1, 0.5], axis=1))
    mouth = np.hypot(np.maximum(x - 20, 0), y + 70)
    nose = np.hypot(np.maximum(x - 12, 0), np.maximum(np.abs(y + 36) - 10, 0))
    near = np.minimum(np.minimum(eye - 14, mouth - 10), nose - 3)
    fine = 2.25 + 0.085 * np.clip(near, 0, 80)
    back = np.clip((70 - z) / 90, 0, 1)
    ends = np.clip((y - 35) / 60, 0, 1) + np.clip((-115 - y) / 30, 0, 1)
    wanted = np.where(z > 55, fine, np.maximum(fine, 4.5)) + 3.0 * back + 2.0 * ends
    ear = np.hypot(y - CENTER_Y, z - CENTER_Z) + 40 * (x < 50)
    return np.minimum(wanted, 3.4 + 0.20 * np.maximum(ear - 17, 0))


def lid_outline(count: int = 17) -> tuple[Array, Array]:
    """Frontal (x, y) in mm of the left opening, (upper, lower), from the inner to the outer corner."""
    sides = []
    for points in (anatomy.UPPER_LID, anatomy.LOWER_LID):
        curve = PchipInterpolator(points[:, 0], points[:, 1])
        # Cosine steps put more points near the corners.
        x = points[0, 0] + (points[-1, 0] - points[0, 0]) * 0.5 * (
            1 - np.cos(np.linspace(0, np.pi, count) * 0.94 + 0.0942)
        )
        x[0], x[-1] = points[0, 0], points[-1, 0]
        sides.append(np.stack([x, curve(x)], 1))
    return sides[0], sides[1]


def _eye_rings(skin: SkinField) -> list[Array]:
    """Rings (n,2) on the capsule around the left eye; ring 0 is the rim of the lids."""
    upper, lower = lid_outline()
    loop = np.concatenate([lower, upper[-2:0:-1]])
    middle = np.array([31.4, -0.8])
    # Even steps on the oval, so that its edges are no longer than those of the filling outside.
    wide = np.pi + np.arange(len(loop)) * 2 * np.pi / len(loop)
    wide = wide - 0.22 * np.sin(2 * wide)
    oval = middle + np.stack([19.5 * np.cos(wide), 13.0 * np.sin(wide)], 1)
    rings = []
    for share in (0.0, 0.16, 0.36, 0.62, 0.92):
        rings.append(skin.at(loop * (1 - share) + oval * share))
    return rings


def _lip_rings(skin: SkinField) -> list[Array]:
    """Half rings (n,2) on the capsule around the left half of the lips, from midline to midline."""
    count = 12
    t = np.sin(np.linspace(0, 1, count) * np.pi / 2 * 0.96) / np.sin(np.pi / 2 * 0.96)
    line = PchipInterpolator(*anatomy.LIP_LINE.T)
    slit = np.stack([t * 23.6, line(t * 23.6)], 1)
    upper, lower = (
        np.stack([t * 25.6, PchipInterpolator(*p.T)(t * 25.6)], 1)
        for p in (anatomy.UPPER_LIP, anatomy.LOWER_LIP)
    )
    far_upper = np.stack([t * 32.0, -54.0 - 17 * t**3], 1)
    far_lower = np.stack([t * 32.0, -88.0 + 17 * t**3], 1)
    opening = 0.06 * (1 - t**4)[:, None] * [0, 1]
    rings = []
    for share in (0.0, 0.14, 0.34, 0.58, 0.8, 1.0, 1.28, 1.62):
        if share <= 1:
            above, below = slit * (1 - share) + upper * share, slit * (1 - share) + lower * share
        else:
            above, below = (
                upper + (far_upper - upper) * (share - 1),
                lower + (far_lower - lower) * (share - 1),
            )
        gap = opening if share == 0 else 0 * opening
        above, below = above + gap, below - gap
        ring = skin.at(np.concatenate([above[:-1], 0.5 * (above[-1:] + below[-1:]), below[-2::-1]]))
        ring[[0, -1], 0] = 0.0
        rings.append(ring)
    return rings


def _walk(skin: SkinField, azimuth: float, start: float, stop: float, scale: float) -> Array:
    """Arcs from start to stop along a meridian, spaced by `spacing`; both ends included."""
    fine = np.linspace(start, stop, 600)
    points = skin.point(np.full(600, azimuth), fine)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1) / (
        scale * spacing(0.5 * (points[1:] + points[:-1]))
    )
    length = np.concatenate([[0], np.cumsum(steps)])
    return np.interp(np.linspace(0, length[-1], max(2, round(length[-1]) + 1)), length, fine)


def _halton(count: int, base: int) -> Array:
    index, value, scale = np.arange(1, count + 1), np.zeros(count), 1.0
    while index.any():
        scale /= base
        value += scale * (index % base)
        index //= base
    return value


def _fill(skin: SkinField, fixed: Array, holes: list[Array], scale: float) -> Array:
    """Quasi-random points (N,2) at about the wanted spacing, outside the holes, not near the fixed points."""
    count = 26000
    u, v = _halton(count, 2), _halton(count, 3)
    candidates = np.stack([np.pi * u**1.35, anatomy.NECK_Y + (CROWN_ARC - anatomy.NECK_Y) * v], 1)
    for hole in holes:
        candidates = candidates[~inside(candidates, hole)]
    points = skin.point(candidates[:, 0], candidates[:, 1])
    wanted = scale * spacing(points)
    tree = cKDTree(skin.point(fixed[:, 0], fixed[:, 1]))
    keep = (tree.query(points)[0] > 0.75 * wanted) & (points[:, 0] > 0.45 * wanted)
    candidates, points, wanted = candidates[keep], points[keep], wanted[keep]
    neighbors = cKDTree(points).query_ball_point(points, 0.72 * wanted)
    free = np.ones(len(points), bool)
    chosen = []
    for index, close in enumerate(neighbors):
        if free[index]:
            chosen.append(index)
            free[close] = False
    return candidates[chosen]


def _relax(skin: SkinField, places: Array, fixed: int, holes: list[Array], scale: float) -> Array:
    """Move all but the first `fixed` points (N,2) until edges have the wanted lengths (as DistMesh)."""
    places = places.copy()
    for step in range(48):
        points = skin.point(places[:, 0], places[:, 1])
        if step % 6 == 0:
            triangles = triangulate(places, holes)
            edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2))
            a, b = np.unique(edges, axis=0).T
        length = np.linalg.norm(points[a] - points[b], axis=1)
        wanted = scale * spacing(0.5 * (points[a] + points[b]))
        stretch = np.clip(1.15 * wanted / np.maximum(length, 1e-9) - 1, -0.25, 1.0)
        push = stretch[:, None] * (places[a] - places[b])
        move = np.zeros_like(places)
        np.add.at(move, a, push)
        np.add.at(move, b, -push)
        move[:fixed] = 0
        before = places[fixed:].copy()
        places += 0.16 * move
        free = places[fixed:]
        for hole in holes:  # nothing may be pushed near the rim, or its edges would be cut
            rim = places[hole]
            lost = inside(free, rim + 0.11 * (rim - rim.mean(0)))
            free[lost] = before[lost]
        free[:, 0] = np.clip(free[:, 0], 0.012, np.pi - 0.03)
        free[:, 1] = np.clip(free[:, 1], anatomy.NECK_Y + 3, CROWN_ARC - 4)
    return places


def build_skin(skin: SkinField, scale: float = 1.3) -> SkinMesh:
    """Mesh the head's skin; `scale` multiplies the wanted edge lengths."""
    eye_rings, lip_rings = _eye_rings(skin), _lip_rings(skin)
    front_top, front_bottom = lip_rings[-1][0, 1], lip_rings[-1][-1, 1]
    above = _walk(skin, 0.0, front_top, CROWN_ARC, scale)[1:]
    below = _walk(skin, 0.0, anatomy.NECK_Y, front_bottom, scale)[:-1]
    behind = _walk(skin, np.pi, anatomy.NECK_Y, CROWN_ARC, scale)[:-1]
    rim = np.linspace(0, np.pi, 28)[1:-1]
    midline = np.concatenate([
        np.stack([np.zeros_like(above), above], 1), np.stack([np.zeros_like(below), below], 1),
        np.stack([np.full_like(behind, np.pi), behind], 1), np.stack([rim, np.full_like(rim,
        anatomy.NECK_Y)], 1),
    ])  # fmt: skip
    # Eyes and lips are strips between their rings; only what lies outside them is triangulated freely.
    size, half = len(eye_rings[0]), len(lip_rings[0])
    rims = [eye_rings[-1], lip_rings[-1], ear_loop(skin), nostril_loop(skin)]
    fixed = np.concatenate([*rims, midline])
    holes = np.split(np.arange(sum(map(len, rims))), np.cumsum([len(rim) for rim in rims])[:-1])
    places = np.concatenate([fixed, _fill(skin, fixed, rims, scale)])
    places = _relax(skin, places, len(fixed), holes, scale)
    outside = flip_edges(skin.point(places[:, 0], places[:, 1]), disc(places), triangulate(places, holes))
    on_midline = np.zeros(len(places), bool)
    on_midline[holes[1][[0, -1]]] = True
    first = holes[-1][-1] + 1
    on_midline[first : first + len(above) + len(below) + len(behind)] = True

    count = len(places)
    eye_ids = [count + np.arange(size) + k * size for k in range(len(eye_rings) - 1)] + [holes[0]]
    count += size * (len(eye_rings) - 1)
    lip_ids = [count + np.arange(half) + k * half for k in range(len(lip_rings) - 1)] + [holes[1]]
    places = np.concatenate([places, *eye_rings[:-1], *lip_rings[:-1]])
    on_midline = np.concatenate([on_midline, np.zeros(len(places) - len(on_midline), bool)])
    for ids in lip_ids:
        on_midline[ids[[0, -1]]] = True
    points = skin.point(places[:, 0], places[:, 1])
    eye_strips = strips(points, eye_ids, closed=True)
    lip_strips = strips(points, lip_ids, closed=False)[:, [0, 2, 1]]
    mesh = _mirror(skin, places, np.concatenate([outside, eye_strips, lip_strips]), on_midline)
    mesh.eye_rings, mesh.eye_loop = eye_ids, eye_ids[0]
    mesh.ear_loop, mesh.nostril_loop = holes[2], holes[3]
    left, corner = lip_ids[0], (half - 1) // 2
    mesh.mouth_loop = np.concatenate([
        mesh.mirror[left[corner:0:-1]], left, mesh.mirror[left[-2:corner:-1]],
    ])  # fmt: skip
    return mesh


def _mirror(skin: SkinField, places: Array, triangles: Array, on_midline: Array) -> SkinMesh:
    """Both halves from the left one."""
    count = len(places)
    twin = np.arange(count)
    twin[~on_midline] = count + np.arange((~on_midline).sum())
    capsule = np.concatenate([places, places[~on_midline] * [-1, 1]])
    vertices = skin.point(capsule[:, 0], capsule[:, 1])
    vertices[:count][on_midline, 0] = 0.0
    vertices[count:] = vertices[:count][~on_midline] * [-1, 1, 1]
    mirror = np.concatenate([twin, np.flatnonzero(~on_midline)])
    everything = np.concatenate([triangles, mirror[triangles][:, [0, 2, 1]]])
    empty = np.zeros(0, np.int64)
    return SkinMesh(vertices, everything, capsule, mirror, empty, empty, empty, empty)

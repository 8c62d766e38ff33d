"""One hundred identity components: anthropometric ones first, then smooth ones of falling size.

Every component is a displacement of all vertices for one standard deviation. They are mutually orthogonal,
and in all of them the eyeballs move without bending and the lids stay on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import MIRROR_X, HeadMesh
from facegpt.head.builtin.fields import Bump, bumps
from facegpt.head.builtin.rig import smoothstep

Array = np.ndarray

COUNT = 100
LOCAL_SHARE = 0.68  # of the displacements below: a random face sums forty of them

# Whole-head components: name -> (root-mean-square size in mm, field of points (N,3)).
GLOBAL: dict[str, tuple[float, Callable[[Array], Array]]] = {
    "overall_size": (4.7, lambda p: p - [0, -25, 15]),
    "head_height_vs_width": (3.2, lambda p: (p - [0, -25, 15]) * [-0.9, 1, -0.15]),
    "head_depth": (2.4, lambda p: (p - [0, 0, 15]) * [0, 0, 1]),
    "face_length": (1.9, lambda p: _along(p, 1, -35 * smoothstep((10 - p[:, 1]) / 120) * (p[:, 2] > -200))),
    "jaw_width": (
        1.4,
        lambda p: _along(p, 0, p[:, 0] * smoothstep((-25 - p[:, 1]) / 60) * smoothstep((p[:, 2] + 20) / 60)),
    ),
    "neck_width": (
        0.9,
        lambda p: (
            (p - [0, 0, -5])
            * [1, 0, 0.8]
            * (smoothstep((-78 - p[:, 1]) / 50) * smoothstep((105 - p[:, 2]) / 60))[:, None]
        ),
    ),
    "cheekbone_width": (1.0, lambda p: _along(p, 0, p[:, 0] * np.exp(-(((p[:, 1] + 24) / 30) ** 2)))),
    "profile_convexity": (
        0.9,
        lambda p: _along(p, 2, (np.exp(-(((p[:, 1] + 28) / 42) ** 2)) - 0.4) * _front(p)),
    ),
    "forehead_slope": (0.55, lambda p: _along(p, 2, -smoothstep((p[:, 1] - 10) / 80) * _front(p))),
    "occiput": (
        0.65,
        lambda p: _along(p, 2, -smoothstep((20 - p[:, 2]) / 100) * np.exp(-(((p[:, 1] - 5) / 50) ** 2))),
    ),
    "crown_height": (0.6, lambda p: _along(p, 1, smoothstep((p[:, 1] - 30) / 75))),
    "face_flatness": (
        0.7,
        lambda p: _along(p, 2, (np.abs(p[:, 0]) / 45 - 0.75) * _front(p) * (p[:, 1] > -125)),
    ),
    "lower_face_height": (
        0.75,
        lambda p: _along(p, 1, -smoothstep((-50 - p[:, 1]) / 50) * smoothstep((p[:, 2] + 10) / 60)),
    ),
    "temple_width": (
        0.6,
        lambda p: _along(
            p, 0, np.sign(p[:, 0]) * np.exp(-(((p[:, 1] - 25) / 28) ** 2)) * smoothstep(np.abs(p[:, 0]) / 70)
        ),
    ),
}

# Local components: name -> (largest displacement in mm, bumps).
LOCAL: dict[str, tuple[float, list[Bump]]] = {
    "cheek_fullness": (
        3.4,
        [((42, -55, 88), (17, 19, 22), (0.5, -0.1, 1)), ((58, -55, 65), (16, 20, 25), (0.8, 0, 0.4))],
    ),
    "chin_projection": (3.4, [((0, -102, 108), (20, 15, 26), (0, -0.1, 1))]),
    "chin_length": (3.2, [((0, -108, 100), (27, 15, 34), (0, -1, 0))]),
    "chin_width": (2.4, [((22, -103, 98), (11, 14, 22), (1, 0, 0.1))]),
    "jaw_angle": (3.0, [((58, -80, 45), (20, 17, 26), (0.9, -0.5, 0))]),
    "cheekbone_projection": (2.6, [((46, -24, 88), (15, 13, 20), (0.5, 0.2, 0.9))]),
    "nose_length": (3.2, [((0, -38, 120), (16, 14, 22), (0, -1, 0.15))]),
    "nose_projection": (3.2, [((0, -33, 127), (11, 17, 22), (0, 0, 1))]),
    "nose_width": (2.3, [((16, -41, 108), (7, 10, 14), (1, 0, 0.1))]),
    "nose_bridge_height": (2.4, [((0, -8, 113), (8, 14, 14), (0, 0, 1))]),
    "nose_bridge_width": (1.7, [((9, -12, 106), (6, 16, 12), (1, 0, 0))]),
    "nose_hump": (1.8, [((0, -16, 119), (8, 8, 14), (0, 0.1, 1))]),
    "nose_tip_rotation": (2.2, [((0, -36, 128), (10, 8, 13), (0, 1, 0.1))]),
    "nose_tip_breadth": (1.6, [((7, -36, 126), (5, 8, 10), (1, 0, 0))]),
    "nostril_flare": (1.5, [((14, -44, 111), (5, 4, 9), (0.6, -0.9, 0.2))]),
    "nose_root_depth": (2.0, [((0, 3, 106), (11, 9, 14), (0, 0, -1))]),
    "brow_ridge": (
        2.5,
        [((28, 19, 100), (17, 8, 14), (0, -0.1, 1)), ((0, 18, 107), (12, 8, 14), (0, 0, 0.6))],
    ),
    "brow_height": (2.2, [((32, 22, 99), (22, 9, 18), (0, 1, 0))]),
    "forehead_bossing": (2.4, [((24, 48, 99), (22, 16, 22), (0, 0.2, 1))]),
    "eye_spacing": (1.9, [((31.2, 0, 80), (20, 22, 26), (1, 0, 0))]),
    "eye_height": (1.6, [((31.2, 0, 80), (22, 16, 26), (0, 1, 0))]),
    "eye_depth": (1.9, [((31.2, 0, 85), (19, 17, 24), (0, 0, -1))]),
    "under_eye_fullness": (1.5, [((33, -17, 94), (15, 6, 12), (0, -0.2, 1))]),
    "lip_thickness": (
        1.6,
        [((0, -62, 118), (15, 3.2, 10), (0, 1, 0.4)), ((0, -78, 115), (15, 3.6, 10), (0, -1, 0.4))],
    ),
    "upper_lip_thickness": (1.2, [((0, -62, 118), (15, 3.4, 10), (0, 1, 0.3))]),
    "lip_protrusion": (2.6, [((0, -70, 116), (19, 10, 14), (0, 0, 1))]),
    "mouth_width": (2.6, [((24, -71, 102), (10, 10, 14), (1, 0, -0.4))]),
    "mouth_height": (1.8, [((0, -70, 110), (28, 13, 26), (0, 1, 0))]),
    "mouth_corners": (1.3, [((24, -71, 102), (8, 7, 12), (0, 1, 0))]),
    "philtrum_length": (
        1.8,
        [((0, -53, 115), (13, 7, 12), (0, 1, 0.2)), ((0, -66, 116), (20, 6, 12), (0, -0.6, 0))],
    ),
    "philtrum_depth": (0.9, [((0, -54, 115), (3, 6, 8), (0, 0, -1))]),
    "cupids_bow": (
        1.0,
        [((6.5, -60.5, 117), (3.5, 3, 8), (0, 1, 0)), ((0, -61, 118), (2.2, 3, 8), (0, -0.8, 0))],
    ),
    "mentolabial_fold": (1.5, [((0, -87, 111), (16, 5, 12), (0, 0, -1))]),
    "chin_cleft": (0.9, [((0, -102, 111), (3.2, 8, 8), (0, 0, -1))]),
    "nasolabial_fold": (
        1.3,
        [((28, -54, 100), (5, 11, 10), (-0.3, 0, -1)), ((37, -48, 96), (8, 11, 12), (0.2, 0, 0.8))],
    ),
    "jowls": (2.2, [((42, -94, 80), (13, 10, 18), (0.5, -0.8, 0.2))]),
    "double_chin": (2.6, [((0, -122, 80), (24, 9, 18), (0, -0.9, 0.4))]),
    "ear_size": (
        2.6,
        [((85, 3, 4), (14, 14, 16), (0, 1, -0.3)), ((80, -52, 14), (14, 12, 16), (0, -1, 0.1))],
    ),
    "ear_protrusion": (3.0, [((91, -18, -6), (9, 26, 12), (1, 0, 0.2))]),
    "ear_lobe": (1.6, [((80, -54, 13), (9, 8, 10), (0.1, -1, 0))]),
    "adams_apple": (1.6, [((0, -134, 60), (9, 9, 12), (0, 0, 1))]),
}

# Components that turn or scale the region of the eyes about the eyeballs' centres: name -> size.
EYE_NAMES = ("eye_size", "eye_tilt", "eye_opening")


def _front(points: Array) -> Array:
    return smoothstep((points[:, 2] - 5) / 70)


def _along(points: Array, axis: int, amount: Array) -> Array:
    field = np.zeros_like(points)
    field[:, axis] = amount
    return field


def lid_hold(points: Array) -> tuple[Array, Array]:
    """How far (N,) each point has to move with the nearer eyeball, and that eyeball's centre (N,3)."""
    center = anatomy.EYE_CENTER * np.where(points[:, :1] < 0, MIRROR_X, np.ones(3))
    distance = np.linalg.norm(points - center, axis=1)
    return 1 - smoothstep((distance - 18.5) / 13.0), center


def _rigid_eyes(points: Array, field: Callable[[Array], Array]) -> Array:
    """The field with eyeballs and lids moved as the eyeball's centre moves."""
    hold, center = lid_hold(points)
    return (1 - hold)[:, None] * field(points) + hold[:, None] * field(center)


def _eye_field(points: Array, name: str) -> Array:
    hold, center = lid_hold(points)
    away = points - center
    side = np.where(points[:, 0] < 0, -1.0, 1.0)
    if name == "eye_size":
        amount = 0.045 * away
    elif name == "eye_tilt":  # outer corners up; the lids turn about the line of sight and stay on the sphere
        amount = 0.075 * np.stack([-side * away[:, 1], side * away[:, 0], 0 * side], 1)
    else:  # upper lid up, lower lid down, about the eye's horizontal axis
        turn = 0.06 * np.tanh(away[:, 1] / 3.0)
        amount = turn[:, None] * np.stack([0 * side, away[:, 2], -away[:, 1]], 1)
    return hold[:, None] * amount


def _smooth_fields(points: Array, count: int, seed: int = 20) -> list[Array]:
    """Random waves of falling wavelength; two in five of the last are asymmetric."""
    generator = np.random.default_rng(seed)
    fields = []
    for index in range(count):
        wavelength = 130.0 - 70.0 * index / count
        waves = generator.normal(size=(6, 3))
        waves *= 2 * np.pi / wavelength / np.linalg.norm(waves, axis=1, keepdims=True)
        phase, amount = generator.uniform(0, 2 * np.pi, 6), generator.normal(size=(6, 3))

        def wave(p: Array, waves: Array = waves, phase: Array = phase, amount: Array = amount) -> Array:
            return np.cos(p @ waves.T + phase) @ amount

        symmetric = index < count * 0.7 or index % 5 > 1

        def field(p: Array, wave: Callable[[Array], Array] = wave, symmetric: bool = symmetric) -> Array:
            return 0.5 * (wave(p) + wave(p * MIRROR_X) * MIRROR_X) if symmetric else wave(p)

        fields.append(_rigid_eyes(points, field))
    return fields


def identity_basis(head: HeadMesh) -> tuple[Array, list[str]]:
    """Displacements (V, 3, 100) in mm per standard deviation, and the components' names."""
    points = head.vertices
    raw: list[tuple[str, float, Array]] = []
    for name, (size, function) in GLOBAL.items():
        raw.append((name, size, _rigid_eyes(points, function)))
    local = []
    for name, (peak, terms) in LOCAL.items():
        field = _rigid_eyes(points, partial(bumps, terms=terms))
        local.append((name, LOCAL_SHARE * peak * _rms(field) / _peak(field), field))
    for name in EYE_NAMES:
        field = _eye_field(points, name)
        if name == "eye_opening":
            field[np.concatenate([head.parts["left_eyeball"], head.parts["right_eyeball"]])] = 0
        local.append((name, LOCAL_SHARE * _rms(field), field))
    local.sort(key=lambda item: -item[1])
    raw += local
    rest = COUNT - len(raw)
    for index, field in enumerate(_smooth_fields(points, rest)):
        raw.append((f"smooth_{index + 1:02d}", 0.22 * (0.08 / 0.22) ** (index / max(rest - 1, 1)), field))
    # Gram-Schmidt in this order keeps the first ones as they were meant.
    flat = np.stack([field.ravel() for _, _, field in raw], 1)
    orthogonal, triangular = np.linalg.qr(flat)
    orthogonal *= np.sign(np.diag(triangular))
    sizes = np.array([size for _, size, _ in raw]) * np.sqrt(len(points))
    order = np.argsort(-sizes, kind="stable")
    basis = (orthogonal * sizes)[:, order].reshape(len(points), 3, COUNT)
    return basis, [raw[i][0] for i in order]


def _rms(field: Array) -> float:
    return float(np.sqrt((field**2).sum(1).mean()))


def _peak(field: Array) -> float:
    return float(np.sqrt((field**2).sum(1).max()))

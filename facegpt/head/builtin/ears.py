"""Ears: a dished flap with helix, antihelix, concha, tragus and lobe, hinged at its front. Millimetres,
left side."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from facegpt.head.builtin.surface import Skin, to_capsule

Array = np.ndarray

SEGMENTS = 28
CENTER_Y, CENTER_Z = -25.0, 9.0
TILT = np.radians(14.0)
# Outline about the ear canal: direction in degrees (0 = backwards, 90 = up) -> distance
OUTLINE = np.array([
    (0, 20.5), (30, 24.5), (60, 31.0), (85, 34.0), (110, 30.0), (135, 19.5), (160, 12.5), (180, 11.5),
    (205, 12.0),
    (230, 15.5), (250, 23.0), (266, 30.0), (282, 30.0), (302, 25.5), (330, 21.5), (360, 20.5),
])  # fmt: skip
# Rings: share of the outline's distance, height above the head at the free (back) and at the hinged (front)
# edge
RINGS = np.array([
    (0.16, 0.5, 1.2), (0.34, 1.2, 1.6), (0.50, 5.5, 3.2), (0.62, 10.5, 3.6), (0.74, 10.2, 2.6), (0.84, 9.6,
    2.2),
    (0.92, 12.8, 2.0), (0.98, 13.8, 1.4), (1.0, 12.0, 0.4), (0.95, 9.0, -1.0), (0.80, 4.0, -3.0), (0.66,
    -4.0, -5.0),
])  # fmt: skip


def ear(skin: Skin) -> tuple[Array, Array]:
    """Rings (R, SEGMENTS, 3), from the ear canal over the rim to the back where they enter the head, and
    the canal (3,)."""
    turn = np.arange(SEGMENTS) * 2 * np.pi / SEGMENTS
    reach = CubicSpline(np.radians(OUTLINE[:, 0]), OUTLINE[:, 1], bc_type="periodic")(turn)
    free = PchipInterpolator(np.radians([0, 45, 75, 105, 135, 160, 180, 210, 245, 270, 310, 360]),
                             [1.0, 0.95, 0.75, 0.5, 0.3, 0.18, 0.12, 0.15, 0.3, 0.45, 0.8,
                             1.0])(turn)  # fmt: skip
    lobe = np.exp(-(((turn - np.radians(272)) / 0.45) ** 2))
    rings = []
    for share, back, front in RINGS:
        height = free * back + (1 - free) * front
        # The lobe is a flat cushion without antihelix.
        cushion = (
            np.interp(share, [0.2, 0.7, 0.97], [1.2, 5.0, 3.6]) if back > 9.5 or share < 0.7 else 0.3 * back
        )
        height = height * (1 - lobe) + lobe * cushion
        # The tragus stands up in front of the canal.
        height = height + 4.2 * np.exp(-(((turn - np.pi) / 0.45) ** 2)) * np.exp(
            -(((share - 0.62) / 0.2) ** 2)
        ) * (back > 0)
        rings.append(_place(skin, share * reach, turn, height))
    return np.stack(rings), _place(skin, np.zeros(1), np.zeros(1), np.zeros(1) - 1.0)[0]


def _place(skin: Skin, distance: Array, turn: Array, height: Array) -> Array:
    """Points at a distance and direction from the canal in the ear's plane, raised above the head's side."""
    backwards, up = distance * np.cos(turn), distance * np.sin(turn)
    y = CENTER_Y + up * np.cos(TILT) - backwards * np.sin(TILT)
    z = CENTER_Z - backwards * np.cos(TILT) - up * np.sin(TILT)
    x = _side(skin, y, z)
    # The flap leaves the head at an angle: height is measured outwards and a little backwards.
    return np.stack([x + 0.97 * height, y, z - 0.12 * height], -1)


def _side(skin: Skin, y: Array, z: Array) -> Array:
    """x of the head's left side at (y, z)."""
    x = np.full_like(y, 76.0)
    for _ in range(8):
        azimuth, arc, _ = to_capsule(np.stack([x, y, z], -1))
        x = 0.5 * x + 0.5 * skin.point(azimuth, arc)[..., 0]
    return x

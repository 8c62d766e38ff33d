"""Ears: a flap that grows out of a loop of the skin, with helix, antihelix, concha, tragus and lobe.

Millimetres, left side. Places are polar in the ear's plane about the ear canal: direction 0 backwards, 90
degrees up; a share of the outline's distance; a height above the side of the head.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from facegpt.head.builtin.surface import SkinField, to_capsule

Array = np.ndarray

SEGMENTS = 36
CENTER_Y, CENTER_Z = -25.0, 9.0
TILT = np.radians(12.0)
# Outline about the ear canal: direction in degrees -> distance
OUTLINE = np.array([
    (0, 21.0), (30, 24.5), (60, 31.0), (80, 32.5), (105, 29.5), (128, 22.0), (150, 15.5), (180, 13.0),
    (210, 14.5), (235, 20.5), (253, 26.0), (270, 28.0), (287, 27.6), (306, 24.8), (330, 21.0), (360, 21.0),
])  # fmt: skip
# How far (0..1) the flap stands free of the head: all of it behind, nothing in front.
FREE = np.array([
    (0, 1.0), (45, 1.0), (75, 0.95), (100, 0.80), (118, 0.52), (135, 0.26), (155, 0.06), (180, 0.0),
    (205, 0.0), (228, 0.10), (250, 0.32), (275, 0.60), (310, 0.90), (360, 1.0),
])  # fmt: skip
# Rings from the skin over the back, the rim and the front of the flap to the canal, as (share, height) where
# the flap is free, where it is attached, and on the lobe.
RINGS = np.array([
    (0.50, 0.0, 1.12, 0.0, 0.66, 0.0), (0.53, 2.6, 1.03, 0.5, 0.68, 1.2), (0.62, 6.4, 0.96, 1.1, 0.76, 2.4),
    (0.77, 9.6, 0.90, 1.7, 0.88, 3.2), (0.92, 12.4, 0.84, 2.3, 0.97, 4.2), (1.00, 14.6, 0.78, 2.9, 1.00, 5.6),
    (0.98, 16.2, 0.72, 3.3, 0.96, 7.0), (0.91, 16.2, 0.66, 3.4, 0.88, 7.8),
    (0.85, 13.6, 0.60, 3.2, 0.78, 7.9), (0.74, 13.4, 0.54, 2.9, 0.67, 7.5),
    (0.62, 14.2, 0.48, 2.4, 0.56, 6.9), (0.53, 11.0, 0.42, 1.6, 0.47, 5.2),
    (0.45, 4.2, 0.34, 0.6, 0.38, 2.6), (0.24, 1.0, 0.20, -0.4, 0.22, 0.6),
])  # fmt: skip
CANAL_HEIGHT = -2.0


def _turns() -> Array:
    return np.arange(SEGMENTS) * 2 * np.pi / SEGMENTS


def _shares() -> tuple[Array, Array]:
    """Distance and height (R, SEGMENTS) of every ring."""
    turn = _turns()
    reach = CubicSpline(np.radians(OUTLINE[:, 0]), OUTLINE[:, 1], bc_type="periodic")(turn)
    free = PchipInterpolator(np.radians(FREE[:, 0]), FREE[:, 1])(turn)
    lobe = np.exp(-(((turn - np.radians(272)) / 0.55) ** 2))
    back, front, low = RINGS[:, None, 0:2], RINGS[:, None, 2:4], RINGS[:, None, 4:6]
    weight = free[:, None]
    place = weight * back + (1 - weight) * front
    place = place * (1 - lobe[:, None]) + (weight**0.5 * low + (1 - weight**0.5) * front) * lobe[:, None]
    share, height = place[..., 0], place[..., 1]
    # Above, the rim leans towards the head.
    height = height * (1 - 0.55 * np.exp(-(((turn - np.radians(106)) / 0.60) ** 2)))
    # The tragus stands up in front of the canal, the antitragus below it.
    near = np.exp(-(((share - 0.62) / 0.16) ** 2))
    height = height + 4.6 * np.exp(-(((turn - np.radians(184)) / 0.40) ** 2)) * near * (share < 0.95)
    rows = np.arange(len(RINGS))[:, None]
    inner = np.exp(-(((rows - 10.6) / 1.2) ** 2))
    height = height + 2.2 * np.exp(-(((turn - np.radians(262)) / 0.28) ** 2)) * inner
    # The crus of the helix runs from the rim's front end into the concha.
    height = height + 2.6 * np.exp(-(((turn - np.radians(150)) / 0.26) ** 2)) * np.exp(
        -(((rows - 10) / 2.2) ** 2)
    )
    return share * reach, height


def ear_loop(skin: SkinField) -> Array:
    """Capsule places (SEGMENTS, 2) of the loop where the left ear leaves the skin, counter-clockwise."""
    distance, _ = _shares()
    azimuth, arc, _ = to_capsule(_place(skin, distance[0], _turns(), np.zeros(SEGMENTS)))
    return np.stack([azimuth, arc], -1)


def ear(skin: SkinField) -> tuple[Array, Array]:
    """Rings (R - 1, SEGMENTS, 3) after the loop on the skin, and the end of the canal (3,)."""
    distance, height = _shares()
    rings = [_place(skin, d, _turns(), h) for d, h in zip(distance[1:], height[1:], strict=True)]
    return np.stack(rings), _place(skin, np.zeros(1), np.zeros(1), np.full(1, CANAL_HEIGHT))[0]


def _place(skin: SkinField, distance: Array, turn: Array, height: Array) -> Array:
    """Points at a distance and direction from the canal in the ear's plane, raised above the head's side."""
    backwards, up = distance * np.cos(turn), distance * np.sin(turn)
    y = CENTER_Y + up * np.cos(TILT) - backwards * np.sin(TILT)
    z = CENTER_Z - backwards * np.cos(TILT) - up * np.sin(TILT)
    x = _side(skin, y, z)
    # The flap leaves the head at an angle: height is measured outwards and a little backwards.
    return np.stack([x + 0.97 * height, y, z - 0.12 * height], -1)


def _side(skin: SkinField, y: Array, z: Array) -> Array:
    """x of the head's left side at (y, z)."""
    x = np.full_like(y, 76.0)
    for _ in range(8):
        azimuth, arc, _ = to_capsule(np.stack([x, y, z], -1))
        x = 0.5 * x + 0.5 * skin.point(azimuth, arc)[..., 0]
    return x

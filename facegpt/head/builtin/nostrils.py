"""Nostrils: a loop in the skin under the nose and a short blind tube. Millimetres, left side."""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin.surface import SkinField

Array = np.ndarray

SEGMENTS = 12
CENTER = np.array([7.7, -45.9])
HALF_WIDTH, HALF_HEIGHT, TILT = 3.5, 1.30, np.radians(4.0)
INWARDS = np.array([0.06, 0.86, -0.50])
# Depth along INWARDS and size of the rings of the tube, and the depth of its end.
RINGS = ((0.9, 1.06), (3.6, 1.0), (7.0, 0.75))
END = 9.5


def nostril_loop(skin: SkinField) -> Array:
    """Capsule places (SEGMENTS, 2) of the left nostril's rim, counter-clockwise seen from the front."""
    turn = np.arange(SEGMENTS) * 2 * np.pi / SEGMENTS
    x, y = HALF_WIDTH * np.cos(turn), HALF_HEIGHT * np.sin(turn)
    cos, sin = np.cos(TILT), np.sin(TILT)
    return skin.at(CENTER + np.stack([cos * x - sin * y, sin * x + cos * y], 1))


def tube(rim: Array) -> tuple[Array, Array]:
    """Rings (R, SEGMENTS, 3) behind the rim (SEGMENTS, 3) and the end of the tube (3,)."""
    middle = rim.mean(0)
    rings = [middle + depth * INWARDS + size * (rim - middle) for depth, size in RINGS]
    return np.stack(rings), middle + END * INWARDS

"""The mouth's inside: cavity behind the lips and two rows of teeth. Millimetres."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

# Rings of the cavity behind the rim of the lips: depth, spread of the lips' inner sides in y, share of the
# oval,
# half width and half height of that oval.
CAVITY_RINGS = (
    (-1.6, -0.45, 0.0, 26.0, 10.0),
    (-4.2, 2.0, 0.12, 27.0, 12.0),
    (-6.0, 6.0, 0.6, 28.0, 14.0),
    (-9.0, 0.0, 1.0, 30.0, 17.0),
    (-26.0, 0.0, 1.0, 31.0, 19.0),
    (-44.0, 0.0, 1.0, 24.0, 14.0),
)
# Rows of teeth from the gum over the biting edge to the inner side: (y, shift towards the tongue)
UPPER_ROWS = (
    (-57.0, 1.2),
    (-61.5, 0.2),
    (-65.0, 0.0),
    (-69.0, 0.2),
    (-71.6, 1.0),
    (-71.6, 3.6),
    (-60.0, 8.0),
)
LOWER_ROWS = ((-70.6, 3.4), (-70.6, 1.0), (-73.5, 0.2), (-77.0, 0.0), (-80.5, 0.4), (-85.5, 1.6))
TEETH_COLUMNS = 29


def cavity(loop: Array) -> tuple[Array, Array]:
    """Rings (R, n, 3) and end point (3,) behind the lips' rim (n,3), which runs over the upper lip and back
    below."""
    count = len(loop)
    turn = np.arange(count) * 2 * np.pi / count  # 0 in the right corner, then over the upper lip
    side = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.6
    rings = []
    for depth, spread, share, width, height in CAVITY_RINGS:
        # Deeper rings follow a wide oval instead of the arch of the lips.
        lips = loop + np.stack([0 * side, side * spread, 0 * side + depth], 1)
        z = 104.0 + depth - 12.0 * np.cos(turn) ** 2 * (depth > -20)
        oval = np.stack([-width * np.cos(turn), -70.0 + height * np.sin(turn), z], 1)
        rings.append((1 - share) * lips + share * oval)
    return np.stack(rings), np.array([0.0, -70.0, 56.0])


def teeth(upper: bool) -> Array:
    """Rows (R, TEETH_COLUMNS, 3) of one dental arch, columns from the subject's right to the left."""
    rows, half_width, front = (UPPER_ROWS, 24.5, 102.8) if upper else (LOWER_ROWS, 22.5, 100.6)
    turn = np.radians(np.linspace(-78, 78, TEETH_COLUMNS))
    scallop = 0.35 * np.cos(np.arange(TEETH_COLUMNS) * np.pi)  # one tooth per two columns
    arch = []
    for y, inwards in rows:
        reach = 1 - inwards / 25.0
        crown = y < -66 if upper else y > -76
        x = half_width * reach * np.sin(turn)
        z = front - 25.0 + 25.0 * reach * np.cos(turn) - (scallop if crown else 0)
        arch.append(np.stack([x, np.full_like(x, y) + (0.25 * scallop if crown else 0), z], -1))
    return np.stack(arch)


def tooth_edges(points: Array) -> Array:
    """How near (0..1) points (N,3) of the teeth are to the line between two teeth."""
    half_width = np.where(points[:, 1] > -71.8, 24.5, 22.5)
    turn = np.degrees(np.arcsin(np.clip(points[:, 0] / half_width, -1, 1)))
    step = 2 * 156.0 / (TEETH_COLUMNS - 1)
    phase = np.abs(turn / step - np.round(turn / step))
    return np.clip(1 - phase / 0.14, 0, 1)

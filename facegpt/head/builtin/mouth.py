"""The mouth's inside: cavity behind the lips and two rows of teeth. Millimetres."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

# Rings of the cavity behind the rim of the lips: (z, spread in y, factor of x)
CAVITY_RINGS = (
    (-2.6, 0.3, 1.0), (-4.6, 2.2, 1.0), (-6.0, 7.0, 1.02), (-8.0, 13.0, 1.05), (-26.0, 16.0, 1.06), (-44.0, 12.0, 0.85),
)  # fmt: skip
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
    """Rings (R, n, 3) and end point (3,) behind the lips' rim (n,3), which runs over the upper lip and back below."""
    count = len(loop)
    side = np.sin(np.arange(count) * 2 * np.pi / count)  # + above, - below, 0 in the corners
    side = np.sign(side) * np.abs(side) ** 0.6
    rings = []
    for depth, spread, narrow in CAVITY_RINGS:
        ring = loop.copy()
        ring[:, 0] *= narrow
        ring[:, 1] += side * spread
        # The back rings straighten out: they no longer follow the arch of the lips.
        straight = min(1.0, -depth / 40.0)
        ring[:, 2] = (1 - straight) * loop[:, 2] + straight * 106.0 + depth
        rings.append(ring)
    return np.stack(rings), np.array([0.0, -70.0, 56.0])


def teeth(upper: bool) -> Array:
    """Rows (R, TEETH_COLUMNS, 3) of one dental arch, columns from the subject's right to the left."""
    rows, half_width, front = (UPPER_ROWS, 24.5, 103.5) if upper else (LOWER_ROWS, 22.5, 101.2)
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

"""The mouth's inside: cavity behind the lips, two rows of teeth, tongue. Millimetres."""

from __future__ import annotations

import numpy as np

Array = np.ndarray

# Rings of the cavity behind the rim of the lips: depth behind it, spread of the lips' inner sides in y, share
# of an oval, and that oval's half width, half height and z in the middle and at the sides. The oval passes in
# front of the gums before it goes back.
CAVITY_RINGS = (
    (-1.5, 0.06, 0.0, 25.0, 10.0, 110.0, 100.0),
    (-3.6, 1.2, 0.0, 25.0, 10.0, 108.0, 98.0),
    (-5.5, 4.0, 0.55, 26.5, 9.5, 107.4, 94.0),
    (-6.0, 6.0, 1.0, 29.0, 16.5, 106.2, 90.5),
    (-9.0, 0.0, 1.0, 30.5, 19.5, 100.0, 84.0),
    (-26.0, 0.0, 1.0, 30.0, 19.5, 80.0, 74.0),
    (-44.0, 0.0, 1.0, 22.0, 15.0, 62.0, 62.0),
)
# Rows of teeth from the gum over the biting edge to the inner side: (y, shift towards the tongue)
UPPER_ROWS = (
    (-57.0, 1.4),
    (-61.0, 0.3),
    (-64.5, 0.0),
    (-68.5, 0.1),
    (-71.2, 0.9),
    (-71.2, 3.0),
    (-61.0, 7.0),
)
LOWER_ROWS = (
    (-78.0, 6.0),
    (-71.9, 3.2),
    (-71.9, 1.2),
    (-74.5, 0.3),
    (-77.5, 0.0),
    (-80.5, 0.3),
    (-84.0, 1.4),
)
TEETH_COLUMNS = 29
UPPER_HALF_WIDTH, UPPER_FRONT, ARCH_DEPTH = 24.5, 102.8, 25.0
# The tongue: z, middle y, half width and half height of its rings from the tip backwards.
TONGUE_RINGS = (
    (91.6, -79.6, 3.6, 1.2),
    (90.0, -79.3, 7.4, 2.1),
    (86.5, -78.9, 11.4, 3.2),
    (81.0, -78.4, 14.4, 4.2),
    (74.0, -78.2, 15.6, 5.2),
    (65.0, -78.4, 14.0, 5.6),
)
TONGUE_TIP, TONGUE_ROOT, TONGUE_SEGMENTS = np.array([0, -79.8, 92.2]), np.array([0, -78.6, 63.0]), 14


def cavity(loop: Array) -> tuple[Array, Array]:
    """Rings (R, n, 3) and end point (3,) behind the lips' rim (n,3), which runs above and back below."""
    count = len(loop)
    turn = np.arange(count) * 2 * np.pi / count  # 0 in the right corner, then over the upper lip
    side = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.6
    rings = []
    for depth, spread, share, width, height, middle, aside in CAVITY_RINGS:
        lips = loop + np.stack([0 * side, side * spread, 0 * side + depth], 1)
        z = middle + (aside - middle) * np.cos(turn) ** 2
        oval = np.stack([-width * np.cos(turn), -70.0 + height * side, z], 1)
        rings.append((1 - share) * lips + share * oval)
    return np.stack(rings), np.array([0.0, -70.0, 56.0])


def teeth(upper: bool) -> Array:
    """Rows (R, TEETH_COLUMNS, 3) of one dental arch, columns from the subject's right to the left."""
    rows = UPPER_ROWS if upper else LOWER_ROWS
    half_width, front = (UPPER_HALF_WIDTH, UPPER_FRONT) if upper else (22.5, 100.8)
    turn = np.radians(np.linspace(-78, 78, TEETH_COLUMNS))
    scallop = 0.35 * np.cos(np.arange(TEETH_COLUMNS) * np.pi)  # one tooth per two columns
    arch = []
    for y, inwards in rows:
        reach = 1 - inwards / ARCH_DEPTH
        crown = y < -66 if upper else y > -76
        x = half_width * reach * np.sin(turn)
        z = front - ARCH_DEPTH + ARCH_DEPTH * reach * np.cos(turn) - (scallop if crown else 0)
        # the corners of the biting edges: canines a little longer, molars level
        level = 0.5 * np.exp(-(((np.abs(turn) - np.radians(30)) / 0.16) ** 2)) if y < -70 and upper else 0.0
        arch.append(np.stack([x, np.full_like(x, y) + (0.25 * scallop if crown else 0) - 0.5 * level, z], -1))
    return np.stack(arch)


def front_teeth(x: Array) -> Array:
    """Front z (N,) of the upper dental arch at x (N,), without its scallops."""
    return UPPER_FRONT - ARCH_DEPTH + ARCH_DEPTH * np.sqrt(np.maximum(1 - (x / UPPER_HALF_WIDTH) ** 2, 0))


def tongue() -> tuple[Array, Array, Array]:
    """Rings (R, TONGUE_SEGMENTS, 3) from the tip backwards, the tip (3,) and the root (3,)."""
    turn = np.arange(TONGUE_SEGMENTS) * 2 * np.pi / TONGUE_SEGMENTS
    rings = []
    for z, y, wide, high in TONGUE_RINGS:
        across, up = np.cos(turn), np.sin(turn)
        groove = -0.8 * np.exp(-((across / 0.28) ** 2)) * (np.sin(turn) > 0.5)
        rings.append(np.stack([wide * across, y + high * up + groove, np.full_like(turn, z)], -1))
    return np.stack(rings), TONGUE_TIP, TONGUE_ROOT


def tooth_edges(points: Array) -> Array:
    """How near (0..1) points (N,3) of the teeth are to the line between two teeth."""
    half_width = np.where(points[:, 1] > -71.55, UPPER_HALF_WIDTH, 22.5)
    turn = np.degrees(np.arcsin(np.clip(points[:, 0] / half_width, -1, 1)))
    step = 2 * 156.0 / (TEETH_COLUMNS - 1)
    phase = np.abs(turn / step - np.round(turn / step))
    return np.clip(1 - phase / 0.14, 0, 1)

"""Displacement fields: sums of Gaussian bumps, mirrored when they lie on the left side. Millimetres."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from facegpt.head.builtin.assemble import MIRROR_X

Array = np.ndarray
# Centre, standard deviation per axis (or one for all), displacement at the centre.
Bump: TypeAlias = tuple[
    tuple[float, float, float], float | tuple[float, float, float], tuple[float, float, float]
]


def bump(points: Array, center: Array, width: Array) -> Array:
    """Gaussian (N,) of points (N,3)."""
    return np.exp(-0.5 * (((points - center) / width) ** 2).sum(1))


def bumps(points: Array, terms: Iterable[Bump], mirrored: bool = True) -> Array:
    """Displacement (N,3); with `mirrored`, a bump off the midline acts on both sides alike."""
    total = np.zeros_like(points)
    for center, width, direction in terms:
        here = bump(points, np.array(center), np.broadcast_to(np.asarray(width, float), 3))[:, None]
        total += here * np.array(direction)
        if mirrored and abs(center[0]) > 1e-6:
            there = bump(points * MIRROR_X, np.array(center), np.broadcast_to(np.asarray(width, float), 3))[
                :, None
            ]
            total += there * np.array(direction) * MIRROR_X
    return total

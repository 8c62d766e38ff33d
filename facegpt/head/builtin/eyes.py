"""Eyeballs and the inner side of the lids. Millimetres, left side; the right is a mirror image."""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin import anatomy

Array = np.ndarray

IRIS_ANGLE = np.arcsin(5.9 / anatomy.EYE_RADIUS)
PUPIL_ANGLE = np.arcsin(2.1 / anatomy.EYE_RADIUS)
POLAR_DEGREES = np.array([8.0, 15.0, 20.0, 23.2, 27.0, 34.0, 43.0, 54.0, 68.0, 88.0, 115.0, 147.0])
SEGMENTS = 20
# Inner lid rings: (radius in mm about the eye's centre, share of the way outwards along the sphere)
INNER_RINGS = ((15.8, 0.0), (15.6, 0.10), (15.5, 0.34))


def eyeball() -> tuple[Array, Array, Array]:
    """Rings (R, SEGMENTS, 3) around +z, front pole (3,) and back pole (3,) of the left eyeball."""
    polar, turn = np.radians(POLAR_DEGREES)[:, None], np.arange(SEGMENTS) * 2 * np.pi / SEGMENTS
    rings = np.stack(
        [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar) + 0 * turn], -1
    )
    pole = np.array([0, 0, anatomy.EYE_RADIUS])
    return (
        anatomy.EYE_CENTER + anatomy.EYE_RADIUS * rings,
        anatomy.EYE_CENTER + pole,
        anatomy.EYE_CENTER - pole,
    )


def polar_angle(points: Array) -> Array:
    """Angle (N,) in radians between +z and the direction from the nearer eye's centre to points (N,3)."""
    center = anatomy.EYE_CENTER * np.where(points[:, :1] < 0, [[-1, 1, 1]], [[1, 1, 1]])
    away = points - center
    return np.arccos(np.clip(away[:, 2] / np.maximum(np.linalg.norm(away, axis=1), 1e-9), -1, 1))


def seat_rim(rim: Array) -> Array:
    """The lids' rim (n,3) at a thin margin above the eyeball, in its directions from the eye's centre."""
    away = rim - anatomy.EYE_CENTER
    radius = np.linalg.norm(away, axis=1, keepdims=True)
    return anatomy.EYE_CENTER + away / radius * np.clip(
        radius, anatomy.LID_RADIUS + 0.5, anatomy.LID_RADIUS + 1.7
    )


def inner_lids(rim: Array) -> Array:
    """Rings (3, n, 3) from the rim (n,3) inwards, then under the lid along the eyeball."""
    direction = rim - anatomy.EYE_CENTER
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    middle = direction.mean(0) / np.linalg.norm(direction.mean(0))
    rings = []
    for radius, share in INNER_RINGS:
        outwards = direction + share * (direction - middle)
        rings.append(anatomy.EYE_CENTER + radius * outwards / np.linalg.norm(outwards, axis=1, keepdims=True))
    return np.stack(rings)

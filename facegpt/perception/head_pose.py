"""How a head stands in a photograph, from landmarks alone: scaled orthographic pose and its angles."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from facegpt.errors import LandmarkError
from facegpt.head.builtin.anatomy import landmark_table

INNER = slice(17, 68)  # of the 68 landmarks, those that are points of the head and not of its outline


def place_mean_head(points: np.ndarray, rows: np.ndarray, name: str) -> np.ndarray:
    """The mean head's 68 landmarks (68,2) in the scaled orthographic pose that fits some points best.

    points (N,2), N >= 5, pixels with y down; rows (N,68): each point as a weighted mean of landmarks. The
    pose is POS (DeMenthon and Davis 1995). Raises LandmarkError, naming `name`, for points on a line.
    """
    mean = landmark_table() * (1, -1, 1)  # y down as in images
    given = rows @ mean
    pose = _fit_pose(points, given, name)
    placed: np.ndarray = (mean - given.mean(axis=0)) @ pose.T + points.mean(axis=0)
    return placed


def head_angles(landmarks: Tensor, name: str = "the landmarks") -> tuple[float, float, float]:
    """Pitch, yaw and roll in degrees of a head by its 68 landmarks (68,2), in pixels with y down.

    The rotation is that of the mean head's inner 51 points in their best pose, taken apart as
    R = Ry(yaw) Rx(pitch) Rz(roll) in the head's frame (x to its left, y up, z out of the face): positive is
    down, to its own left, and toward its right shoulder. Expressions and the individual shape shift them by
    some degrees. Raises LandmarkError for points on a line.
    """
    points = landmarks[INNER].double().cpu().numpy()
    pose = _fit_pose(points, (landmark_table() * (1, -1, 1))[INNER], name)
    right, down = pose / np.linalg.norm(pose, axis=1, keepdims=True) * (1, -1, 1)  # axes of the image
    forward = np.cross(right, -down)
    pitch = math.atan2(down[2], math.hypot(right[2], forward[2]))
    angles = (pitch, math.atan2(right[2], forward[2]), math.atan2(-down[0], -down[1]))
    return math.degrees(angles[0]), math.degrees(angles[1]), math.degrees(angles[2])


def _fit_pose(points: np.ndarray, given: np.ndarray, name: str) -> np.ndarray:
    """Scaled orthonormal rows (2,3) that take centered `given` (N,3) to centered `points` (N,2) best."""
    centered = given - given.mean(axis=0)
    affine = np.linalg.lstsq(centered, points - points.mean(axis=0), rcond=None)[0].T  # (2, 3)
    u, singular, v = np.linalg.svd(affine, full_matrices=False)
    if not singular[1] > 1e-3 * singular[0]:
        raise LandmarkError(f"{name}: the landmarks lie on a line or in one point; detect them again")
    pose: np.ndarray = singular.mean() * (u @ v)
    return pose

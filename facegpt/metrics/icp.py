"""Rigid alignment of two surfaces by point-to-plane ICP.

Chen and Medioni 1992, linearised as in Low 2004. Point-to-point ICP slides slowly along a head's smooth
surface; this converges in a few steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation


@dataclass
class Alignment:
    """A similarity x -> scale * rotation @ x + translation, and how well it fits.

    rotation (3,3), translation (3,). residual: root mean square point-to-plane distance, in the unit of the
    points. iterations: steps taken.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray
    residual: float
    iterations: int

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Transform points (N,3)."""
        return self.scale * points @ self.rotation.T + self.translation


def icp(
    source: np.ndarray,
    target: np.ndarray,
    target_normals: np.ndarray,
    free_scale: bool = False,
    iterations: int = 50,
    tolerance: float = 1e-7,
) -> Alignment:
    """Align source points (N,3) with a target surface, given by points (M,3) and their unit normals (M,3).

    Starts with both centroids on each other, then pairs every source point with its nearest target point and
    minimises the squared distances to the tangent planes there, until a step moves no point by more than
    `tolerance` (in the points' unit) or the iterations are used up. `free_scale` frees a seventh parameter;
    leave it off for heads in metres. All points count: crop both surfaces to the same region first. Needs a
    start within some 20 degrees.
    """
    tree = cKDTree(target)
    factor, rotation = 1.0, np.eye(3)
    translation = target.mean(axis=0) - source.mean(axis=0)
    steps = 0
    while steps < iterations:
        steps += 1
        moved = factor * source @ rotation.T + translation
        index = tree.query(moved)[1]
        step = plane_step(moved, target[index], target_normals[index], free_scale)
        factor, rotation = step.scale * factor, step.rotation @ rotation
        translation = step.apply(translation[None])[0]
        shift = np.abs(factor * source @ rotation.T + translation - moved).max()
        if shift < tolerance:
            break
    moved = factor * source @ rotation.T + translation
    index = tree.query(moved)[1]
    residual = np.sqrt(np.mean(np.sum((target[index] - moved) * target_normals[index], axis=1) ** 2))
    return Alignment(factor, rotation, translation, float(residual), steps)


def plane_step(moved: np.ndarray, target: np.ndarray, normals: np.ndarray, free_scale: bool) -> Alignment:
    """The small motion of points moved (N,3) that brings them nearest to planes, linearised (Low 2004).

    target, normals (N,3): a point and the unit normal of each point's plane. residual: before the step.
    """
    center = moved.mean(axis=0)
    arms = moved - center  # rotate about the centroid: better conditioned than about the origin
    rows = [np.cross(arms, normals), normals]
    if free_scale:
        rows.append(np.sum(arms * normals, axis=1, keepdims=True))
    distances = np.sum((target - moved) * normals, axis=1)
    update = np.linalg.lstsq(np.concatenate(rows, axis=1), distances, rcond=None)[0]
    turn, growth = Rotation.from_rotvec(update[:3]).as_matrix(), 1 + (update[6] if free_scale else 0.0)
    translation = center + update[3:6] - growth * turn @ center
    return Alignment(growth, turn, translation, float(np.sqrt(np.mean(distances**2))), 1)

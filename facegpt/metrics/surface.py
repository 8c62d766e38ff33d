"""Distances between surfaces, given as point sets in metres.

Say with every number which region was compared and how it was aligned first (`facegpt.metrics.icp`): the
choice moves the numbers more than many a method does.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

MILLIMETERS = 1000.0


def chamfer(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Chamfer distance in mm: mean nearest distance prediction -> truth plus mean truth -> prediction.

    prediction (N,3), truth (M,3): metres. Distances are not squared. The source writes a sum over points
    without a unit; its figures can only be means, so this is the sum of the two directional means.
    Raises ValueError for an empty or non-finite point set.
    """
    return MILLIMETERS * float(np.mean(_nearest(prediction, truth)) + np.mean(_nearest(truth, prediction)))


def complete_rate(prediction: np.ndarray, truth: np.ndarray, threshold: float = 10.0) -> float:
    """Percentage of true points that have a predicted point closer than `threshold` mm.

    prediction (N,3), truth (M,3): metres. From truth to prediction, so that a prediction that covers only a
    part of the face cannot be complete. Raises ValueError for an empty or non-finite point set.
    """
    return 100 * float(np.mean(MILLIMETERS * _nearest(truth, prediction) < threshold))


def _nearest(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distance (N,) from every source point to its nearest target point."""
    for points in (source, target):
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0 or not np.isfinite(points).all():
            raise ValueError(f"finite points (N, 3) with N > 0 are needed, got an array {points.shape}")
    return cKDTree(target).query(source)[0]

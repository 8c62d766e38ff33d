"""Scan-to-mesh distances of the NoW benchmark, and their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from facegpt.evaluation.now_folder import NowPrediction, NowScan
from facegpt.metrics.agreement import bootstrap
from facegpt.metrics.scan_to_mesh import Surface, align_landmarks, refine, scan_distances

CURVE = np.arange(0, 7.01, 0.1)  # mm
BIN, BINS = 0.01, 3000  # mm; of the histograms whose medians are resampled


def now_distances(scan: NowScan, prediction: NowPrediction, millimeters: float | None = None) -> np.ndarray:
    """Distances (N,) in mm of a scan's points to the predicted mesh, aligned to it as the benchmark does.

    First the seven landmarks are brought together, then the squared distances of the scan's points are made
    small by rotation, shift and scale. millimeters: of the prediction's unit, for the metrical protocol, that
    leaves the scale alone; None frees it. Unlike the benchmark's, the alignment is never a reflection.
    """
    free_scale = millimeters is None
    factor = 1.0 if millimeters is None else millimeters
    surface = Surface(factor * prediction.vertices, prediction.triangles)
    rough = align_landmarks(factor * prediction.landmarks, scan.landmarks, free_scale)
    return scan_distances(surface, scan.points, refine(surface, scan.points, rough, free_scale))


def statistics(distances: Sequence[np.ndarray], subjects: Sequence[str], seed: int) -> dict[str, Any]:
    """Median, mean and standard deviation over all distances of all images together, as the benchmark has it.

    Intervals: 95 %, 1,000 resamplings of the subjects, medians to 0.01 mm. curve: share of the distances up
    to each of `CURVE`.
    """
    every = np.sort(np.concatenate(distances))
    names = sorted(set(subjects))
    counts = torch.zeros(len(names), BINS, dtype=torch.float64)
    sums = torch.zeros(len(names), 2, dtype=torch.float64)  # of the distances, and how many
    for values, subject in zip(distances, subjects, strict=True):
        place = names.index(subject)
        rows = np.minimum((values / BIN).astype(np.int64), BINS - 1)
        counts[place] += torch.from_numpy(np.bincount(rows, minlength=BINS))
        sums[place] += torch.tensor([values.sum(), len(values)])

    def of_subjects(rows: torch.Tensor) -> torch.Tensor:
        total = counts[rows].sum(dim=0).cumsum(dim=0)
        middle = torch.searchsorted(total, total[-1:] / 2)[0]
        shares = sums[rows].sum(dim=0)
        return torch.stack([(middle + 0.5) * BIN, shares[0] / shares[1]])

    shares = np.searchsorted(every, CURVE, "right") / len(every)
    median, mean = bootstrap(of_subjects, len(names), seed)
    return {
        "images": len(distances),
        "subjects": len(names),
        "median": float(np.median(every)),
        "median_95": [median.low, median.high],
        "mean": float(every.mean()),
        "mean_95": [mean.low, mean.high],
        "std": float(every.std()),
        "curve": {
            "mm": CURVE.round(3).tolist(),
            "share": shares.tolist(),
        },
    }

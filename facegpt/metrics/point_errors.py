"""Errors of landmarks on photographs of any size, in the unit of the outer-eye distance."""

from __future__ import annotations

import torch
from torch import Tensor

OUTER_EYES = (36, 45)
REGIONS = {"all": slice(0, 68), "inner": slice(17, 68), "contour": slice(0, 17)}


def point_error(predicted: Tensor, truth: Tensor, valid: Tensor | None = None) -> dict[str, Tensor]:
    """Mean distance of the landmarks over the true outer-eye distance (300-W's), region -> (B,).

    predicted, truth (B,68,2) in one unit, iBUG order. valid (B,68) bool: the points that count, None for all.
    NaN for a region without any. Regions: all 68, the inner 51, the contour of 17.
    """
    unit = (truth[:, OUTER_EYES[0]] - truth[:, OUTER_EYES[1]]).norm(dim=1)
    distance = (predicted - truth).norm(dim=2) / unit[:, None]
    if valid is not None:
        distance = torch.where(valid, distance, torch.nan)
    return {name: distance[:, points].nanmean(dim=1) for name, points in REGIONS.items()}

"""Landmark reprojection loss."""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.sample import REFERENCE_SIZE

_EMPHASIZED = (28, 29, 30, 60, 61, 62, 63, 64, 65, 66, 67)  # nose ridge to tip, and the inner lips


def landmark_weights(device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Weight of each of the 68 landmarks, (68,): 20 on nose ridge and inner lips, 1 elsewhere (FOCUS)."""
    weights = torch.ones(68, device=device, dtype=dtype)
    weights[list(_EMPHASIZED)] = 20.0
    return weights


def landmark_loss(predicted: Tensor, target: Tensor, size: int, valid: Tensor | None = None) -> Tensor:
    """Mean over the 68 x 2 coordinates of (weight * difference)^2, in pixels of a 224 crop.

    predicted, target (F,68,2): pixels of an image of side `size`. valid (F,68) bool: the landmarks that
    count, None for all; the mean is over those, 0 without any. Returns (F,).
    As in FOCUS's code the weight lies inside the square: 20 acts as 400. FOCUS averages over the batch too;
    here each face keeps its own value.
    """
    weights = landmark_weights(predicted.device, predicted.dtype)[:, None]
    difference = (predicted - target) * (REFERENCE_SIZE / size)
    squares = (weights * difference).square()
    if valid is None:
        return squares.mean(dim=(1, 2))
    return (squares * valid[..., None]).sum(dim=(1, 2)) / (2 * valid.sum(dim=1)).clamp(min=1)

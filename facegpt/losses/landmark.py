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


def landmark_loss(
    predicted: Tensor, target: Tensor, size: int, valid: Tensor | None = None, delta: float = 0.0
) -> Tensor:
    """Mean over the 68 x 2 coordinates of (weight * difference)^2, in pixels of a 224 crop.

    predicted, target (F,68,2): pixels of an image of side `size`. valid (F,68) bool: the landmarks that
    count, None for all; the mean is over those, 0 without any. Returns (F,).
    As in FOCUS's code the weight lies inside the square: 20 acts as 400. FOCUS averages over the batch too;
    here each face keeps its own value.

    delta: pixels of a 224 crop; 0: the published square. Otherwise the squared distance d^2 of a point makes
    way for the pseudo-Huber 2 delta^2 (sqrt(1 + d^2 / delta^2) - 1): d^2 far below delta, 2 delta d far above
    (Charbonnier et al. 1997; Hartley & Zisserman, A6.8). It is taken of the distance as seen, before the
    weights. Then no point's gradient exceeds 2 delta weight^2, a landmark counts against another as FOCUS has
    it at every distance, and delta means the same for all 68. After the weights the bound would be lower,
    2 delta weight, but emphasized points would leave the square at delta / 20, a fraction of a pixel, and
    lose their emphasis.
    """
    weights = landmark_weights(predicted.device, predicted.dtype)
    squares = ((predicted - target) * (REFERENCE_SIZE / size)).square().sum(dim=-1)  # (F, 68)
    squares = weights.square() * pseudo_huber(squares, delta)
    if valid is None:
        return squares.mean(dim=1) / 2
    return (squares * valid).sum(dim=1) / (2 * valid.sum(dim=1)).clamp(min=1)


def pseudo_huber(squares: Tensor, delta: float) -> Tensor:
    """Squared distances, far beyond delta^2 growing like 2 delta times the distance; delta 0: as they are."""
    if delta == 0:
        return squares
    return 2 * squares / (1 + (1 + squares / delta**2).sqrt())  # the textbook's, without its difference

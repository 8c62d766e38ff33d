"""Landmarks as a detector would find them: near the truth, with errors that neighbors share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from facegpt.standins.draw import normal

# Of the 68 landmarks: jaw, right and left brow, nose, right and left eye, mouth.
REGIONS = ((0, 17), (17, 22), (22, 27), (27, 36), (36, 42), (42, 48), (48, 68))
JAW = slice(*REGIONS[0])


def detector_noise(landmarks: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Landmarks (B,68,2) with errors of standard deviation `sigma` per coordinate, in the same pixels.

    Half of the variance is common to a region, as a detector that misjudges a brow moves all of it, half is
    each point's own. Where along the jaw a landmark lies is a matter of convention, which detectors meet less
    well than the outline itself: there the deviation along the contour is twice that across it. Returns a new
    tensor, (B,68,2); the same generator gives the same errors.
    """
    half = math.sqrt(0.5) * sigma
    count = len(landmarks)
    common = half * normal((count, len(REGIONS), 2), generator, landmarks)
    own = half * normal((count, 68, 2), generator, landmarks)
    # Along the jaw 3 sigma^2 more, again one half of it common: all of its points slide.
    slide = normal((count, 1), generator, landmarks) + normal((count, 17), generator, landmarks)
    sizes = torch.tensor([end - start for start, end in REGIONS], device=landmarks.device)
    noisy = landmarks + common.repeat_interleave(sizes, dim=1) + own
    jaw = landmarks[:, JAW]
    ahead = torch.cat([jaw[:, 1:], jaw[:, -1:]], dim=1) - torch.cat([jaw[:, :1], jaw[:, :-1]], dim=1)
    noisy[:, JAW] += math.sqrt(1.5) * sigma * slide[..., None] * F.normalize(ahead, dim=-1)
    return noisy

"""The best a fixed face can do: put at the right place, in the right size."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_and_scale(source: Tensor, target: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Least-squares scale (B,) and shift (B,2) that take points source (B,N,2) to target (B,N,2) in 2D.

    valid (B,N) bool: the points that count, None for all. Without rotation the closed form is a regression:
    scale = sum <s, t> / sum |s|^2 of centred points, shift = mean t - scale mean s. Source points of one
    place give scale 0.
    """
    weight = torch.ones_like(source[..., :1]) if valid is None else valid[..., None].to(source.dtype)
    amount = weight.sum(dim=1, keepdim=True)
    source_mean = (weight * source).sum(dim=1, keepdim=True) / amount
    target_mean = (weight * target).sum(dim=1, keepdim=True) / amount
    s, t = weight * (source - source_mean), target - target_mean
    spread = (s * (source - source_mean)).sum(dim=(1, 2)).clamp(min=torch.finfo(source.dtype).tiny)
    scale = (s * t).sum(dim=(1, 2)) / spread
    return scale, (target_mean - scale[:, None, None] * source_mean)[:, 0]

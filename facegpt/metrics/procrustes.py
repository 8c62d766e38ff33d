"""The rigid motion, or similarity, that brings matching points nearest to each other."""

from __future__ import annotations

import torch
from torch import Tensor


def procrustes(source: Tensor, target: Tensor, free_scale: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares scale (B,), rotation (B,3,3) and shift (B,3): target ~ scale rotation source + shift.

    source, target (B,N,3), matching points in one unit. Umeyama 1991, never a reflection; scale is 1 unless
    `free_scale`. Points that all lie in one place give scale 0.
    """
    source_mean, target_mean = source.mean(dim=1, keepdim=True), target.mean(dim=1, keepdim=True)
    s, t = source - source_mean, target - target_mean
    u, singular, vh = torch.linalg.svd(t.mT @ s)
    sign = torch.ones_like(singular)
    sign[:, 2] = torch.linalg.det(u @ vh).sign()
    rotation = u @ (sign[:, :, None] * vh)
    scale = torch.ones_like(singular[:, 0])
    if free_scale:
        spread = s.square().sum(dim=(1, 2)).clamp(min=torch.finfo(s.dtype).tiny)
        scale = (sign * singular).sum(dim=1) / spread
    moved = scale[:, None] * (rotation @ source_mean.mT)[..., 0]
    return scale, rotation, target_mean[:, 0] - moved


def aligned(source: Tensor, target: Tensor, by: Tensor, free_scale: bool = False) -> Tensor:
    """All points source (B,N,3), moved so that those of `by` (N,) bool are nearest to target (B,N,3)."""
    scale, rotation, shift = procrustes(source[:, by], target[:, by], free_scale)
    return scale[:, None, None] * source @ rotation.mT + shift[:, None]

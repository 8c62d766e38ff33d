"""Random numbers for images: drawn where the generator lives, used where and as the images are."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(
    shape: tuple[int, ...], low: float, high: float, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Uniform in [low, high)."""
    return (low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)).to(like)


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal."""
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def choose(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Which of `count` rows an effect of this probability meets: their indices, int64."""
    drawn = torch.rand(count, generator=generator, device=generator.device)
    return (drawn < probability).nonzero()[:, 0]

"""Do predicted numbers follow the true ones, and how much of their spread survives?

Shape legend: N faces, P components, R resamplings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLINGS = 1000
CONSTANT = 1e-12  # of a column's spread relative to its size, in float64: below it is rounding


def correlation(predicted: Tensor, truth: Tensor) -> Tensor:
    """Pearson's correlation of every column of predicted (N,P) and truth (N,P), as (P,) float64.

    0 where the prediction is constant, which follows nothing; NaN where the truth is.
    """
    covariance, p, t = _moments(predicted, truth)
    found = covariance / (p * t).sqrt()
    return torch.where((p == 0) & (t > 0), 0.0, found)


def slope(predicted: Tensor, truth: Tensor) -> Tensor:
    """Least-squares slope of predicted (N,P) over true (N,P) numbers per column, with an intercept; (P,).

    The share of a true deviation from the mean that survives in the prediction: 1 when all of it does, 0 for
    the mean face, also where the prediction is noise. NaN where the truth is constant.
    """
    covariance, _, t = _moments(predicted, truth)
    return covariance / torch.where(t > 0, t, torch.nan)


def varying(truth: Tensor, least: float) -> Tensor:
    """bool (P,): the columns of truth (N,P) whose standard deviation is above `least`."""
    return truth.double().std(dim=0, unbiased=False) > least


def _moments(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance and both variances per column, (P,) each; a variance that is rounding is 0."""
    columns = []
    for values in (predicted, truth):
        values = values.double()
        centered = values - values.mean(dim=0)
        size = values.abs().amax(dim=0)
        columns.append(torch.where(centered.abs().amax(dim=0) > CONSTANT * size, centered, 0.0))
    p, t = columns
    return (p * t).mean(dim=0), p.square().mean(dim=0), t.square().mean(dim=0)


@dataclass
class Estimate:
    """A number and its 95 % interval, from resampling the faces."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[[Tensor], Tensor], count: int, seed: int, resamplings: int = RESAMPLINGS
) -> list[Estimate]:
    """What `statistic` says of all faces, with the percentile interval (Efron 1979) over resampled faces.

    statistic: rows (N,) int64 -> numbers (S,). count: N. Resamplings that give NaN are left out; an interval
    without any is the value itself.
    """
    generator = torch.Generator().manual_seed(seed)
    value = statistic(torch.arange(count)).double()
    rows = torch.randint(count, (resamplings, count), generator=generator)
    draws = torch.stack([statistic(row).double() for row in rows])  # (R, S)
    ends = torch.nanquantile(draws, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)  # (2, S)
    low, high = torch.where(ends.isnan(), value, ends)
    return [Estimate(*numbers) for numbers in zip(value.tolist(), low.tolist(), high.tolist(), strict=True)]

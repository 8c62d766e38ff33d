"""Is one method better than another on the same faces?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from facegpt.metrics.agreement import Estimate, bootstrap


@dataclass
class PairedTest:
    """Numbers of a first method less those of a second one, over the same N faces.

    difference: of the means, with its 95 % interval from resampled faces. p: two-sided, by Wilcoxon's
    signed-rank test (1945), 1 when no face differs. smaller: share of the faces with the smaller number for
    the first method, ties counted half.
    """

    difference: Estimate
    p: float
    smaller: float
    count: int


def paired_test(first: Tensor, second: Tensor, seed: int) -> PairedTest:
    """Compare the numbers (N,) of two methods; ValueError for no faces, or a number that is not finite."""
    gap = (first - second).double()
    if not len(gap) or not bool(gap.isfinite().all()):
        raise ValueError("finite numbers of one or more faces are needed")
    smaller = ((gap < 0).double() + 0.5 * (gap == 0).double()).mean()
    p = float(stats.wilcoxon(gap.numpy()).pvalue) if bool((gap != 0).any()) else 1.0
    difference = bootstrap(lambda faces: gap[faces].mean()[None], len(gap), seed)[0]
    return PairedTest(difference, p, float(smaller), len(gap))


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): those below 0.05 together err in one case of 20."""
    order = np.argsort(values, kind="stable")
    steps = [(len(values) - place) * values[index] for place, index in enumerate(order)]
    adjusted = np.minimum(np.maximum.accumulate(steps), 1.0) if len(steps) else np.array([])
    found = torch.zeros(len(values), dtype=torch.float64)
    found[torch.as_tensor(order)] = torch.as_tensor(adjusted, dtype=torch.float64)
    numbers: list[float] = found.tolist()
    return numbers

"""A metric over N faces as a row of a table: mean, median, 95 % interval, n."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from facegpt.metrics.agreement import bootstrap


def summary(values: Sequence[float] | np.ndarray, seed: int) -> dict[str, Any]:
    """Mean, median, 95 % bootstrap interval of the mean over the values, and how many there are.

    NaN stands for what could not be measured and does not count; all are None where nothing could.
    """
    numbers = torch.as_tensor(np.asarray(values, dtype=np.float64))
    numbers = numbers[~numbers.isnan()]
    if not len(numbers):
        return {"mean": None, "median": None, "interval_95": None, "n": 0}
    found = bootstrap(lambda rows: numbers[rows].mean()[None], len(numbers), seed)[0]
    return {
        "mean": found.value,
        "median": float(np.median(numbers.numpy())),
        "interval_95": [found.low, found.high],
        "n": len(numbers),
    }

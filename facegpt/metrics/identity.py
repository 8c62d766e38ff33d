"""Is it the same face? Recognition rate and matching accuracy."""

from __future__ import annotations

import torch
from torch import Tensor


def recognition_rate(prediction: Tensor, truth: Tensor) -> Tensor:
    """Relative face recognition rate per face, (B,): 100 x cosine of the recogniser's features.

    prediction, truth (B,D): features of both faces rendered in the same pose and light, of any length.
    """
    return 100 * torch.nn.functional.cosine_similarity(prediction, truth, dim=1)


def matching_accuracy(distances: Tensor, correct: Tensor) -> float:
    """Percentage of queries whose own candidate is nearer than every other one.

    distances (Q,K): from each query to its K candidates. correct (Q,) int64: the true candidate's column.
    Ties count against the model, so a constant answer scores 0 and not 100 / K; so does NaN.
    Raises ValueError when there is nothing to confuse (fewer than two candidates, or no query).
    """
    if distances.ndim != 2 or distances.shape[1] < 2 or len(distances) == 0:
        raise ValueError(f"distances (Q, K) with Q > 0 and K > 1 are needed, got {tuple(distances.shape)}")
    rows = torch.arange(len(distances), device=distances.device)
    to_truth = distances[rows, correct]
    others = distances.clone()
    others[rows, correct] = torch.inf
    return 100 * float((to_truth < others.amin(dim=1)).double().mean())

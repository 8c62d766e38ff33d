"""Ridge regression with its penalties chosen by cross-validation: the linear yardstick of the evaluation.

Shape legend: N examples, D features (often far more than N), P targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# Relative to the mean squared length of a centred example, so that they suit features of any scale.
PENALTIES = tuple(10.0 ** (power / 2) for power in range(-12, 5))
FOLDS = 5
AT_ONCE = 4096  # features whose products are added in float64


@dataclass
class Ridge:
    """weights (D,P) and target_mean (P,) float64, feature_mean (D,) float32.

    penalties: group of targets -> the chosen one, see `PENALTIES`.
    """

    weights: Tensor
    feature_mean: Tensor
    target_mean: Tensor
    penalties: dict[str, float]

    def predict(self, features: Tensor) -> Tensor:
        """Targets (M,P) float64 of features (M,D)."""
        return (features.double() - self.feature_mean) @ self.weights + self.target_mean


def fit_ridge(
    features: Tensor,
    targets: Tensor,
    groups: Mapping[str, slice],
    seed: int = 0,
    penalties: tuple[float, ...] = PENALTIES,
) -> Ridge:
    """Regress targets (N,P) on features (N,D), both centred, with one penalty per group of targets.

    groups: name -> columns of the targets; together all of them, each once. In the dual form (Saunders et
    al. 1998) w = X^T (X X^T + penalty I)^-1 Y, so D may be large; one eigendecomposition serves all
    penalties. That of a group has the least squared error, relative to each column's variance, over `FOLDS`
    folds.
    Raises ValueError for fewer examples than folds.
    """
    count = len(features)
    if count < FOLDS:
        raise ValueError(f"{FOLDS}-fold cross-validation needs as many examples, got {count}")
    features, targets = features.float(), targets.double()
    feature_mean = features.mean(dim=0)
    centered = features - feature_mean
    gram = _products(centered)
    unit = float(gram.diagonal().mean()) or 1.0
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    errors = sum(
        _fold_errors(gram, targets, fold, [penalty * unit for penalty in penalties])
        for fold in order.chunk(FOLDS)
    )
    spread = (targets - targets.mean(dim=0)).square().sum(dim=0)
    relative = torch.where(spread > 0, errors / spread.clamp(min=1e-30), 0.0)  # (penalties, P)
    chosen = {name: penalties[int(relative[:, columns].sum(1).argmin())] for name, columns in groups.items()}

    target_mean = targets.mean(dim=0)
    values, vectors = torch.linalg.eigh(gram)
    rotated = vectors.T @ (targets - target_mean)
    dual = torch.zeros_like(targets)
    for name, columns in groups.items():
        shrunk = rotated[:, columns] / (values.clamp(min=0) + chosen[name] * unit)[:, None]
        dual[:, columns] = vectors @ shrunk
    weights = torch.cat([part.double().T @ dual for part in centered.split(AT_ONCE, dim=1)])
    return Ridge(weights, feature_mean, target_mean, chosen)


def _products(rows: Tensor) -> Tensor:
    """rows @ rows.T (N,N) in float64, a few thousand columns at a time."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(AT_ONCE, dim=1):
        part = part.double()
        total += part @ part.T
    return total


def _fold_errors(gram: Tensor, targets: Tensor, held_out: Tensor, penalties: list[float]) -> Tensor:
    """Squared errors (penalties, P) on the held-out examples of ridges fitted to the others."""
    keep = torch.ones(len(gram), dtype=torch.bool)
    keep[held_out] = False
    kept = torch.nonzero(keep)[:, 0]
    inner, cross = gram[kept][:, kept], gram[held_out][:, kept]
    # Centring by the mean of the kept examples, in terms of products alone.
    cross = cross - cross.mean(dim=1, keepdim=True) - inner.mean(dim=0) + inner.mean()
    inner = inner - inner.mean(dim=0) - inner.mean(dim=1, keepdim=True) + inner.mean()
    mean = targets[kept].mean(dim=0)
    values, vectors = torch.linalg.eigh(inner)
    left, right = cross @ vectors, vectors.T @ (targets[kept] - mean)
    rows = [
        (left @ (right / (values.clamp(min=0) + penalty)[:, None]) + mean - targets[held_out])
        .square()
        .sum(dim=0)
        for penalty in penalties
    ]
    return torch.stack(rows)

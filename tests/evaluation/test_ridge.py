"""Ridge in the dual form, against least squares of the augmented system."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facegpt.evaluation.ridge import PENALTIES, fit_ridge

GROUPS = {"first": slice(0, 2), "second": slice(2, 3)}


def data(count: int = 40, features: int = 70, noise: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(count, features, generator=generator)
    y = x[:, :3] @ torch.randn(3, 3, generator=generator) + noise * torch.randn(count, 3, generator=generator)
    return x, 5 + y


@pytest.mark.parametrize("shape", [(40, 70), (60, 8)])
@pytest.mark.parametrize("penalty", [1e-2, 1.0])
def test_the_weights_solve_the_augmented_least_squares(shape: tuple[int, int], penalty: float) -> None:
    x, y = data(*shape)
    ridge = fit_ridge(x, y, GROUPS, penalties=(penalty,))
    design = x.double().numpy() - x.double().numpy().mean(axis=0)
    unit = penalty * (design**2).sum(axis=1).mean()  # relative to the mean squared length of an example
    rows = np.concatenate([design, np.sqrt(unit) * np.eye(shape[1])])
    values = np.concatenate([y.double().numpy() - y.double().numpy().mean(axis=0), np.zeros((shape[1], 3))])
    expected = np.linalg.lstsq(rows, values, rcond=None)[0]
    assert np.allclose(ridge.weights.numpy(), expected, atol=1e-5)
    new = torch.randn(4, shape[1])
    prediction = (new.double().numpy() - x.double().numpy().mean(axis=0)) @ expected
    assert np.allclose(ridge.predict(new).numpy(), prediction + y.double().numpy().mean(axis=0), atol=1e-4)


def test_the_penalty_of_each_group_has_the_least_error_on_held_out_folds() -> None:
    x, y = data(40, 20, noise=0.1)
    y[:, 2] = torch.randn(40, generator=torch.Generator().manual_seed(3))  # nothing to be learnt
    ridge = fit_ridge(x, y, GROUPS)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    errors = np.zeros((len(PENALTIES), 3))
    for fold in order.chunk(5):
        kept = torch.tensor([i for i in range(40) if i not in fold.tolist()])
        for place, penalty in enumerate(PENALTIES):
            inner = fit_like(x[kept], y[kept], penalty, x)
            errors[place] += ((inner(x[fold]) - y[fold].double().numpy()) ** 2).sum(axis=0)
    relative = errors / y.double().var(dim=0).numpy()
    assert ridge.penalties["first"] == PENALTIES[int(relative[:, :2].sum(axis=1).argmin())]
    assert ridge.penalties["second"] == PENALTIES[int(relative[:, 2].argmin())]
    assert ridge.penalties["second"] > ridge.penalties["first"]


def fit_like(x: torch.Tensor, y: torch.Tensor, penalty: float, everything: torch.Tensor):  # type: ignore[no-untyped-def]
    """Primal ridge with the penalty relative to all examples, as numpy solves it."""
    a, b = x.double().numpy(), y.double().numpy()
    whole = everything.double().numpy()
    unit = penalty * ((whole - whole.mean(axis=0)) ** 2).sum(axis=1).mean()
    design = a - a.mean(axis=0)
    inverse = design.T @ design + unit * np.eye(a.shape[1])
    weights = np.linalg.solve(inverse, design.T @ (b - b.mean(axis=0)))
    return lambda new: (new.double().numpy() - a.mean(axis=0)) @ weights + b.mean(axis=0)


def test_constant_targets_and_features_do_no_harm() -> None:
    x, y = data()
    y[:, 1] = 4.0
    found = fit_ridge(x, y, GROUPS).predict(x)
    assert torch.isfinite(found).all() and found[:, 1].tolist() == pytest.approx([4.0] * 40, abs=1e-9)
    still = fit_ridge(torch.ones(40, 3), y, GROUPS).predict(torch.ones(2, 3))
    assert still.tolist()[0] == pytest.approx(y.double().mean(0).tolist(), abs=1e-6)


def test_too_few_examples_are_refused() -> None:
    x, y = data(4)
    with pytest.raises(ValueError, match="got 4"):
        fit_ridge(x, y, GROUPS)

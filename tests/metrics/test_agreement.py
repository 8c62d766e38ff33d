"""Correlation, slope and intervals of constructed numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facegpt.metrics.agreement import bootstrap, correlation, slope, varying


def numbers(count: int = 400) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_correlation_is_numpys() -> None:
    truth = numbers()
    predicted = 0.3 * truth + torch.tensor([0.1, 1.0, 10.0]) * numbers().flip(0)
    expected = [np.corrcoef(predicted[:, k], truth[:, k])[0, 1] for k in range(3)]
    assert correlation(predicted, truth).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_slope_is_the_share_of_the_deviation_that_survives() -> None:
    truth = numbers()
    noise = numbers().flip(1)
    noise = noise - noise.mean(0)
    centered = truth - truth.mean(0)
    noise = noise - centered * (noise * centered).sum(0) / centered.square().sum(
        0
    )  # says nothing of the truth
    shares = torch.tensor([0.0, 0.25, 1.5], dtype=torch.float64)
    assert slope(7 + shares * truth + noise, truth).tolist() == pytest.approx(shares.tolist(), abs=1e-12)
    assert slope(-2 * truth, truth).tolist() == pytest.approx([-2.0] * 3)


def test_a_constant_prediction_follows_nothing_and_a_constant_truth_says_nothing() -> None:
    truth = numbers().float()
    mean_face = torch.full_like(truth, 3.5449077)
    assert correlation(mean_face, truth).tolist() == [0.0, 0.0, 0.0]
    assert slope(mean_face, truth).tolist() == [0.0, 0.0, 0.0]
    assert correlation(truth, mean_face).isnan().all() and slope(truth, mean_face).isnan().all()


def test_components_vary_above_a_deviation() -> None:
    truth = torch.tensor([[0.0, 0.0, 5.0], [0.0, 0.2, 5.2]])  # population deviations 0, 0.1, 0.1
    assert varying(truth, 0.09).tolist() == [False, True, True]
    assert varying(truth, 0.11).tolist() == [False, False, False]


def test_the_interval_of_a_mean_is_its_normal_one() -> None:
    values = numbers(2000)[:, 0]
    found = bootstrap(lambda rows: values[rows].mean()[None], 2000, seed=1)[0]
    error = float(values.std()) / 2000**0.5
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.2 * error)


def test_resamplings_without_a_number_are_left_out() -> None:
    nothing, something = bootstrap(lambda rows: torch.tensor([float("nan"), 2.0]), 5, seed=0, resamplings=7)
    assert nothing.value != nothing.value and nothing.low != nothing.low
    assert (something.value, something.low, something.high) == (2.0, 2.0, 2.0)

"""Preferences with closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from facegpt.metrics.preferences import (
    Choice,
    binomial_share,
    position_shares,
    preferred_of_pairs,
    strengths,
)


def pairs(wins: int, losses: int) -> list[Choice]:
    return [Choice(("a", "b"), "a")] * wins + [Choice(("b", "a"), "b")] * losses


def test_a_share_has_the_exact_interval_and_test() -> None:
    found = binomial_share(10, 10)
    assert (found.share, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / 10))  # Clopper and Pearson at the edge
    assert found.p == pytest.approx(2 / 2**10)
    with pytest.raises(ValueError):
        binomial_share(0, 0)


def test_the_strengths_of_two_are_the_log_odds_and_their_interval_is_walds() -> None:
    found = strengths(pairs(300, 100))
    assert found.names == ["a", "b"]
    assert found.value[0] - found.value[1] == pytest.approx(np.log(3), abs=0.01)  # the prior pulls a little
    assert found.probability == pytest.approx([0.75, 0.25], abs=2e-3)
    error = np.sqrt(1 / 300 + 1 / 100) / 2  # of half the log odds
    assert found.high[0] - found.value[0] == pytest.approx(1.96 * error, rel=0.02)


def test_triples_follow_luce_and_a_method_that_always_wins_stays_finite() -> None:
    triple = ("a", "b", "c")
    choices = [
        Choice(triple, name) for name, times in zip(triple, (60, 30, 10), strict=True) for _ in range(times)
    ]
    assert strengths(choices).probability == pytest.approx([0.6, 0.3, 0.1], abs=0.01)
    assert preferred_of_pairs(choices)["a", "b"].share == pytest.approx(
        2 / 3
    )  # c's answers say nothing of it
    always = strengths(pairs(20, 0))
    assert np.isfinite(always.value).all() and always.probability[0] > 0.95


def test_a_place_that_is_chosen_too_often_is_seen() -> None:
    left = [Choice(("a", "b"), "a"), Choice(("b", "a"), "b")] * 10
    assert preferred_of_pairs(left)["a", "b"].share == 0.5
    first, second = position_shares(left)
    assert first.share == 1 and second.share == 0 and first.p < 1e-4

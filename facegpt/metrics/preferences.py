"""What people prefer: choices among two or more methods, their intervals, and one scale for all of them.

Shape legend: M methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import optimize, stats

PRIOR_DEVIATION = 3.0  # of a strength: keeps the scale of a method finite that nobody, or everybody, chose
Z = 1.959964  # 95 %


@dataclass(frozen=True)
class Choice:
    """One answer: the methods that were shown, in their order, and the one that was chosen."""

    shown: tuple[str, ...]
    chosen: str


@dataclass
class Share:
    """A share of `count` answers with its exact 95 % interval (Clopper and Pearson 1934), and the two-sided
    p-value of the binomial test against chance.
    """

    share: float
    low: float
    high: float
    count: int
    p: float


def binomial_share(found: int, count: int, chance: float = 0.5) -> Share:
    """The share `found` of `count`; raises ValueError when nothing was counted."""
    test = stats.binomtest(found, count, chance)
    interval = test.proportion_ci(0.95, method="exact")
    return Share(found / count, float(interval.low), float(interval.high), count, float(test.pvalue))


def preferred_of_pairs(choices: Sequence[Choice]) -> dict[tuple[str, str], Share]:
    """(first, second) -> how often the first was chosen where both were shown and one of them chosen."""
    found = {}
    for pair in combinations(sorted({name for choice in choices for name in choice.shown}), 2):
        decided = [c for c in choices if c.chosen in pair and set(pair) <= set(c.shown)]
        if decided:
            found[pair] = binomial_share(sum(c.chosen == pair[0] for c in decided), len(decided))
    return found


def position_shares(choices: Sequence[Choice]) -> list[Share]:
    """Place on the page -> how often what stood there was chosen, against chance; of the largest sets."""
    size = max(len(choice.shown) for choice in choices)
    places = [choice.shown.index(choice.chosen) for choice in choices if len(choice.shown) == size]
    return [binomial_share(places.count(place), len(places), 1 / size) for place in range(size)]


@dataclass
class Strengths:
    """Bradley and Terry's scale (1952; of more than two at once, Luce 1959), method by method (M,).

    value: log strength, mean 0, with the ends of its 95 % interval (Wald). probability: of being chosen among
    all methods.
    """

    names: list[str]
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    probability: np.ndarray


def strengths(choices: Sequence[Choice]) -> Strengths:
    """The strengths under which the choices are most likely: P(i of S) = exp(b_i) / sum over S of exp(b_j).

    With a weak normal prior of `PRIOR_DEVIATION`. Raises ValueError without choices.
    """
    names = sorted({name for choice in choices for name in choice.shown})
    if not names:
        raise ValueError("there are no choices")
    shown = np.array([[name in choice.shown for name in names] for choice in choices])
    chosen = np.array([names.index(choice.chosen) for choice in choices])

    def probabilities(b: np.ndarray) -> np.ndarray:
        weights = np.where(shown, np.exp(b - b.max()), 0.0)
        shares: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
        return shares

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        p = probabilities(b)
        wins = np.bincount(chosen, minlength=len(names))
        value = -np.log(p[np.arange(len(chosen)), chosen]).sum() + (b**2).sum() / (2 * PRIOR_DEVIATION**2)
        return value, p.sum(axis=0) - wins + b / PRIOR_DEVIATION**2

    b = optimize.minimize(loss, np.zeros(len(names)), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    p = probabilities(b)
    hessian = np.diag(p.sum(axis=0)) - p.T @ p + np.eye(len(names)) / PRIOR_DEVIATION**2
    center = np.eye(len(names)) - 1 / len(names)
    half = Z * np.sqrt(np.diag(center @ np.linalg.inv(hessian) @ center))
    b = b - b.mean()
    share = np.exp(b - b.max())
    return Strengths(names, b, b - half, b + half, share / share.sum())

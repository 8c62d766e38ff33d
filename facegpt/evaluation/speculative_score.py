"""Does a face show what a situation makes one feel? Scores of action units against sixteen feelings.

Every score is made for all pairs of a face and a situation: a face beside its own situation is the model,
beside all others it is the shuffled baseline, exactly and not by a draw.

Shape legend: A answers, R situations, U action units, F feelings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facegpt.evaluation.action_units import FEELINGS, UNITS, prototypes
from facegpt.evaluation.speculative_set import Situation
from facegpt.evaluation.summary import summary

MOVES = 0.1  # strength from which a unit moves at all
STILL = 0.3  # strength below which a unit that should not move counts as still
DEFINITIONS = {
    "nearest": (
        "share of the faces nearest to the right one of 16 prototypes: Euclidean distance of the action "
        "units' "
        "strengths (facegpt/evaluation/action_units.py)"
    ),
    "direction": (
        "the same by the cosine, so whatever the strength; 15 prototypes, for the face at rest has no "
        "direction, and situations that leave one calm do not count"
    ),
    "in_range": "share of the target action units whose strength lies in the situation's range",
    "moved": f"share of the target action units with a strength of {MOVES} or more",
    "still": f"share of the units that would say another feeling whose strength is below {STILL}",
    "of_faces": "over the answers with a face, first averaged over the wordings of a situation",
    "of_all": "over all answers; one without a face scores 0 everywhere",
    "shuffled": "each face scored with every other situation, mean over all of them",
    "chance": "a feeling drawn by lot",
    "interval_95": "1,000 resamplings of the situations (Efron 1979)",
}


def shown_feelings(strengths: np.ndarray) -> list[str | None]:
    """The feeling of the nearest prototype for each face (A,U); None for a row of NaN, where no face came."""
    names = list(FEELINGS)
    distances = np.linalg.norm(strengths[:, None] - prototypes(), axis=2)  # (A, F)
    return [None if np.isnan(row).any() else names[int(row.argmin())] for row in distances]


def pair_scores(strengths: np.ndarray, situations: Sequence[Situation]) -> dict[str, np.ndarray]:
    """Metric -> score (A,R) in [0,1] of every face (A,U) with every situation; NaN where there is none.

    There is none for a face of NaN, and where a situation has no target: calm ones have no unit that should
    move.
    """
    names = list(FEELINGS)
    right = np.array([names.index(situation.feeling) for situation in situations])
    table = prototypes()
    absent = np.isnan(strengths).any(axis=1, keepdims=True)  # (A, 1)
    nearest = np.linalg.norm(strengths[:, None] - table, axis=2).argmin(axis=1)
    moving = np.asarray(table.any(axis=1))  # feelings at rest have no direction
    lengths = np.linalg.norm(table, axis=1)
    cosine = np.where(moving, strengths @ table.T / np.where(moving, lengths, 1.0), -np.inf)
    pointed = (cosine.argmax(1)[:, None] == right) & (cosine > 0).any(axis=1, keepdims=True)
    low, high, still = _targets(situations)
    values = strengths[:, None]  # (A, 1, U)
    with np.errstate(invalid="ignore"):
        scores = {
            "nearest": (nearest[:, None] == right).astype(float),
            "direction": np.where(moving[right], pointed, np.nan),
            "in_range": _share((values >= low) & (values <= high), ~np.isnan(low)),
            "moved": _share(np.broadcast_to(values >= MOVES, (len(values), *low.shape)), ~np.isnan(low)),
            "still": _share(np.broadcast_to(values < STILL, (len(values), *low.shape)), still),
        }
    return {name: np.where(absent, np.nan, score) for name, score in scores.items()}


def _targets(situations: Sequence[Situation]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest strength (R,U), NaN where a unit is no target, and bool (R,U): should be still."""
    low = np.full((len(situations), len(UNITS)), np.nan)
    high, still = low.copy(), np.zeros(low.shape, dtype=bool)
    for row, situation in enumerate(situations):
        for unit, ends in situation.ranges().items():
            low[row, UNITS.index(unit)], high[row, UNITS.index(unit)] = ends
        still[row, [UNITS.index(unit) for unit in situation.still]] = True
    return low, high, still


def _share(hits: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Share of hits (A,R,U) among the counted (R,U) units, (A,R); NaN without any."""
    count = counted.sum(axis=1)
    return np.where(count > 0, (hits & counted).sum(axis=2) / np.maximum(count, 1), np.nan)


def own_and_shuffled(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (A,) with the own situation, rows (A,) of the columns, and the mean (A,) with all others.

    NaN among the others does not count. Raises ValueError for fewer than two situations.
    """
    if scores.shape[1] < 2:
        raise ValueError("situations can only be shuffled among two or more")
    answers = np.arange(len(scores))
    others = scores.copy()
    others[answers, rows] = np.nan
    count = (~np.isnan(others)).sum(axis=1)
    return scores[answers, rows], np.where(
        count > 0, np.nansum(others, axis=1) / np.maximum(count, 1), np.nan
    )


def by_situation(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Mean (R,) of values (A,) over the answers to each situation, without NaN; NaN where all are."""
    known = ~np.isnan(values)
    total = np.bincount(rows[known], weights=values[known], minlength=count)
    amount = np.bincount(rows[known], minlength=count)
    return np.where(amount > 0, total / np.maximum(amount, 1), np.nan)


def score_table(
    strengths: np.ndarray, rows: np.ndarray, situations: Sequence[Situation], seed: int
) -> dict[str, Any]:
    """Metric -> of_faces, of_all and shuffled, each a `summary` over the situations.

    strengths (A,U), NaN where an answer has no face; rows (A,): the situation of each answer.
    """
    table: dict[str, Any] = {}
    has_target = pair_scores(np.zeros((1, len(UNITS))), situations)  # NaN exactly where nothing is asked for
    count = len(situations)
    for name, scores in pair_scores(strengths, situations).items():
        own, shuffled = own_and_shuffled(scores, rows)
        every = np.where(np.isnan(own) & ~np.isnan(has_target[name][0, rows]), 0.0, own)
        table[name] = {
            key: summary(by_situation(values, rows, count), seed)
            for key, values in (("of_faces", own), ("of_all", every), ("shuffled", shuffled))
        }
    return table


def feeling_table(
    strengths: np.ndarray, rows: np.ndarray, situations: Sequence[Situation], named: Mapping[int, str]
) -> dict[str, Any]:
    """Feeling -> of its answers: faces, mean of every metric over them, and what they show and are named.

    named: answer -> the feeling that the language model names for its text; may be empty.
    """
    shown = shown_feelings(strengths)
    own = {
        name: own_and_shuffled(scores, rows)[0] for name, scores in pair_scores(strengths, situations).items()
    }
    table = {}
    for feeling in FEELINGS:
        answers = [a for a, row in enumerate(rows) if situations[row].feeling == feeling]
        if answers:
            table[feeling] = {
                "answers": len(answers),
                "faces": sum(shown[a] is not None for a in answers),
                **{name: _mean(values[answers]) for name, values in own.items()},
                "shows": _counts([shown[a] or "no face" for a in answers]),
                "is_named": _counts([named[a] for a in answers if a in named]),
            }
    return table


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(sorted(names))}

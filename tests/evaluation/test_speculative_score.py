"""Scores of the speculative benchmark, against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from facegpt.evaluation.action_units import FEELINGS, UNITS, prototypes
from facegpt.evaluation.speculative_score import (
    by_situation,
    feeling_table,
    own_and_shuffled,
    pair_scores,
    score_table,
    shown_feelings,
)
from facegpt.evaluation.speculative_set import Situation
from facegpt.evaluation.summary import summary


def situation(feeling: str, low: str = "C", high: str = "D", number: int = 0) -> Situation:
    row = FEELINGS[feeling]
    units = {unit: (low, high) for unit in row.primary}
    return Situation(f"{feeling}-{number}", feeling, "test", ("a", "b", "c"), "d", ("x",), units, row.still)


ONE_EACH = [situation(feeling) for feeling in FEELINGS]
ROWS = np.arange(len(ONE_EACH))


def test_prototypes_score_fully_with_their_own_situations() -> None:
    table = score_table(prototypes(), ROWS, ONE_EACH, seed=0)
    assert all(found["of_faces"]["mean"] == 1 for found in table.values())
    assert table["nearest"]["shuffled"]["mean"] == 0  # no prototype is any other feeling
    assert table["direction"]["of_faces"]["n"] == len(FEELINGS) - 1  # calm has no direction


def test_the_direction_does_not_depend_on_the_strength_but_the_nearest_does() -> None:
    faint = score_table(0.15 * prototypes(), ROWS, ONE_EACH, seed=0)
    assert faint["direction"]["of_faces"]["mean"] == 1
    assert faint["nearest"]["of_faces"]["mean"] < 0.5  # a trace of a feeling is a face at rest


def test_a_face_at_rest_is_calm_and_moves_nothing() -> None:
    rest = np.zeros((len(ONE_EACH), len(UNITS)))
    table = score_table(rest, ROWS, ONE_EACH, seed=0)
    assert shown_feelings(rest) == ["calm"] * len(ONE_EACH)
    assert table["nearest"]["of_faces"]["mean"] == pytest.approx(1 / len(FEELINGS))
    assert table["moved"]["of_faces"]["mean"] == table["in_range"]["of_faces"]["mean"] == 0
    assert table["direction"]["of_faces"]["mean"] == 0 and table["still"]["of_faces"]["mean"] == 1


def test_units_count_by_hand() -> None:
    row = situation("happiness", "B", "C")  # 6 and 12 from 0.2 to 0.6; still: 4, 9, 15
    face = np.zeros((1, len(UNITS)))
    for unit, strength in {"6": 0.7, "12": 0.3, "4": 0.5}.items():
        face[0, UNITS.index(unit)] = strength
    scores = pair_scores(face, [row])
    assert scores["in_range"][0, 0] == 0.5 and scores["moved"][0, 0] == 1
    assert scores["still"][0, 0] == pytest.approx(2 / 3)


def test_shuffled_is_the_mean_over_all_other_situations() -> None:
    generator = np.random.default_rng(0)
    faces = generator.uniform(0, 1, (2 * len(ONE_EACH), len(UNITS)))
    rows = np.repeat(ROWS, 2)
    for scores in pair_scores(faces, ONE_EACH).values():
        own, shuffled = own_and_shuffled(scores, rows)
        for answer, row in enumerate(rows):
            others = [scores[answer, other] for other in ROWS if other != row]
            assert shuffled[answer] == pytest.approx(np.nanmean(others))
            assert np.array_equal(own[answer], scores[answer, row], equal_nan=True)


def test_a_model_that_always_shows_one_feeling_has_its_chance_and_no_more() -> None:
    always = np.tile(prototypes()[list(FEELINGS).index("fear")], (len(ONE_EACH), 1))
    table = score_table(always, ROWS, ONE_EACH, seed=0)["nearest"]
    assert table["of_faces"]["mean"] == table["shuffled"]["mean"] == pytest.approx(1 / len(FEELINGS))


def test_a_missing_face_is_left_out_of_faces_and_wrong_among_all() -> None:
    faces = prototypes()
    faces[::2] = np.nan
    found = score_table(faces, ROWS, ONE_EACH, seed=0)["nearest"]
    half = len(ONE_EACH) // 2
    assert found["of_faces"] == {"mean": 1.0, "median": 1.0, "interval_95": [1.0, 1.0], "n": half}
    assert found["of_all"]["mean"] == 0.5 and found["of_all"]["n"] == 2 * half
    assert shown_feelings(faces)[0] is None


def test_nothing_depends_on_the_order_of_the_answers() -> None:
    generator = np.random.default_rng(1)
    faces, rows = generator.uniform(0, 1, (32, len(UNITS))), np.repeat(ROWS, 2)
    order = generator.permutation(32)
    table = score_table(faces, rows, ONE_EACH, seed=3)
    assert table == score_table(faces, rows, ONE_EACH, seed=3)
    other = score_table(faces[order], rows[order], ONE_EACH, seed=3)
    for name, found in table.items():
        for way, values in found.items():
            assert values["interval_95"] == pytest.approx(other[name][way]["interval_95"])


def test_a_feeling_says_what_its_faces_show_and_what_is_named() -> None:
    faces = prototypes()[[list(FEELINGS).index(name) for name in ("fear", "surprise")]]
    pair = [situation("fear"), situation("surprise")]
    faces[1] = np.nan
    table = feeling_table(faces, np.arange(2), pair, {0: "anger", 1: "surprise"})
    assert table["fear"]["shows"] == {"fear": 1} and table["fear"]["is_named"] == {"anger": 1}
    assert table["surprise"]["shows"] == {"no face": 1} and table["surprise"]["nearest"] is None
    assert list(table) == ["surprise", "fear"]


def test_summaries_by_hand() -> None:
    found = summary([1.0, 2.0, 6.0, np.nan], seed=0)
    assert (found["mean"], found["median"], found["n"]) == (3.0, 2.0, 3)
    assert 1.0 <= found["interval_95"][0] <= 3.0 <= found["interval_95"][1] <= 6.0
    assert found == summary([1.0, 2.0, 6.0], seed=0)
    assert summary([np.nan], seed=0) == {"mean": None, "median": None, "interval_95": None, "n": 0}
    values = by_situation(np.array([1.0, 0.0, np.nan]), np.array([0, 0, 1]), 2)
    assert values[0] == 0.5 and np.isnan(values[1])

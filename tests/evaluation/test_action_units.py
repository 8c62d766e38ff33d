"""Action units as components of a head, and sixteen feelings as action units."""

from __future__ import annotations

import numpy as np
import pytest

from facegpt.evaluation.action_units import (
    ACTION_UNITS,
    FEELINGS,
    INTENSITIES,
    UNITS,
    needed_components,
    prototypes,
    stem,
    unit_strengths,
)
from facegpt.head.builtin.expression import EXPRESSION_NAMES


def strength(unit: str, expression: dict[str, float], jaw: float = 0.0, pitch: float = 0.0) -> float:
    return float(unit_strengths(expression, jaw, pitch)[UNITS.index(unit)])


def test_every_unit_is_made_of_components_that_the_built_in_head_has() -> None:
    assert needed_components() <= {stem(name) for name in EXPRESSION_NAMES}


def test_both_sides_count_by_their_mean_and_a_one_sided_unit_by_their_difference() -> None:
    for smirk in ({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.0}, {"mouthSmile_R": 0.8}):
        assert strength("12", smirk) == pytest.approx(0.4) and strength("U12", smirk) == 0.8
    for smile in ({"mouthSmile_L": 0.6, "mouthSmile_R": 0.6}, {"mouthSmile": 0.6}):
        assert strength("12", smile) == pytest.approx(0.6) and strength("U12", smile) == 0


def test_a_jaw_opens_by_its_joint_or_its_component_and_not_by_moving_sideways() -> None:
    assert strength("26", {"jawLeft": 0.9, "jawRight": 0.3, "jawForward": 1.0}, jaw=0.2) == pytest.approx(0.5)
    assert strength("26", {"jawOpen": 0.5}) == 0.5


def test_jaw_and_nod_are_shares_of_their_full_angles() -> None:
    assert strength("26", {}, jaw=0.2) == pytest.approx(0.5)
    assert strength("54", {}, pitch=0.35) == pytest.approx(1.0) and strength("53", {}, pitch=-0.175) == 0.5
    assert strength("25", {"mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3}, jaw=0.2) == pytest.approx(0.5)


def test_a_face_at_rest_moves_no_unit() -> None:
    assert not unit_strengths({}, 0.0, 0.0).any()
    assert not unit_strengths({"tongueOut": 1.0, "cheekPuff": 1.0}, 0.0, 0.0).any()  # in no unit of ours


def test_intensities_follow_each_other() -> None:
    ends = list(INTENSITIES.values())
    assert all(low < high for low, high in ends)
    assert [high for _, high in ends[:-1]] == [low for low, _ in ends[1:]]


def test_feelings_are_told_apart_by_their_prototypes() -> None:
    table = prototypes()
    apart = np.linalg.norm(table[:, None] - table, axis=2) + 9 * np.eye(len(FEELINGS))
    assert len(FEELINGS) >= 14 and apart.min() > 0.3
    for strengths, feeling in zip(table, FEELINGS.values(), strict=True):
        moved = {*feeling.primary, *feeling.secondary}
        assert all(strengths[UNITS.index(unit)] > 0.3 for unit in moved)
        assert not moved & set(feeling.still) and moved | set(feeling.still) <= ACTION_UNITS.keys()
    words = [word for feeling in FEELINGS.values() for word in feeling.words]
    assert len(words) == len(set(words)) == 2 * len(FEELINGS)

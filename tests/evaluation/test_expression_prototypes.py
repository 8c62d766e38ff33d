"""Seven prototype expressions, and the score of what faces show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from small_head import small_head

from facegpt.errors import HeadMismatchError
from facegpt.evaluation.expression_prototypes import (
    COMPONENTS,
    FEELINGS,
    PROTOTYPES,
    compared_components,
    knows_feelings,
    nearest_feelings,
    prototypes,
    score_feelings,
)
from facegpt.head.model import HeadModel
from facegpt.standins.synthetic import ARCHETYPES


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.builtin()


@pytest.mark.parametrize("strength", [0.5, 0.8, 1.1])
@pytest.mark.parametrize("feeling", [feeling for feeling in FEELINGS if feeling != "neutral"])
def test_an_archetype_shows_its_feeling_at_any_visible_strength(
    head: HeadModel, feeling: str, strength: float
) -> None:
    for archetype in PROTOTYPES[feeling]:
        parts, (low, high) = ARCHETYPES[archetype]
        faces = head.mean_parameters(2)
        for index, name in enumerate(head.expression_names):
            stem = name.removesuffix("Left").removesuffix("Right")
            faces.expression[:, index] = strength * parts.get(stem, 0.0)
        faces.pose[:, 3] = strength * torch.tensor([low, high])
        assert nearest_feelings(compared_components(head, faces)) == [feeling] * 2


def test_a_face_at_rest_or_with_a_trace_of_a_smile_is_neutral(head: HeadModel) -> None:
    faces = head.mean_parameters(3)
    names = list(head.expression_names)
    faces.expression[1, [names.index("mouthSmileLeft"), names.index("mouthSmileRight")]] = 0.15
    faces.expression[2, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]] = 1.0  # moved by none
    assert nearest_feelings(compared_components(head, faces)) == ["neutral"] * 3


def test_the_two_sides_count_as_one_component_and_identity_not_at_all(head: HeadModel) -> None:
    names = list(head.expression_names)
    faces = head.mean_parameters(2).replace(shape=torch.randn(2, head.layout.shape))
    faces.expression[0, [names.index("browDownLeft"), names.index("browDownRight")]] = 0.4
    faces.expression[1, names.index("browDownLeft")] = 0.8
    found = compared_components(head, faces)
    assert torch.equal(found[0], found[1]) and found.shape == (2, len(COMPONENTS))
    assert found[0, COMPONENTS.index("browDown")] == pytest.approx(0.4)


def test_components_are_found_under_the_other_way_of_naming_sides() -> None:
    names = [f"{part}_{side}" for part in COMPONENTS[:-1] for side in ("L", "R")]
    assert knows_feelings(cast(HeadModel, SimpleNamespace(expression_names=names)))


def test_prototypes_are_apart_and_neutral_is_none() -> None:
    table = prototypes()
    assert table.shape == (7, len(COMPONENTS)) and not table[FEELINGS.index("neutral")].any()
    apart = torch.cdist(table, table) + 9 * torch.eye(7)
    assert apart.min() > 0.8 and nearest_feelings(table) == list(FEELINGS)


def test_a_head_without_these_names_is_refused_in_a_sentence() -> None:
    head = small_head()
    assert not knows_feelings(head)
    with pytest.raises(HeadMismatchError, match="no expression component mouthSmile"):
        compared_components(head, head.mean_parameters())


def test_scores_count_by_hand() -> None:
    shown = ["happiness", "fear", None, "anger"]
    right = [["happiness"], ["fear", "surprise"], ["sadness"], ["sadness"]]
    found = score_feelings(shown, right)
    assert (found.n, found.with_face, found.right) == (4, 3, 2)
    assert found.chance == pytest.approx(5 / 28)
    assert found.shuffled == 0.0  # none of the three faces fits another's feelings
    assert found.confusion["sadness"] == dict.fromkeys([*FEELINGS, "no face"], 0) | {"no face": 1, "anger": 1}
    assert found.confusion["surprise"]["fear"] == found.confusion["fear"]["fear"] == 1
    table = found.as_json()
    assert table["share_of_faces"] == pytest.approx(2 / 3) and table["share_of_all"] == 0.5


def test_a_model_that_always_shows_one_feeling_scores_as_when_shuffled() -> None:
    right = [[feeling] for feeling in FEELINGS for _ in range(3)]
    found = score_feelings(["happiness"] * 21, right)
    assert found.right / found.n == found.chance == pytest.approx(1 / 7)
    # 18 faces meet 3 happy ones among 20 others, 3 meet 2: (18 * 3 + 3 * 2) / (21 * 20) = 1 / 7.
    assert found.shuffled == pytest.approx(1 / 7)


def test_shuffling_is_the_mean_over_all_shifts() -> None:
    generator = torch.Generator().manual_seed(0)
    draw = [FEELINGS[i] for i in torch.randint(7, (24,), generator=generator)]
    right = [[FEELINGS[i]] for i in torch.randint(7, (12,), generator=generator)]
    shown = draw[:12]
    shifts = [sum(shown[i] in right[(i + shift) % 12] for i in range(12)) / 12 for shift in range(1, 12)]
    assert score_feelings(shown, right).shuffled == pytest.approx(sum(shifts) / 11)


def test_without_any_face_there_is_no_share() -> None:
    table = score_feelings([None, None], [["fear"], ["anger"]]).as_json()
    assert table["share_of_faces"] is None and table["shuffled"] is None and table["share_of_all"] == 0.0
    with pytest.raises(ValueError, match="at least one"):
        score_feelings([], [])

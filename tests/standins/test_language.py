"""The words of the tiny world must agree with the geometry they tell of."""

import random
from dataclasses import replace

import pytest
import torch
from small_head import small_head

from facegpt.head.parameters import FaceParameters
from facegpt.render.lighting import directional
from facegpt.standins.conversations import (
    instructions,
    plain_conversation,
    questions_about,
    reading_conversation,
    to_messages,
)
from facegpt.standins.language import (
    ASPECTS,
    TURN_QUESTIONS,
    describe_expression,
    describe_light,
    describe_pose,
    feeling,
    read_facts,
)
from facegpt.standins.situations import LOOKS, SITUATIONS, situations

HEAD = small_head()


def posed(**groups: list[float]) -> FaceParameters:
    parameters = HEAD.mean_parameters()
    return parameters.replace(**{name: torch.tensor([values]) for name, values in groups.items()})


@pytest.mark.parametrize(
    ("axis", "angle", "coordinate", "positive", "negative"),
    [(1, 0.35, 0, "turned 20 degrees to the left", "turned 20 degrees to the right"),
     (0, -0.35, 1, "looks 20 degrees up", "looks 20 degrees down")],
)  # fmt: skip
def test_pose_is_told_from_the_persons_side(
    axis: int, angle: float, coordinate: int, positive: str, negative: str
) -> None:
    """Where the nose tip goes, in the world frame, decides what must be said."""
    for sign, words in ((1, positive), (-1, negative)):
        rotation = [0.0] * 6
        rotation[axis] = sign * angle
        parameters = posed(pose=rotation)
        moved = HEAD(parameters).landmarks[0, 30] - HEAD().landmarks[0, 30]
        assert (moved[coordinate] > 0) == (sign > 0)
        assert words in describe_pose(read_facts(HEAD, parameters)[0])


def test_a_lean_to_the_left_lowers_the_left_ear() -> None:
    parameters = posed(pose=[0, 0, -0.35, 0, 0, 0])
    left_ear, right_ear = HEAD(parameters).landmarks[0, 16], HEAD(parameters).landmarks[0, 0]
    assert left_ear[1] < right_ear[1]
    assert "leans 20 degrees to the left" in describe_pose(read_facts(HEAD, parameters)[0])


def test_light_is_told_by_where_it_comes_from() -> None:
    def words(direction: list[float]) -> str:
        light = directional(torch.tensor([direction]), torch.full((1, 3), 0.6), torch.full((1, 3), 0.4))
        return describe_light(read_facts(HEAD, HEAD.mean_parameters().replace(lighting=light))[0])

    assert words([0.8, 0.0, 0.6]).endswith("from the left.")
    assert words([-0.8, 0.0, 0.6]).endswith("from the right.")
    assert words([0.0, 0.8, 0.6]).endswith("from above.")
    assert words([0.0, 0.0, 1.0]).endswith("from the front.")


def test_the_mean_face_is_relaxed_and_the_jaw_is_told() -> None:
    assert describe_expression(read_facts(HEAD, HEAD.mean_parameters())[0]) == "The face is relaxed."
    assert (
        "the jaw is wide open"
        in describe_expression(read_facts(HEAD, posed(pose=[0, 0, 0, 0.4, 0, 0]))[0]).lower()
    )


def test_questions_are_answered_and_never_hold_special_tokens() -> None:
    facts = read_facts(HEAD, HEAD.mean_parameters())[0]
    for count in (1, 4, 8):
        pairs = questions_about(facts, random.Random(count), count)
        assert len(pairs) == count
        assert all(question and answer and "<" not in question + answer for question, answer in pairs)
    messages = to_messages([("a", "b"), ("c", "d")], image=True)
    assert [m.text for m in messages] == ["<image>\na", "b", "c", "d"]
    assert set(ASPECTS) == {"shape", "expression", "colour", "light", "pose"}


def test_held_out_situations_are_never_said() -> None:
    held = {text for _, text in situations(held_out=True)}
    assert held and not held & {text for _, text in situations(held_out=False)}
    assert set(SITUATIONS) == set(LOOKS)
    rng = random.Random(0)
    said = " ".join(text for _ in range(3000) for pair in plain_conversation(rng) for text in pair)
    assert not any(f" {text}. " in said for text in held)


def test_instructions_are_seeded_llava_rows() -> None:
    rows = instructions(3, 20)
    assert rows == instructions(3, 20) != instructions(4, 20)
    assert len({row["id"] for row in rows}) == 20
    for row in rows:
        assert [turn["from"] for turn in row["conversations"][:2]] == ["human", "gpt"]
        assert "image" not in row


def test_questions_about_a_face_in_words_are_answered_by_the_words() -> None:
    """What is said of pose and expression comes from the text; nothing is asked that the text left out."""
    rng = random.Random(0)
    neutral = read_facts(HEAD, HEAD.mean_parameters())[0]
    faces = [replace(neutral, yaw=20.0, roll=-11.0), replace(neutral, pitch=9.0, jaw=20.0), neutral]
    asked = set()
    for facts in faces * 40:
        pairs = reading_conversation(facts, rng)
        text = pairs[0][0]
        assert not {"<image>", "<FACE>"} & set(text.split())
        for question, answer in pairs:
            turn = next((t for t in TURN_QUESTIONS if t in question), None)
            asked.add(turn)
            if turn is None:
                felt = answer == f"The person looks {feeling(facts)}."
                assert (describe_expression(facts) if felt else answer) in text
            elif answer != "It does not.":
                assert answer[1:-1] in text
            else:
                assert ("is turned", "it looks", "it leans")[TURN_QUESTIONS.index(turn)] not in text.lower()
    assert asked == {None, *TURN_QUESTIONS}

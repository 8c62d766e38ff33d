"""Descriptions and talk agree with the facts, vary, and never tell of events."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
import torch

from facegpt.data.grammar import FOLDER, read_grammar
from facegpt.data.templates import PRONOUNS, text_form
from facegpt.head.model import HeadModel
from facegpt.standins.descriptions import MOVEMENTS, WORDS, describe_freely, features, feeling, looks
from facegpt.standins.language import Facts, read_facts
from facegpt.standins.situations import SITUATIONS
from facegpt.standins.synthetic import ARCHETYPES, SHOWN_BY, sample_parameters
from facegpt.standins.talk import MOODS, PHOTO_TALK, PHOTO_TOPICS, TALK, TOPICS, _known, talk_about

HEAD = HeadModel.open("builtin")
NEUTRAL = read_facts(HEAD, HEAD.mean_parameters())[0]


def showing(**levels: float) -> Facts:
    """The mean face with some movements; a name without its side moves both."""
    names = {
        full: value for name, value in levels.items() for full in (name, f"{name}Left", f"{name}Right")
        if full in NEUTRAL.components
    }  # fmt: skip
    assert names
    return replace(NEUTRAL, components=NEUTRAL.components | names)


@pytest.fixture(scope="module")
def faces() -> list[Facts]:
    return read_facts(HEAD, sample_parameters(HEAD, 60, torch.Generator().manual_seed(1)))


def test_every_movement_of_the_head_can_be_said() -> None:
    known = {part for parts in MOVEMENTS.values() for part in parts} | {"eyeBlinkLeft", "eyeBlinkRight"}
    assert known == set(HEAD.expression_names)
    for name in [*MOVEMENTS, "closed", "half_closed", "open", "relaxed"]:
        key = name.partition(" ")[0]
        assert all(f"{key}_{kind}" in WORDS.rules for kind in ("is", "n", "do"))
        assert sum(WORDS.count(f"{key}_{kind}") for kind in ("is", "n", "do")) >= 5, key


def test_the_feeling_is_that_of_the_archetype() -> None:
    assert feeling(NEUTRAL) == "neutral" and feeling(showing(eyeBlink=1.0)) == "sleepy"
    for name, kinds in SHOWN_BY.items():
        for kind in kinds:
            assert feeling(showing(**ARCHETYPES[kind][0])) == name
    assert feeling(showing(mouthPucker=0.8)) is None
    assert looks(showing(mouthPucker=0.8), random.Random(0), 5) == []
    said = looks(showing(**ARCHETYPES["anger"][0]), random.Random(0), 50)
    assert len(said) == len(set(said)) >= 5 and {"angry", "furious"} <= set(said)


def test_sides_are_the_persons_own() -> None:
    said = " ".join(describe_freely(replace(NEUTRAL, yaw=25.0), random.Random(0), 200))
    assert "to the left" in said
    assert "to the right" not in re.sub(r"viewer's side, the head is turned [\w ]*to the right", "", said)
    said = " ".join(describe_freely(showing(mouthSmileLeft=0.9), random.Random(0), 100))
    assert "left side" in said and "right side" not in said


def test_texts_vary_in_form_and_words(faces: list[Facts]) -> None:
    rng = random.Random(0)
    texts = [text for facts in faces for text in describe_freely(facts, rng, 20)]
    forms = [text_form(text) for text in texts]
    assert all(forms.count(form) > 0.04 * len(forms) for form in ("sentences", "noun", "notes", "wish"))
    assert len(set(texts)) > 0.9 * len(texts)
    assert not any(set("{}[]|<>") & set(text) or "  " in text for text in texts)
    assert {"expression", "pose", "shape", "color", "light"} == {f.aspect for f in features(faces[0])}


def test_answers_agree_with_the_facts() -> None:
    def answers(facts: Facts, question: str) -> set[str]:
        pairs = talk_about(facts, random.Random(0), 4000)
        return {
            answer.split(",")[0].split(":")[0].rstrip(".") for asked, answer in pairs if asked == question
        }

    agreed, denied = {"Yes", "It is so"}, {"No", "Not really", "It does not look like it"}
    closed, gaping = showing(eyeBlink=1.0), replace(NEUTRAL, jaw=20.0)
    assert answers(closed, "Are her eyes open?") <= denied >= answers(NEUTRAL, "Are her eyes closed?")
    assert answers(closed, "Are her eyes shut?") <= agreed >= answers(NEUTRAL, "Are her eyes open?")
    assert answers(gaping, "Is his mouth shut?") <= denied >= answers(NEUTRAL, "Is his mouth open?")
    assert answers(gaping, "Is his mouth open?") <= agreed | {"Yes", "It is so"}
    assert answers(showing(mouthSmile=0.8), "Is she smiling?") <= agreed
    assert answers(NEUTRAL, "Does he have a beard?") <= denied
    for question in ("Are her eyes open?", "Is his mouth shut?", "Does he have a beard?"):
        assert answers(closed, question), question


def test_there_are_hundreds_of_questions_and_no_answer_is_a_face(faces: list[Facts]) -> None:
    assert sum(TALK.count(topic) for topic in set(TOPICS)) >= 300
    rng = random.Random(1)
    pairs = [pair for facts in faces for pair in talk_about(facts, rng, 20)]
    assert len({question for question, _ in pairs}) > 250
    assert all(answer and "<" not in question + answer for question, answer in pairs)


def test_every_line_about_a_photograph_can_be_said(faces: list[Facts]) -> None:
    """With what is known of a face of every mood; the moods have the same words to offer."""
    rng, person = random.Random(3), PRONOUNS[1]
    assert len(PHOTO_TOPICS) >= 40 and not set(PHOTO_TOPICS) & set(TOPICS)
    by_mood = {feeling(facts) or "mixed": facts for facts in [*faces, NEUTRAL, showing(eyeBlink=1.0)]}
    assert by_mood.keys() == {*SHOWN_BY, "neutral", "sleepy", "mixed"}
    names = [{rule.removeprefix(f"{mood}_") for rule in MOODS.rules if rule.startswith(f"{mood}_")}
             for mood in by_mood]  # fmt: skip
    assert all(found - {"is", "a", "n"} == names[0] - {"is", "a", "n"} for found in names)
    for facts in by_mood.values():
        known = _known(facts, person, rng)
        for topic in PHOTO_TOPICS:
            questions, answers = PHOTO_TALK.rules[topic], PHOTO_TALK.rules[f"{topic}_answer"]
            assert 6 <= len(questions) <= 15 and 3 <= len(answers) <= 8, topic
            said = [PHOTO_TALK._line(rng, line, person | {"photo": "it"}, 0) for line in questions]
            said += [PHOTO_TALK._line(rng, line, known, 0) for line in answers]
            assert all(text.strip() and not set("{}[]|<>") & set(text) for text in said)


def test_half_of_the_talk_is_whatever_people_ask_and_its_answers_follow_the_face() -> None:
    asked = [talk_about(NEUTRAL, random.Random(seed), 6) for seed in range(50)]
    assert all(len({question for question, _ in pairs}) == 6 for pairs in asked)

    def told(facts: Facts) -> str:
        return " ".join(
            answer for seed in range(50) for _, answer in talk_about(facts, random.Random(seed), 40)
        )

    glad, afraid = (told(showing(**ARCHETYPES[kind][0])) for kind in ("smile", "fear"))
    assert re.search("happy|cheerful", glad) and not re.search("frightened|terrified", glad)
    assert re.search("frightened|terrified", afraid) and not re.search("cheerful|beaming", afraid)


def test_no_situation_is_ever_said_where_faces_are_trained(faces: list[Facts]) -> None:
    """The events themselves stay out, and words that tell of such."""
    rng = random.Random(2)
    events = [text for texts in SITUATIONS.values() for text in texts]
    told = r"\b(won\b|lottery|lost|cancelled|flight|exam|died|funeral|wedding|robbed|fired|insulted|promot)"
    files = ("requests", "descriptions", "talk", "photo_talk", "moods")
    bodies = [(FOLDER / f"{name}.yaml").read_text().lower() for name in files]
    texts = [text.lower() for facts in faces for text in describe_freely(facts, rng, 10)]
    for text in [*bodies, *texts]:
        assert not any(event in text for event in events)
        assert not re.search(told, text)


def test_there_are_over_five_thousand_plain_questions() -> None:
    grammar = read_grammar("questions")
    assert all(grammar.count(part[0][0]) >= 200 for part in grammar.rules["question"])
    rng = random.Random(0)
    assert len({grammar.say(rng, "question").lower() for _ in range(9000)}) >= 5000

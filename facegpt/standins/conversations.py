"""Conversations for the tiny LLaVA's pretraining: about an image, about a face in words, and plain ones."""

from __future__ import annotations

import random
from typing import Any

from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS, describe_aspects
from facegpt.sample import IMAGE_TOKEN, Message
from facegpt.standins.language import (
    ASPECTS,
    TURN_QUESTIONS,
    Facts,
    describe_color,
    describe_expression,
    describe_light,
    describe_pose,
    describe_turns,
    feeling,
    sentence,
)
from facegpt.standins.situations import GENERAL, LOOKS, SUBJECTS, situations


def questions_about(facts: Facts, rng: random.Random, count: int) -> list[tuple[str, str]]:
    """`count` question-answer pairs about one image, drawn from all kinds."""
    pairs = [(ASPECT_QUESTIONS[aspect], say(facts)) for aspect, say in ASPECTS.items()]
    rng.shuffle(pairs)
    points = [
        (f"Where is {name}?", f"At {x} {y}.")
        for name, (x, y) in rng.sample(sorted(facts.points.items()), count)
    ]
    details = [
        ("Are the eyes closed?", "Yes." if facts.lids > 0.7 else "No."),
        ("Is the mouth open?", "Yes." if facts.jaw > 4 else "No."),
        ("How does the person feel?", f"The person looks {feeling(facts)}."),
        ("How far is the head turned?", describe_pose(facts).split(",")[0].rstrip(".") + "."),
        *[(question, _answer_topic(question, facts)) for question in FACE_QUESTIONS],
    ]
    rng.shuffle(details)
    chosen = pairs[: (count + 1) // 2] + points[: count // 4 + 1] + details[: count // 4 + 1]
    rng.shuffle(chosen)
    return chosen[:count]


def plain_conversation(rng: random.Random) -> list[tuple[str, str]]:
    """A short conversation without an image: situations, feelings, looks, or general chat."""
    kind = rng.random()
    subject = rng.choice(SUBJECTS)
    if kind < 0.75:
        name, event = rng.choice(situations(held_out=False))
        return _about_feeling(name, f"{subject} {event}.", rng)
    return rng.sample(GENERAL, rng.choice([1, 2]))


def reading_conversation(facts: Facts, rng: random.Random) -> list[tuple[str, str]]:
    """Reading: a face is told in words, without an image, and questions follow that the words answer."""
    known = {aspect: say(facts) for aspect, say in ASPECTS.items()}
    text = describe_aspects(rng, known)
    questions = [(ASPECT_QUESTIONS[aspect], answer) for aspect, answer in known.items() if answer in text]
    if known["pose"] in text:
        answers = [sentence([said or "it does not"]) for said in describe_turns(facts)]
        questions += zip(TURN_QUESTIONS, answers, strict=True)
    if known["expression"] in text:
        questions.append(("How does the person feel?", f"The person looks {feeling(facts)}."))
    (question, answer), *others = rng.sample(questions, min(len(questions), 3))
    first = f"{text} {question}" if rng.random() < 0.5 else f"{question} {text}"
    return [(first, answer), *others]


def instructions(seed: int, count: int) -> list[dict[str, Any]]:
    """`count` plain instruction samples in LLaVA's JSON format (no images, no faces asked for)."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        conversation = []
        for question, answer in plain_conversation(rng):
            conversation += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        rows.append({"id": f"instruct-{index:05d}", "conversations": conversation})
    return rows


def to_messages(pairs: list[tuple[str, str]], image: bool) -> list[Message]:
    """Question-answer pairs as a conversation; the image goes before the first question."""
    messages = []
    for turn, (question, answer) in enumerate(pairs):
        messages.append(Message("user", f"{IMAGE_TOKEN}\n{question}" if image and turn == 0 else question))
        messages.append(Message("assistant", answer))
    return messages


def _about_feeling(name: str, situation: str, rng: random.Random) -> list[tuple[str, str]]:
    look = sentence(list(LOOKS[name]))
    kinds = [
        (f"{situation} How does this person feel?", f"This person feels {name}."),
        (f"{situation} What does the face look like?", look),
        (f"What does a {name} person look like?", look),
        (f"{situation} Describe the face.", f"This person feels {name}. {look}"),
        (f"Somebody looks like this: {look} How does this person feel?", f"This person feels {name}."),
    ]
    return rng.sample(kinds, rng.choice([1, 2]))


def _answer_topic(question: str, facts: Facts) -> str:
    """Answers to the face questions of `templates.FACE_QUESTIONS`, recognised by their topic word."""
    text = question.lower()
    if "hair" in text:
        light = facts.colors.get("hair_lightness", 0.0)
        return "The hair is short and " + ("pale." if light > 0.5 else "dark." if light < -0.5 else "brown.")
    if "expression" in text:
        return f"The person looks {feeling(facts)}. " + describe_expression(facts)
    if "colo" in text:
        return "The skin gives the main colour. " + describe_color(facts)
    if "occasion" in text:
        return "The clothes do not tell any occasion."
    if "cloth" in text or "wear" in text:
        return "No clothes can be seen."
    if "light" in text:
        return describe_light(facts)
    return "The place is plain, only a coloured wall can be seen."

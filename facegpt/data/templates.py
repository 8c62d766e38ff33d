"""The wording of questions and answers: what the pretrained VLM is asked, how a face is asked for and given.

The wordings of requests come from the grammar in wording/requests.yaml. Every draw takes its random generator
from the caller, so a sample's wording follows from its seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from facegpt.data.grammar import hasty, read_grammar

# What the pretrained VLM is asked about a photograph for text-to-face: aspect -> question.
ASPECT_QUESTIONS: dict[str, str] = {
    "shape": "Describe the shape of this face: the jaw line, the forehead and the cheek bones.",
    "expression": "Describe the facial expression: the brows, the eyes, the mouth, wrinkles or dimples.",
    "colour": "Describe the colours of this face: the skin tone, freckles and make-up.",
    "light": "Describe the light on this face: its direction, its strength and the shadows.",
    "pose": "Describe the head pose: which way is the head turned, nodded or tilted?",
}

# What it is asked for the conversations that keep a face model talkative.
FACE_QUESTIONS: list[str] = [
    "What can you say about this person's hair?",
    "What are the dominant colours of this picture?",
    "Which occasion do the clothes suggest?",
    "What is the person's expression?",
    "Where was this photograph taken?",
    "What is the person wearing?",
]

REQUESTS = read_grammar("requests")
PRONOUNS = [
    {"she": "she", "her": "her", "hers": "her", "does": "does", "is": "is", "look": "looks"},
    {"she": "he", "her": "him", "hers": "his", "does": "does", "is": "is", "look": "looks"},
    {"she": "they", "her": "them", "hers": "their", "does": "do", "is": "are", "look": "look"},
]
HASTY = 0.15  # share of the requests that are typed without capital letters and marks

# A sample of the wordings for those who want a list: `{}` is a description in whole sentences.
IMAGE_PROMPTS = REQUESTS.wordings("photograph", 400, **PRONOUNS[0])
TEXT_PROMPTS = REQUESTS.wordings("sentences", 400, **PRONOUNS[0], description="{}")
ANSWERS = REQUESTS.wordings("answer", 100)

Form = Literal["sentences", "noun", "notes", "wish"]


def face_request(
    rng: random.Random, description: Mapping[str, str] | str | None = None, looks: Sequence[str] = ()
) -> tuple[str, str]:
    """A prompt and an answer with one `<FACE>`; about a photograph (None), or about a description.

    description: aspect -> text, as a VLM wrote it, or a whole text in one of the forms of `text_form`. Of the
    aspects each is left out now and then, see `describe_aspects`. looks: adjectives of which the answer to a
    whole text names one before the face ("She looks sad: <FACE>"), so that a feeling passes through words.
    """
    answer = REQUESTS.say(rng, "answer")
    if description is None:
        return _typed(rng, REQUESTS.say(rng, "photograph", **rng.choice(PRONOUNS))), answer
    if isinstance(description, str):
        return _typed(rng, _ask(rng, "", description)), _answer(rng, description, looks)
    text = describe_aspects(rng, description)
    return REQUESTS.say(rng, "sentences", **pronouns(rng, text), description=text), answer


def follow_up(rng: random.Random, text: str, looks: Sequence[str] = ()) -> tuple[str, str]:
    """As `face_request` with a whole text, for a conversation in which a face was asked for before."""
    return _typed(rng, _ask(rng, "follow_", text)), _answer(rng, text, looks)


def _answer(rng: random.Random, text: str, looks: Sequence[str]) -> str:
    if not looks:
        return REQUESTS.say(rng, "answer")
    return REQUESTS.say(rng, "answer_feeling", **pronouns(rng, text), feeling=rng.choice(looks))


def two_faces_request(rng: random.Random, first: str, second: str) -> tuple[str, str]:
    """One prompt for two faces and an answer with two `<FACE>`; the texts are both nouns or both notes."""
    rule = "both" if text_form(first) == "noun" else "both_notes"
    prompt = REQUESTS.say(rng, rule, first=first, second=second)
    return _typed(rng, prompt), REQUESTS.say(rng, "answer_both")


def text_form(text: str) -> Form:
    """How a whole text can stand in a request.

    sentences end with a full stop ("She has a big grin."); noun is a person ("an angry woman with knitted
    brows"); wish is what a face does ("to smile and close her eyes"); notes are features alone ("big grin,
    eyes closed").
    """
    if text.rstrip().endswith((".", "!", "?")):
        return "sentences"
    first = text.split(" ", 1)[0].lower()
    if first in ("a", "an", "the", "my", "this", "some", "somebody", "someone"):
        return "noun"
    return "wish" if first == "to" else "notes"


def pronouns(rng: random.Random, text: str) -> dict[str, str]:
    """The pronouns that the text uses of its person, any where it uses none: slots of the grammar."""
    for person in PRONOUNS:
        if re.search(rf"\b({person['she']}|{person['her']}|{person['hers']})\b", text, re.IGNORECASE):
            return person
    return rng.choice(PRONOUNS)


def describe_aspects(rng: random.Random, description: Mapping[str, str]) -> str:
    """A description (aspect -> text) in one piece: aspects in random order, now and then without one."""
    aspects = rng.sample(sorted(description), len(description))
    kept = [aspect for aspect in aspects if rng.random() >= 0.15] or aspects[:1]
    return " ".join(description[aspect].strip() for aspect in kept)


def combined_request(rng: random.Random, question: str, answer: str) -> tuple[str, str]:
    """A question about a photograph and the wish for its face in one turn, and the answer to both."""
    person = pronouns(rng, question)
    return (
        REQUESTS.say(rng, "combined", **person, question=question.strip()),
        REQUESTS.say(rng, "combined_answer", answered=answer.strip()),
    )


def _ask(rng: random.Random, kind: str, text: str) -> str:
    form = text_form(text)
    slot = {"sentences": "description", "noun": "who", "notes": "features", "wish": "act"}[form]
    said = text.strip().removeprefix("to ") if form == "wish" else text.strip()
    return REQUESTS.say(rng, kind + form, **pronouns(rng, text), **{slot: said})


def _typed(rng: random.Random, text: str) -> str:
    return hasty(text) if rng.random() < HASTY else text

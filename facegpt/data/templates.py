"""The wording of questions and answers: what the pretrained VLM is asked, how a face is asked for and given.

Every draw takes its random generator from the caller, so a sample's wording follows from its seed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

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

IMAGE_PROMPTS: list[str] = [
    "Show me the face of this person in 3D.",
    "What does this face look like in 3D?",
    "Reconstruct the 3D face in this picture.",
    "Can you make a 3D model of this face?",
    "Please give me the 3D parameters of this face.",
    "What are the 3D face parameters of the person in the picture?",
    "Estimate the shape, expression and pose of this face in 3D.",
    "Turn this photograph into a 3D face.",
    "I need a 3D head of this person.",
    "Could you estimate the 3D face of this person?",
    "Fit a 3D face to this picture.",
    "Give me this person's face as a 3D model, please.",
    "Model the face that you see.",
    "Which 3D face fits this photograph?",
]

# `{}` is the description.
TEXT_PROMPTS: list[str] = [
    "{} Show me this face in 3D.",
    "{} What does this face look like in 3D?",
    "Make a 3D face from this description. {}",
    "Here is a description of a face. {} Can you make a 3D model of it?",
    "{} Please give me the 3D parameters of this face.",
    "What are the 3D face parameters of this person? {}",
    "I am thinking of a person. {} Show me the face in 3D.",
    "{} Which 3D face fits this description?",
    "Model a face in 3D. {}",
    "Imagine this person. {} Could you show me the 3D face?",
    "{} Turn this text into a 3D face.",
    "I need a 3D head of a person like this. {}",
    "Give me a 3D face that looks like this, please. {}",
    "Show me the face of a person who looks like this. {}",
    "Show me the face of this person: {}",
    "Give me the face of a person like this: {}",
    "{} Show me her face.",
    "{} Show me his face in 3D.",
    "{} What does the face look like? Show me.",
]

ANSWERS: list[str] = [
    "<FACE>",
    "<FACE>.",
    "Here is the face: <FACE>",
    "Sure, <FACE>.",
    "The face is <FACE>.",
    "It looks like this: <FACE>.",
    "<FACE> is the 3D face.",
    "This is the face in 3D. <FACE>",
    "Sure. Here is the 3D face: <FACE>.",
    "I would say <FACE> fits best.",
    "The 3D face parameters are <FACE>. You can look at it from all sides.",
    "Here it is: <FACE>. Tell me if you need anything else.",
]

# A question about the photograph and the wish for a face in one turn: `{}` is the question, then the answer.
COMBINED_PROMPTS: list[str] = [
    "{} And show me the face in 3D.",
    "{} Please give me the 3D face too.",
    "Show me this face in 3D. {}",
    "Make a 3D model of this face and answer a question. {}",
]
COMBINED_ANSWERS: list[str] = [
    "{} Here is the face: <FACE>.",
    "{} <FACE>",
    "Here is the face: <FACE>. {}",
    "<FACE> {}",
]


def face_request(rng: random.Random, description: Mapping[str, str] | None = None) -> tuple[str, str]:
    """A prompt and an answer with one `<FACE>`; about a photograph, or about a description (aspect -> text).

    The aspects come in random order, and each is left out now and then (one at least stays), because a user
    does not describe everything.
    """
    answer = rng.choice(ANSWERS)
    if description is None:
        return rng.choice(IMAGE_PROMPTS), answer
    text = describe_aspects(rng, description)
    return rng.choice(TEXT_PROMPTS).replace("{}", text), answer


def describe_aspects(rng: random.Random, description: Mapping[str, str]) -> str:
    """A description (aspect -> text) in one piece: aspects in random order, now and then without one."""
    aspects = rng.sample(sorted(description), len(description))
    kept = [aspect for aspect in aspects if rng.random() >= 0.15] or aspects[:1]
    return " ".join(description[aspect].strip() for aspect in kept)


def combined_request(rng: random.Random, question: str, answer: str) -> tuple[str, str]:
    """A question about a photograph and the wish for its face in one turn, and the answer to both."""
    return (
        rng.choice(COMBINED_PROMPTS).replace("{}", question.strip()),
        rng.choice(COMBINED_ANSWERS).replace("{}", answer.strip()),
    )

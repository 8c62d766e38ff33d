"""The small world of words of the tiny LLaVA's pretraining: captions, questions, answers, plain text.

`read_facts` turns the known parameters of a synthetic face into facts that can be said in words; the
functions below say them. This plays the part of the web's image captions for the stand-in; real backbones
bring their own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS, describe_aspects
from facegpt.head.lbs import rotation_matrices
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.camera import project
from facegpt.sample import Message
from facegpt.standins.situations import GENERAL, LOOKS, SUBJECTS, situations

GRID = 32  # points are told as column and row of a grid of this many cells
POINTS = {
    "the tip of the nose": [30], "the chin": [8], "the left eye": [42, 45], "the right eye": [36, 39],
    "the left corner of the mouth": [54], "the right corner of the mouth": [48], "the upper lip": [51],
    "the lower lip": [57], "the left brow": [24], "the right brow": [19], "the bridge of the nose": [27],
    "the left side of the jaw": [13], "the right side of the jaw": [3], "the left ear": [16],
    "the right ear": [0], "the outer corner of the left eye": [45], "the outer corner of the right eye": [36],
    "the left nostril": [35], "the right nostril": [31], "the left upper lid": [43, 44],
    "the right upper lid": [37, 38], "the left inner brow": [22], "the right inner brow": [21],
}  # fmt: skip

# phrase -> the named expression components (averaged) that it tells of; {} takes a word for how strong
MOVEMENTS: dict[str, list[str]] = {
    "the mouth smiles {}": ["mouthSmileLeft", "mouthSmileRight"],
    "the mouth corners are drawn down {}": ["mouthFrownLeft", "mouthFrownRight"],
    "the brows are raised {}": ["browOuterUpLeft", "browOuterUpRight"],
    "the inner brows are raised {}": ["browInnerUp"],
    "the brows are lowered {}": ["browDownLeft", "browDownRight"],
    "the nose is wrinkled {}": ["noseSneerLeft", "noseSneerRight"],
    "the lips are puckered {}": ["mouthPucker"],
    "the lips form a funnel": ["mouthFunnel"],
    "the cheeks are puffed {}": ["cheekPuff"],
    "the cheeks are raised": ["cheekSquintLeft", "cheekSquintRight"],
    "the mouth is stretched": ["mouthStretchLeft", "mouthStretchRight"],
    "the lips are pressed together": ["mouthPressLeft", "mouthPressRight"],
    "the upper lip is raised": ["mouthUpperUpLeft", "mouthUpperUpRight"],
    "the lower lip is lowered": ["mouthLowerDownLeft", "mouthLowerDownRight"],
    "the eyes are wide open": ["eyeWideLeft", "eyeWideRight"],
    "the eyes are narrowed": ["eyeSquintLeft", "eyeSquintRight"],
    "the mouth moves to the left": ["mouthLeft"],
    "the mouth moves to the right": ["mouthRight"],
}
STRENGTHS = [(0.65, "strongly"), (0.35, "clearly"), (0.18, "slightly")]

# identity and albedo components -> what a high and a low coefficient is called
SHAPES: dict[str, tuple[str, str]] = {
    "face_length": ("a long face", "a short face"),
    "head_height_vs_width": ("a narrow head", "a wide head"),
    "jaw_width": ("a broad jaw", "a slim jaw"),
    "neck_width": ("a thick neck", "a thin neck"),
    "chin_projection": ("a strong chin", "a receding chin"),
    "cheekbone_width": ("broad cheek bones", "narrow cheek bones"),
    "cheek_fullness": ("full cheeks", "hollow cheeks"),
    "nose_length": ("a long nose", "a short nose"),
    "nose_width": ("a broad nose", "a narrow nose"),
    "brow_ridge": ("a heavy brow", "a smooth brow"),
    "eye_size": ("large eyes", "small eyes"),
    "eye_spacing": ("wide set eyes", "close set eyes"),
    "lip_thickness": ("full lips", "thin lips"),
    "mouth_width": ("a wide mouth", "a small mouth"),
    "ear_size": ("large ears", "small ears"),
}
TURN_QUESTIONS = ["Does the head turn?", "Does it look up or down?", "Does it lean to a side?"]
SKIN = ["very light", "light", "medium", "brown", "dark"]


@dataclass
class Facts:
    """What can be said about one face. Angles in degrees; sides are the person's own."""

    yaw: float
    pitch: float
    roll: float
    jaw: float
    size: float  # scale of the camera relative to the mean face's
    center: tuple[float, float]  # of the landmarks, in image widths
    points: dict[str, tuple[int, int]]  # grid cells
    movements: dict[str, float]
    lids: float  # 0 open, 1 closed
    shape: dict[str, float]
    colors: dict[str, float]
    light: tuple[float, float, float]  # direction (person's left, up, front), length = strength
    warmth: float


def read_facts(head: HeadModel, parameters: FaceParameters) -> list[Facts]:
    """Facts of every face in the batch; needs a head whose components have names."""
    with torch.no_grad():
        landmarks = project(head(parameters).landmarks, parameters.camera, GRID, GRID)[..., :2]
        rotation = rotation_matrices(parameters.pose[:, :3])
    light = parameters.lighting.view(-1, 9, 3)
    expression = {name: parameters.expression[:, i] for i, name in enumerate(head.expression_names)}
    shape = {name: parameters.shape[:, i] for i, name in enumerate(head.shape_names)}
    albedo = {name: parameters.albedo[:, i] for i, name in enumerate(head.albedo_names)}
    facts = []
    for b in range(len(parameters)):
        R = rotation[b]

        def level(names: list[str], b: int = b) -> float:
            present = [float(expression[n][b]) for n in names if n in expression]
            return sum(present) / len(present) if present else 0.0

        points = {}
        for name, ids in POINTS.items():
            x, y = (float(v) for v in landmarks[b, ids].mean(0))
            points[name] = (min(max(int(x), 0), GRID - 1), min(max(int(y), 0), GRID - 1))
        mean_light = light[b].mean(1)
        facts.append(
            Facts(
                yaw=math.degrees(math.atan2(float(R[0, 2]), float(R[2, 2]))),
                pitch=math.degrees(math.asin(max(-1.0, min(1.0, float(R[1, 2]))))),
                roll=math.degrees(math.atan2(float(R[1, 0]), float(R[1, 1]))),
                jaw=math.degrees(float(parameters.pose[b, 3])),
                size=float(parameters.camera[b, 0]) / head.default_camera[0],
                center=tuple(float(v) / GRID for v in landmarks[b].mean(0)),  # type: ignore[arg-type]
                points=points,
                movements={phrase: level(names) for phrase, names in MOVEMENTS.items()},
                lids=level(["eyeBlinkLeft", "eyeBlinkRight"]),
                shape={name: float(shape[name][b]) for name in SHAPES if name in shape},
                colors={name: float(values[b]) for name, values in albedo.items()},
                light=tuple(float(v / mean_light[0]) for v in mean_light[1:4]),  # type: ignore[arg-type]
                warmth=float((light[b, 0, 0] - light[b, 0, 2]) / light[b, 0].mean()),
            )
        )
    return facts


def say_expression(facts: Facts) -> str:
    phrases = []
    for phrase, value in sorted(facts.movements.items(), key=lambda item: -item[1]):
        word = next((word for limit, word in STRENGTHS if value >= limit), None)
        if word is not None and ("{}" in phrase or value >= 0.35):
            phrases.append(phrase.format(word))
    phrases = phrases[:5]
    if facts.lids > 0.3:
        phrases.append("the eyes are closed" if facts.lids > 0.7 else "the eyes are half closed")
    if facts.jaw > 4:
        phrases.append(
            "the jaw is "
            + ("wide" if facts.jaw > 16 else "clearly" if facts.jaw > 9 else "slightly")
            + " open"
        )
    return _sentence(phrases or ["the face is relaxed"])


def say_turns(facts: Facts) -> list[str]:
    """Yaw, pitch and roll in words, in steps of 5 degrees; empty for none."""
    return [
        _angle(
            facts.yaw,
            "the head is turned {} degrees to the left",
            "the head is turned {} degrees to the right",
        ),
        _angle(facts.pitch, "it looks {} degrees up", "it looks {} degrees down"),
        _angle(facts.roll, "it leans {} degrees to the right", "it leans {} degrees to the left"),
    ]


def say_pose(facts: Facts) -> str:
    pose = ", ".join(p for p in say_turns(facts) if p) or "the head is straight"
    size = "large" if facts.size > 1.06 else "small" if facts.size < 0.94 else "of medium size"
    return _sentence([pose, f"the face is {size}"])


def say_shape(facts: Facts) -> str:
    strong = sorted(facts.shape.items(), key=lambda item: -abs(item[1]))[:3]
    phrases = [SHAPES[name][0 if value > 0 else 1] for name, value in strong if abs(value) > 0.5]
    return _sentence(["this is " + ", ".join(phrases)]) if phrases else "This is an average face."


def say_color(facts: Facts) -> str:
    tone = SKIN[min(4, max(0, round(2 + 1.3 * facts.colors.get("melanin", 0.0))))]
    phrases = [f"the skin is {tone}"]
    for name, high, low in (
        ("brow_darkness", "the brows are dark", "the brows are pale"),
        ("beard", "there is a beard", ""),
        ("lip_colour", "the lips are red", "the lips are pale"),
        ("freckles", "there are freckles", ""),
    ):
        value = facts.colors.get(name, 0.0)
        phrases += [high] if value > 0.8 else [low] if value < -0.8 and low else []
    return _sentence(phrases)


def say_light(facts: Facts) -> str:
    x, y, _ = facts.light
    side = "left" if x > 0.12 else "right" if x < -0.12 else ""
    height = "above" if y > 0.12 else "below" if y < -0.12 else ""
    source = " and ".join(w for w in (f"the {side}" if side else "", height) if w) or "the front"
    strength = "strong" if math.hypot(*facts.light) > 0.45 else "soft"
    tint = "warm" if facts.warmth > 0.08 else "cold" if facts.warmth < -0.08 else "white"
    return f"The light is {strength} and {tint} and comes from {source}."


ASPECTS: dict[str, Callable[[Facts], str]] = {
    "shape": say_shape,
    "expression": say_expression,
    "colour": say_color,
    "light": say_light,
    "pose": say_pose,
}


def feeling(facts: Facts) -> str:
    """The feeling whose look is nearest to the face, by the phrases they share."""
    said = say_expression(facts).lower()
    scores = {name: sum(phrase in said for phrase in look) / len(look) for name, look in LOOKS.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= 0.5 else "unclear"


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
        ("How far is the head turned?", say_pose(facts).split(",")[0].rstrip(".") + "."),
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


def retold_conversation(facts: Facts, rng: random.Random) -> list[tuple[str, str]]:
    """Reading: a face is told in words, without an image, and questions follow that the words answer."""
    known = {aspect: say(facts) for aspect, say in ASPECTS.items()}
    text = describe_aspects(rng, known)
    questions = [(ASPECT_QUESTIONS[aspect], answer) for aspect, answer in known.items() if answer in text]
    if known["pose"] in text:
        answers = [_sentence([said or "it does not"]) for said in say_turns(facts)]
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
        messages.append(Message("user", f"<image>\n{question}" if image and turn == 0 else question))
        messages.append(Message("assistant", answer))
    return messages


def _about_feeling(name: str, situation: str, rng: random.Random) -> list[tuple[str, str]]:
    look = _sentence(list(LOOKS[name]))
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
        return f"The person looks {feeling(facts)}. " + say_expression(facts)
    if "colo" in text:
        return "The skin gives the main colour. " + say_color(facts)
    if "occasion" in text:
        return "The clothes do not tell any occasion."
    if "cloth" in text or "wear" in text:
        return "No clothes can be seen."
    if "light" in text:
        return say_light(facts)
    return "The place is plain, only a coloured wall can be seen."


def _angle(value: float, positive: str, negative: str) -> str:
    rounded = 5 * round(abs(value) / 5)
    return "" if rounded == 0 else (positive if value > 0 else negative).format(rounded)


def _sentence(phrases: list[str]) -> str:
    text = ", ".join(phrases)
    return text[0].upper() + text[1:] + "."

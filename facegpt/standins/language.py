"""Synthetic faces in words: the captions of the tiny LLaVA's pretraining.

`read_facts` turns the known parameters of a synthetic face into facts that can be said in words; `describe_*`
say them. This plays the part of the web's image captions for the stand-in; real backbones bring their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from facegpt.head.landmarks import facing_yaw
from facegpt.head.lbs import rotation_matrices
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.camera import project
from facegpt.standins.situations import LOOKS

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
    components: dict[str, float] = field(default_factory=dict)  # all of the expression, by name
    identity: dict[str, float] = field(default_factory=dict)  # all of the shape, by name


def read_facts(head: HeadModel, parameters: FaceParameters) -> list[Facts]:
    """Facts of every face in the batch; needs a head whose components have names."""
    with torch.no_grad():
        landmarks = project(head(parameters).landmarks, parameters.camera, GRID, GRID)[..., :2]
        rotation = rotation_matrices(parameters.pose[:, :3])
    yaw = facing_yaw(rotation.double()).tolist()
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
                yaw=yaw[b],
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
                components={name: float(values[b]) for name, values in expression.items()},
                identity={name: float(values[b]) for name, values in shape.items()},
            )
        )
    return facts


def describe_expression(facts: Facts) -> str:
    """The movements that are strong enough to be seen, strongest first, then lids and jaw."""
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
    return sentence(phrases or ["the face is relaxed"])


def describe_turns(facts: Facts) -> list[str]:
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


def describe_pose(facts: Facts) -> str:
    """The turns of the head and how large the face is in the image."""
    pose = ", ".join(p for p in describe_turns(facts) if p) or "the head is straight"
    size = "large" if facts.size > 1.06 else "small" if facts.size < 0.94 else "of medium size"
    return sentence([pose, f"the face is {size}"])


def describe_shape(facts: Facts) -> str:
    """The three most unusual features of the face's shape."""
    strong = sorted(facts.shape.items(), key=lambda item: -abs(item[1]))[:3]
    phrases = [SHAPES[name][0 if value > 0 else 1] for name, value in strong if abs(value) > 0.5]
    return sentence(["this is " + ", ".join(phrases)]) if phrases else "This is an average face."


def describe_color(facts: Facts) -> str:
    """Skin tone, brows, beard, lips and freckles."""
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
    return sentence(phrases)


def describe_light(facts: Facts) -> str:
    """Strength, tint and direction of the light, from the person's side."""
    x, y, _ = facts.light
    side = "left" if x > 0.12 else "right" if x < -0.12 else ""
    height = "above" if y > 0.12 else "below" if y < -0.12 else ""
    source = " and ".join(w for w in (f"the {side}" if side else "", height) if w) or "the front"
    strength = "strong" if math.hypot(*facts.light) > 0.45 else "soft"
    tint = "warm" if facts.warmth > 0.08 else "cold" if facts.warmth < -0.08 else "white"
    return f"The light is {strength} and {tint} and comes from {source}."


ASPECTS: dict[str, Callable[[Facts], str]] = {
    "shape": describe_shape,
    "expression": describe_expression,
    "colour": describe_color,
    "light": describe_light,
    "pose": describe_pose,
}


def feeling(facts: Facts) -> str:
    """The feeling whose look is nearest to the face, by the phrases they share."""
    said = describe_expression(facts).lower()
    scores = {name: sum(phrase in said for phrase in look) / len(look) for name, look in LOOKS.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= 0.5 else "unclear"


def _angle(value: float, positive: str, negative: str) -> str:
    rounded = 5 * round(abs(value) / 5)
    return "" if rounded == 0 else (positive if value > 0 else negative).format(rounded)


def sentence(phrases: list[str]) -> str:
    """Phrases joined by commas, with a capital letter and a full stop."""
    text = ", ".join(phrases)
    return text[0].upper() + text[1:] + "."

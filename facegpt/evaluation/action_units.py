"""Facial action units as components of a head, and sixteen feelings as action units: data, with sources.

Action units are those of FACS (Ekman, Friesen and Hager 2002): what a muscle does, in five intensities, A (a
trace) to E (the most). ARKit's components, which the built-in head, ICT-FaceKit and most trackers name, move
one muscle group each, so most units are one component. A unit's strength is in the components' unit: 0
absent, 1 full.

Shape legend: N faces, U action units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

JAW, HEAD_UP, HEAD_DOWN = "jawOpen", "headUp", "headDown"
FULL_JAW, FULL_NOD = 0.4, 0.35  # radians that count as 1: a wide open jaw, a nod of 20 degrees
# FACS letters as strengths. FACS itself says in words what A to E look like; that they are these fifths of
# the full component is our reading.
INTENSITIES = {"A": (0.05, 0.2), "B": (0.2, 0.4), "C": (0.4, 0.6), "D": (0.6, 0.85), "E": (0.85, 1.5)}


@dataclass(frozen=True)
class ActionUnit:
    """name: FACS's own. components: their stems, without Left or Right; the strongest counts, each with the
    mean of its sides. one_sided: on one side of the face alone, so by how much that exceeds the other counts.
    """

    name: str
    components: tuple[str, ...]
    one_sided: bool = False


# Of FACS's units those that the feelings below need; "U" marks a unit on one side of the face, as in FACS.
ACTION_UNITS = {
    "1": ActionUnit("inner brow raiser", ("browInnerUp",)),
    "2": ActionUnit("outer brow raiser", ("browOuterUp",)),
    "4": ActionUnit("brow lowerer", ("browDown",)),
    "5": ActionUnit("upper lid raiser", ("eyeWide",)),
    "6": ActionUnit("cheek raiser", ("cheekSquint",)),
    "7": ActionUnit("lid tightener", ("eyeSquint",)),
    "9": ActionUnit("nose wrinkler", ("noseSneer",)),
    "10": ActionUnit("upper lip raiser", ("mouthUpperUp",)),
    "12": ActionUnit("lip corner puller", ("mouthSmile",)),
    "U12": ActionUnit("lip corner puller, one side", ("mouthSmile",), one_sided=True),
    "U14": ActionUnit("dimpler, one side", ("mouthDimple",), one_sided=True),
    "15": ActionUnit("lip corner depressor", ("mouthFrown",)),
    "17": ActionUnit("chin raiser", ("mouthShrugLower",)),
    "20": ActionUnit("lip stretcher", ("mouthStretch",)),
    "24": ActionUnit("lip pressor", ("mouthPress",)),
    "25": ActionUnit("lips part", ("mouthLowerDown", "mouthUpperUp", JAW)),
    "26": ActionUnit("jaw drop", (JAW,)),
    "43": ActionUnit("eye closure", ("eyeBlink",)),
    "53": ActionUnit("head up", (HEAD_UP,)),
    "54": ActionUnit("head down", (HEAD_DOWN,)),
    "64": ActionUnit("eyes down", ("eyeLookDown",)),
}
UNITS = tuple(ACTION_UNITS)
PRIMARY, SECONDARY = 0.675, 0.35  # strengths in a prototype; the first is that of the seven archetypes


@dataclass(frozen=True)
class Feeling:
    """primary, secondary: action units of its prototype. still: units that would say another feeling. words:
    what people call it, for asking a language model. source: of the units.
    """

    primary: tuple[str, ...]
    secondary: tuple[str, ...]
    still: tuple[str, ...]
    words: tuple[str, ...]
    source: str


EMFACS = "EMFACS, Friesen and Ekman 1983"
CORDARO = "Cordaro et al. 2018, Emotion 18(1), international core patterns"
FEELINGS = {
    "happiness": Feeling(("6", "12"), ("25",), ("4", "9", "15"), ("happy", "joyful"), EMFACS),
    "amusement": Feeling(
        ("6", "12", "26"), ("7", "25"), ("1", "4", "15"), ("amused", "entertained"), CORDARO
    ),
    "contentment": Feeling(("12", "43"), (), ("4", "5", "9", "15"), ("content", "relaxed"), CORDARO),
    "pride": Feeling(
        ("53",), ("12",), ("1", "9", "15", "54"), ("proud", "triumphant"), "Tracy and Robins 2004"
    ),
    "interest": Feeling(("1", "2"), ("12",), ("4", "9", "15", "43"), ("curious", "interested"), CORDARO),
    "surprise": Feeling(("1", "2", "5", "26"), ("25",), ("4", "12", "15"), ("surprised", "amazed"), EMFACS),
    "fear": Feeling(
        ("1", "4", "5", "20"), ("2", "25", "26"), ("12", "43"), ("afraid", "terrified"), EMFACS
    ),
    "anger": Feeling(("4", "7", "24"), ("5", "17"), ("1", "12", "26"), ("angry", "furious"), EMFACS),
    "disgust": Feeling(("9", "10"), ("17",), ("1", "5", "12"), ("disgusted", "revolted"), EMFACS),
    "contempt": Feeling(("U14",), ("U12",), ("1", "5", "26"), ("contemptuous", "scornful"), EMFACS),
    "sadness": Feeling(("1", "15"), ("4", "17"), ("2", "5", "12"), ("sad", "sorrowful"), EMFACS),
    "pain": Feeling(
        ("4", "6", "7", "10", "43"), ("9", "25"), ("2", "5", "12"), ("hurt", "in pain"),
        "Prkachin and Solomon 2008",
    ),
    "embarrassment": Feeling(
        ("54", "64"), ("12", "24"), ("5", "9", "26", "53"), ("embarrassed", "ashamed"), "Keltner 1995"
    ),
    "confusion": Feeling(("4", "7"), (), ("12", "15", "26"), ("confused", "puzzled"), CORDARO),
    "boredom": Feeling(("43",), (), ("1", "5", "12", "26"), ("bored", "weary"), CORDARO),
    "calm": Feeling((), (), ("4", "9", "12", "15", "26"), ("calm", "neutral"), "the face at rest"),
}  # fmt: skip


def prototype(feeling: str) -> tuple[dict[str, float], float, float]:
    """Expression by components, jaw and pitch (radians) of the prototype of a feeling.

    A unit of several components moves the first, one of one side the left.
    """
    row = FEELINGS[feeling]
    moved: dict[str, float] = {}
    for units, strength in ((row.primary, PRIMARY), (row.secondary, SECONDARY)):
        for unit in (ACTION_UNITS[name] for name in units):
            moved[unit.components[0] + ("Left" if unit.one_sided else "")] = strength
    jaw = FULL_JAW * moved.pop(JAW, 0.0)
    return moved, jaw, FULL_NOD * (moved.pop(HEAD_DOWN, 0.0) - moved.pop(HEAD_UP, 0.0))


def prototypes() -> np.ndarray:
    """(16,U) strengths in the order of `FEELINGS` and `UNITS`."""
    return np.stack([unit_strengths(*prototype(feeling)) for feeling in FEELINGS])


def unit_strengths(expression: Mapping[str, float], jaw: float, pitch: float) -> np.ndarray:
    """Strengths (U,) of all action units of one face, in the order of `UNITS`.

    expression: component -> coefficient, under ARKit's names (mouthSmileLeft or mouthSmile_L, or mouthSmile
    for both sides); missing ones do not move. jaw: its opening in radians; a component jawOpen counts too.
    pitch: of the head, in radians about the axis to the subject's left, so positive is down.
    """
    nod = pitch / FULL_NOD
    sides: dict[str, list[float]] = {HEAD_UP: 2 * [max(0.0, -nod)], HEAD_DOWN: 2 * [max(0.0, nod)]}
    for name, value in expression.items():
        part = stem(name)
        pair = sides.setdefault(part, [0.0, 0.0])
        if part == name:
            pair[:] = [value, value]
        else:
            pair[name.endswith(("_R", "Right"))] = value
    sides[JAW] = [jaw / FULL_JAW + value for value in sides.get(JAW, [0.0, 0.0])]
    return np.array([_strength(unit, sides) for unit in ACTION_UNITS.values()])


def needed_components() -> set[str]:
    """The stems of all expression components that some action unit is made of."""
    return {part for unit in ACTION_UNITS.values() for part in unit.components} - {JAW, HEAD_UP, HEAD_DOWN}


def _strength(unit: ActionUnit, sides: Mapping[str, Sequence[float]]) -> float:
    pairs = [sides.get(part, (0.0, 0.0)) for part in unit.components]
    return max(max(pair) - min(pair) if unit.one_sided else sum(pair) / 2 for pair in pairs)


def stem(name: str) -> str:
    """A component's name without its side: mouthSmileLeft, mouthSmile_L -> mouthSmile."""
    for side in ("_L", "_R", "Left", "Right"):
        name = name.removesuffix(side)
    return name

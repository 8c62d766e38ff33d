"""`facegpt demo`: the sliders, each of which moves one thing of a face or of its light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facegpt.head.model import JAW, HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.visualize import LIGHTS, Lights

# Name -> expression components, moved together; those of a side are found by "Left" and "Right".
EXPRESSIONS = {
    "Smile": ("mouthSmile",),
    "Corners down": ("mouthFrown",),
    "Lips pursed": ("mouthPucker",),
    "Lips pressed": ("mouthPress",),
    "Upper lip up": ("mouthUpperUp",),
    "Cheeks puffed": ("cheekPuff",),
    "Nose wrinkled": ("noseSneer",),
    "Brows up": ("browOuterUp", "browInnerUp"),
    "Brows down": ("browDown",),
    "Eyes closed": ("eyeBlink",),
    "Eyes wide": ("eyeWide",),
    "Eyes squint": ("eyeSquint",),
}
UNNAMED = 10  # components shown of a head that only numbers them
SAME = 0.005  # a slider this near to where the answer put it has not been moved


@dataclass(frozen=True)
class Slider:
    """One slider of a face: `columns` of a parameter group, whose mean is the value over `unit`."""

    name: str
    group: str
    columns: tuple[int, ...]
    low: float
    high: float
    step: float
    unit: float = 1.0


@dataclass(frozen=True)
class LightSlider:
    """One slider of the light, with its value in the studio."""

    name: str
    low: float
    high: float
    step: float
    studio: float


def _angles(x: float, y: float, z: float) -> tuple[float, float]:
    """Degrees to the picture's right and up of a direction towards the light."""
    return math.degrees(math.atan2(x, z)), math.degrees(math.atan2(y, math.hypot(x, z)))


_ASIDE, _UP = (round(angle) for angle in _angles(*LIGHTS[0][0]))
LIGHT_SLIDERS = (
    LightSlider("Light from the side", -90, 90, 1, _ASIDE),
    LightSlider("Light from above", -60, 80, 1, _UP),
    LightSlider("Strength of the light", 0, 2, 0.05, 1.0),
)


def face_sliders(head: HeadModel) -> list[Slider]:
    """The expressions of a head by name, or its first ones by number, then pose and jaw in degrees."""
    found = []
    for name, parts in EXPRESSIONS.items():
        wanted = {part + side for part in parts for side in ("", "Left", "Right")}
        columns = tuple(k for k, component in enumerate(head.expression_names) if component in wanted)
        if columns:
            found.append(Slider(name, "expression", columns, -0.5, 1.5, 0.01))
    if not found:
        count = min(UNNAMED, head.layout.expression)
        found = [Slider(f"Expression {k + 1}", "expression", (k,), -3, 3, 0.01) for k in range(count)]
    turns = (("Turn", 1, 60), ("Nod", 0, 40), ("Tilt", 2, 40))
    found += [Slider(name, "pose", (k,), -most, most, 1, math.pi / 180) for name, k, most in turns]
    if len(head.parents) > JAW:
        found.append(Slider("Jaw open", "pose", (3,), -5, 35, 1, math.pi / 180))
    return found


def positions(face: FaceParameters, sliders: Sequence[Slider]) -> list[float]:
    """Where the sliders stand for one face, within their ends."""
    return [_limited(slider, _value(face, slider)) for slider in sliders]


def moved(face: FaceParameters, sliders: Sequence[Slider], values: Sequence[float]) -> FaceParameters:
    """The face with the sliders at these values.

    What a slider moves keeps its differences (a crooked smile stays crooked), and a slider that stands where
    it started changes nothing. Raises ValueError for a value that is not finite.
    """
    groups: dict[str, Any] = {}
    for slider, value, start in zip(sliders, values, positions(face, sliders), strict=True):
        if not math.isfinite(value):
            raise ValueError(f"{slider.name} is {value}, it must be a number")
        if abs(value - start) > SAME * (slider.high - slider.low):
            group = groups.get(slider.group, getattr(face, slider.group)).clone()
            more = _limited(slider, value) - _value(face, slider)
            group[:, list(slider.columns)] += more * slider.unit
            groups[slider.group] = group
    return face.replace(**groups)


def lights(values: Sequence[float]) -> Lights:
    """The studio's lights with the main one at these values of `LIGHT_SLIDERS`. ValueError if not finite."""
    if not all(map(math.isfinite, values)):
        raise ValueError(f"the light's sliders stand at {values}, they must be numbers")
    aside, up, strength = values
    if (aside, up) == (_ASIDE, _UP):
        direction = LIGHTS[0][0]
    else:
        aside, up = math.radians(aside), math.radians(up)
        direction = (math.sin(aside) * math.cos(up), math.sin(up), math.cos(aside) * math.cos(up))
    return tuple(
        (where if k else direction, (strength * color[0], strength * color[1], strength * color[2]))
        for k, (where, color) in enumerate(LIGHTS)
    )


def _value(face: FaceParameters, slider: Slider) -> float:
    return float(getattr(face, slider.group)[0, list(slider.columns)].mean()) / slider.unit


def _limited(slider: Slider, value: float) -> float:
    return round(min(max(value, slider.low), slider.high), 2)

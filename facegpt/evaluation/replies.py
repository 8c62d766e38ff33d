"""Spoken faces from a file of replies: what `facegpt chat --batch` writes, or another model's predictions.

A line is {"id", "parameters"}; "parameters" has one list for each face, [] without any, and a list has rows
of {"group", "name", "value"}. Read are the group "expression" (ARKit's names, 0 absent, 1 full), of "pose"
head_x (radians about the axis to the subject's left, positive is down) and jaw_x (radians, positive opens),
and "shape"; other rows and keys are ignored, missing components do not move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facegpt.errors import SampleError
from facegpt.evaluation.action_units import unit_strengths
from facegpt.files import read_jsonl


@dataclass(frozen=True)
class SpokenFace:
    """The first face of a reply. expression: component -> coefficient. jaw, pitch: radians. shape (S,)."""

    expression: dict[str, float]
    jaw: float
    pitch: float
    shape: np.ndarray

    def strengths(self) -> np.ndarray:
        """Of all action units, (U,)."""
        return unit_strengths(self.expression, self.jaw, self.pitch)


def read_replies(path: str | Path) -> dict[str, SpokenFace | None]:
    """The first face of every reply by the id of its request, None where it has none.

    Raises SampleError, naming file and line, for a line of another form, a number that is not finite, and an
    id that comes twice.
    """
    if not Path(path).is_file():
        raise SampleError(f"{path} is not a file; give the replies.jsonl of `facegpt chat --batch`")
    faces: dict[str, SpokenFace | None] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            name, spoken = row["id"], row["parameters"]
            if not isinstance(name, str) or not isinstance(spoken, list) or name in faces:
                raise ValueError("'id' must be a text that comes once, 'parameters' a list")
            faces[name] = _face(spoken[0]) if spoken else None
        except (KeyError, TypeError, ValueError) as error:
            raise SampleError(f"{path}:{number} is no reply with faces: {error!r}") from None
    return faces


def _face(rows: list[dict[str, Any]]) -> SpokenFace:
    groups: dict[str, dict[str, float]] = {"expression": {}, "pose": {}, "shape": {}}
    for row in rows:
        if row["group"] in groups:
            value = float(row["value"])
            if not math.isfinite(value):
                raise ValueError(f"{row['name']} is {value}")
            groups[row["group"]][str(row["name"])] = value
    pose = groups["pose"]
    shape = np.array(list(groups["shape"].values()))
    return SpokenFace(groups["expression"], pose.get("jaw_x", 0.0), pose.get("head_x", 0.0), shape)

"""Movements of a head by name, as people type them: `smile` for mouthSmileLeft and mouthSmileRight."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

from facegpt.errors import SampleError
from facegpt.head.model import HeadModel

STRONGEST = 3.0  # of a movement, either way; beyond, nothing is a face


def expression_names(head: HeadModel) -> list[str]:
    """A name for every expression component; FLAME's are only numbered."""
    known = head.expression_names
    return [*known, *(f"expression_{k}" for k in range(len(known), head.layout.expression))]


def find_components(word: str, names: Sequence[str]) -> list[int]:
    """The components that a word means: the one of this name, or both sides of the one movement that has it.

    Raises SampleError for a word that means none or several.
    """
    if word in names:
        return [names.index(word)]
    movements: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        movements.setdefault(name.removesuffix("Left").removesuffix("Right"), []).append(index)
    found = [name for name in movements if word.lower() == name.lower()]
    found = found or [name for name in movements if word.lower() in name.lower()]
    if len(found) == 1:
        return movements[found[0]]
    if found:
        raise SampleError(f"{word} can be {', '.join(found)}; say which")
    near = difflib.get_close_matches(word, movements, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "/expression lists them"
    raise SampleError(f"there is no movement {word[:40]}; {hint}")


def read_strength(number: str) -> float:
    """How strong a movement is to be. Raises SampleError for what is no number of a usual size."""
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not abs(strength) <= STRONGEST:
        raise SampleError("how strong? write a number, 0 for absent and 1 for full, as in `smile 0.5`")
    return strength

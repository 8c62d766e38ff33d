"""The speculative benchmark's situations, and how a model is asked about them.

A situation tells what happens to somebody and neither what they feel nor how they look; its feeling, and the
action units that show it, are what the face is scored with. Written by hand, apart from all training texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegpt.chat import Request, check_text
from facegpt.errors import SampleError
from facegpt.evaluation.action_units import ACTION_UNITS, FEELINGS, INTENSITIES
from facegpt.files import read_jsonl

SPLITS = ("dev", "test")
WORDINGS = 3  # of a situation: its own and two paraphrases
# What is asked after a situation or a description; each row has one of them, so that no wording decides
# alone.
ASKS = (
    "Show me the face that goes with it.",
    "Which face belongs to that moment? Please show it in 3D.",
    "Give me the 3D face of that moment.",
    "Could I see the face in 3D?",
    "Draw the face for me.",
    "I want to see that face as a 3D head.",
)
TEXTS = ("id", "feeling", "split", "situation", "explicit")


@dataclass(frozen=True)
class Situation:
    """One line of the benchmark.

    wordings: the situation and its paraphrases. explicit: the same face described in words, without a
    situation. key_nouns: what it is about; they occur in no training text that bears a face.
    action_units: unit -> (lowest, highest) FACS intensity of a right face. still: units that should not move.
    """

    id: str
    feeling: str
    split: str
    wordings: tuple[str, ...]
    explicit: str
    key_nouns: tuple[str, ...]
    action_units: dict[str, tuple[str, str]]
    still: tuple[str, ...]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Unit -> lowest and highest strength (`INTENSITIES`) of a right face."""
        return {
            unit: (INTENSITIES[low][0], INTENSITIES[high][1])
            for unit, (low, high) in self.action_units.items()
        }


def read_situations(path: str | Path, split: str | None = None, most: int = 0) -> list[Situation]:
    """The situations of a JSON-lines file, of one split where it is given, at most `most` a feeling (0: all).

    Raises SampleError, naming file and row, for a row of another form and an id that comes twice; and where
    nothing is left.
    """
    if not Path(path).is_file():
        raise SampleError(f"{path} is not a file; give a JSON-lines file of situations")
    found: dict[str, Situation] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            situation = _situation(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SampleError(f"row {number} of {path} is no situation: {error}") from None
        except SampleError as error:
            raise SampleError(f"row {number} of {path}: {error}") from None
        if situation.id in found:
            raise SampleError(f"row {number} of {path} has the id {situation.id} again; rename it")
        found[situation.id] = situation
    chosen: list[Situation] = []
    for situation in found.values():
        there = sum(other.feeling == situation.feeling for other in chosen)
        if split in (None, situation.split) and (not most or there < most):
            chosen.append(situation)
    if not chosen:
        raise SampleError(f"{path} has no situation of the split {split}; use one of {', '.join(SPLITS)}")
    return chosen


def speculative_requests(situations: Sequence[Situation]) -> list[Request]:
    """What a model is asked, `WORDINGS` + 1 requests for each situation.

    Their ids are `request_id`'s. The request after a text is the same in all wordings of a situation.
    """
    requests = []
    for number, situation in enumerate(situations):
        ask = ASKS[number % len(ASKS)]
        texts = {str(place): text for place, text in enumerate(situation.wordings)}
        for name, text in {**texts, "explicit": situation.explicit}.items():
            requests.append(Request(request_id(situation, name), f"{text} {ask}"))
    return requests


def request_id(situation: Situation, wording: str) -> str:
    """The id of a request: fear-03_0, fear-03_1, fear-03_2 for the wordings, fear-03_explicit."""
    return f"{situation.id}_{wording}"


def _situation(row: dict[str, Any]) -> Situation:
    for key in TEXTS:
        if not isinstance(row[key], str):
            raise TypeError(f"'{key}' must be a text")
    wordings = (row["situation"], *row["paraphrases"])
    if len(wordings) != WORDINGS:
        raise ValueError(f"it has {len(wordings) - 1} paraphrases, {WORDINGS - 1} are needed")
    for text in (*wordings, row["explicit"]):
        check_text(text)
    if row["feeling"] not in FEELINGS or row["split"] not in SPLITS:
        raise ValueError(f"feeling must be one of {', '.join(FEELINGS)}, and split dev or test")
    units = {unit: (str(low), str(high)) for unit, (low, high) in row["action_units"].items()}
    letters = {letter for ends in units.values() for letter in ends}
    still = tuple(row["still"])
    if not {*units, *still} <= ACTION_UNITS.keys() or not letters <= INTENSITIES.keys():
        raise ValueError("action units or their intensities are not those of facegpt.evaluation.action_units")
    return Situation(
        row["id"],
        row["feeling"],
        row["split"],
        wordings,
        row["explicit"],
        tuple(row["key_nouns"]),
        units,
        still,
    )

"""facegpt fetch [NAME ...]

Gets real parts that others made into the cache: `facegpt fetch face_landmarker`, `facegpt fetch small` for
those of the small LLaVA, `facegpt fetch all`. A part that is there already needs no network. Without a name:
the parts, their licences, and which are there. FACEGPT_HOME names the folder of the cache; with
FACEGPT_OFFLINE=1 nothing is reached for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from facegpt.config import parse_config
from facegpt.parts import PARTS, SMALL, fetch_part, home, part_state

GROUPS = {"small": SMALL, "all": tuple(PARTS)}
STATES = {"found": "found", "missing": "not found", "broken": "damaged"}


@dataclass
class FetchSettings:
    """names: parts to fetch, or small, or all; they stand first, the key can be left out."""

    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in PARTS and name not in GROUPS:
                raise ValueError(f"there is no part '{name[:60]}'; there are {', '.join([*PARTS, *GROUPS])}")


def main(argv: Sequence[str]) -> None:
    plain = list(takewhile(lambda word: "=" not in word and not word.startswith("-"), argv))
    words = [f"names={','.join(plain)}"] if plain else []
    settings = parse_config(FetchSettings, [*words, *argv[len(plain) :]], __doc__)
    names = dict.fromkeys(part for name in settings.names for part in GROUPS.get(name, (name,)))
    if not names:
        print(as_text())
    for name in names:
        print(f"{name}: {fetch_part(name)}", flush=True)


def as_text() -> str:
    """The table of parts, with what is in the cache."""
    rows = [("part", "size", "licence", "state", "what for")]
    for part in PARTS.values():
        size = f"{part.size / 1e6:.1f} MB"
        rows.append((part.name, size, part.license, STATES[part_state(part.name)], part.purpose))
    columns = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(column) for cell, column in zip(row, columns, strict=True)) for row in rows]
    return "\n".join([*(line.rstrip() for line in lines), "", f"cache: {home()}"])

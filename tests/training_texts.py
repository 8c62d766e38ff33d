"""What training texts say, for tests that an evaluation's texts are others.

Training texts are all strings of `facegpt/data/wording/*.yaml` and all string constants of the modules that
make stand-in data.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml
from recipes import ROOT

RUN, MEANT = 5, 2  # a run of five words counts when two of them are no stop words


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; an apostrophe joins (don't -> dont)."""
    return re.findall(r"[^\W_]+", re.sub(r"['’]", "", text.lower()))


STOP_WORDS = frozenset(
    words(
        """
        a an the this that these those some any no not nor each every all both another other one two
        i me my mine myself you your yours he him his himself she her hers herself it its itself we us our
        they them their theirs who whom whose which what somebody someone anybody anyone something anything
        am is are was were be been being do does did doing done have has had having
        can could will would shall should may might must let lets dont doesnt isnt
        im id ill ive youre hes shes thats whats and or but if so as than then because while when where why
        how of in on at by to from with without for into onto out up down over under about after before off
        there here very too just only also now still again even like please pls get got give make made go
        """
    )
)
# A request for a face cannot do without these; alone they tell no situation.
ASKING = frozenset(
    words("face faces look looks looking show picture imagine see render build head expression")
)


def runs(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    every = {tuple(found[i : i + RUN]) for i in range(len(found) - RUN + 1)}
    return {run for run in every if sum(word not in STOP_WORDS for word in run) >= MEANT}


def content(text: str) -> set[str]:
    """The stems, five letters each, of the words that tell what a sentence is about."""
    return {word[:5] for word in words(text) if word not in STOP_WORDS | ASKING and len(word) > 2}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for part in pair for text in strings(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in strings(part))


def sentences(texts: Iterator[str]) -> set[str]:
    """Texts cut at their ends of sentences and where a template puts something in."""
    return {part for text in texts for part in re.split(r"[.!?\n]|\{[^{}]*\}", text) if part.strip()}


@cache
def training_texts() -> frozenset[str]:
    package = ROOT / "facegpt"
    found: set[str] = set()
    for path in sorted((package / "data" / "wording").glob("**/*.y*ml")):
        found |= sentences(strings(yaml.safe_load(path.read_text(encoding="utf-8"))))
    for path in [package / "data" / "templates.py", *sorted((package / "standins").glob("*.py"))]:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        found |= sentences(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return frozenset(found)

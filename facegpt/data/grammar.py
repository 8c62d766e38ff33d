"""Wordings drawn from a small grammar in YAML, so that hundreds of ways to say a thing take a page to write.

A file maps the name of a rule to a text whose lines are its alternatives. In a line `{name}` is one of the
alternatives of a rule, or what the caller puts in, `[...]` is said or left out, and `(a|b)` is a or b:

    ask: |
      [please ]show me {face}
      could you (draw|make) {face}?
    face: |
      her face
      the face in 3D
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from facegpt.errors import ConfigError

FOLDER = Path(__file__).with_name("wording")
DEEPEST = 30  # rules within rules; more is a rule that names itself

# A part of a line: a text, a name in braces, or the alternatives of a bracket, each again a list of parts.
Part = str | tuple[str] | list[list["Part"]]


@dataclass
class Grammar:
    """Rules by name, each with its alternatives as parts; `source` appears in messages."""

    rules: dict[str, list[list[Part]]]
    source: str = "the grammar"

    def say(self, rng: random.Random, rule: str, **slots: str) -> str:
        """A text of `rule`; `{name}` takes the text of `slots` where there is one, literally.

        "a" before a vowel becomes "an" and each sentence starts with a capital letter.
        Raises ConfigError for a name that is neither a rule nor a slot.
        """
        return tidy(self._draw(rng, rule, slots, 0))

    def raw(self, rng: random.Random, rule: str, **slots: str) -> str:
        """As `say`, but as a piece of a sentence: no capital letters are put in."""
        return with_articles(" ".join(self._draw(rng, rule, slots, 0).split()))

    def count(self, rule: str, depth: int = 0) -> int:
        """In how many ways `rule` can be said, a slot counted as one; ConfigError when it names itself."""
        if depth > DEEPEST:
            raise ConfigError(f"{{{rule}}} names itself in {self.source}; write it without a circle")
        return sum(self._count_line(line, depth) for line in self.rules.get(rule, [[]]))

    def wordings(self, rule: str, count: int, **slots: str) -> list[str]:
        """`count` different texts of `rule`, or as many as 20 draws for each find; always the same ones."""
        rng, found = random.Random(rule), dict[str, None]()
        for _ in range(20 * count):
            found.setdefault(self.say(rng, rule, **slots))
            if len(found) == count:
                break
        return list(found)

    def _count_line(self, line: list[Part], depth: int) -> int:
        ways = 1
        for part in line:
            if isinstance(part, tuple):
                ways *= self.count(part[0], depth + 1)
            elif isinstance(part, list):
                ways *= sum(self._count_line(choice, depth) for choice in part)
        return ways

    def _draw(self, rng: random.Random, rule: str, slots: dict[str, str], depth: int) -> str:
        if rule in slots:
            return slots[rule]
        if rule not in self.rules or depth > DEEPEST:
            fault = "is not a rule" if rule not in self.rules else "names itself"
            raise ConfigError(f"{{{rule}}} {fault} in {self.source}; write other alternatives")
        return self._line(rng, rng.choice(self.rules[rule]), slots, depth)

    def _line(self, rng: random.Random, line: list[Part], slots: dict[str, str], depth: int) -> str:
        said = []
        for part in line:
            if isinstance(part, str):
                said.append(part)
            elif isinstance(part, tuple):
                said.append(self._draw(rng, part[0], slots, depth + 1))
            else:
                said.append(self._line(rng, rng.choice(part), slots, depth))
        return "".join(said)


@lru_cache
def read_grammar(name: str) -> Grammar:
    """The grammar `name`.yaml of this package; ConfigError when a line's brackets do not match."""
    path = FOLDER / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    rules = {
        rule: [parse_line(line, f"{rule} of {path.name}") for line in text.splitlines() if line.strip()]
        for rule, text in content.items()
    }
    return Grammar(rules, path.name)


def parse_line(line: str, where: str = "the line") -> list[Part]:
    """The parts of a line; ConfigError, naming `where`, when its brackets do not match."""
    tokens = re.findall(r"\{\w+\}|[\[\]()|]|[^\[\]()|{}]+", line)
    try:
        [parts], _ = _parse(tokens, "")
        if "".join(tokens) != line:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{line!r} in {where} has brackets that do not match; close what is open") from None
    return parts


def _parse(tokens: list[str], closing: str) -> tuple[list[list[Part]], list[str]]:
    """The alternatives up to the `closing` bracket, and the tokens after it; ValueError without one."""
    choices: list[list[Part]] = [[]]
    while tokens:
        token, *tokens = tokens
        if token == closing:
            return choices, tokens
        if token in ("(", "["):
            inner, tokens = _parse(tokens, ")" if token == "(" else "]")
            choices[-1].append(inner if token == "(" else [*inner, []])
        elif token == "|":
            choices.append([])
        elif token in (")", "]"):
            raise ValueError
        else:
            choices[-1].append((token[1:-1],) if token[0] == "{" else token)
    if closing:
        raise ValueError
    return choices, []


def tidy(text: str) -> str:
    """One space between words, "an" before vowels, a capital letter at the start of each sentence."""
    text = with_articles(" ".join(text.split()))
    return re.sub(r"(^|[^\W\d][.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def with_articles(text: str) -> str:
    """The text with "an" for "a" before a vowel."""
    return re.sub(r"\b([Aa]) (?=[aeiou])(?!one|uni|eu|use)", r"\1n ", text)


def hasty(text: str) -> str:
    """The text as it is typed in haste: no capital letters, no mark at the end, no apostrophes."""
    return text.lower().replace("'", "").rstrip(".!?")

"""The speculative benchmark's situations: their form, that they tell no feeling and no face, and
independence.

Independence from training is of two kinds. No situation shares a run of five words with any training text (as
in test_request_sets). And no key noun of a situation stands in a training text that bears a face: requests,
descriptions, talk, and the texts of the stand-ins; plain questions of everyday life are not among them.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes import ROOT
from training_texts import content, runs, sentences, strings, training_texts, words

from facegpt.errors import SampleError
from facegpt.evaluation.action_units import ACTION_UNITS, FEELINGS
from facegpt.evaluation.speculative_set import (
    ASKS,
    WORDINGS,
    read_situations,
    request_id,
    speculative_requests,
)
from facegpt.files import read_jsonl

SET = ROOT / "eval" / "data" / "speculative.jsonl"
ANATOMY = re.compile(
    r"\b(smil|laugh|grin|frown|cry|cries|weep|sob|blush|wink|yawn|gasp|face|brow|eyelid|lip|lips|cheek|chin|"
    r"mouth|nose|jaw|eye|eyes|skin|forehead|beautiful|handsome|wrinkl)"
)


@cache
def face_bearing_words() -> dict[str, str]:
    """Every word and pair of words of a training text that bears a face -> one such text."""
    texts: set[str] = set()
    for name in ("requests", "descriptions", "talk"):
        path = ROOT / "facegpt" / "data" / "wording" / f"{name}.yaml"
        texts |= sentences(strings(yaml.safe_load(path.read_text(encoding="utf-8"))))
    modules = [ROOT / "facegpt" / "data" / "templates.py", *(ROOT / "facegpt" / "standins").glob("*.py")]
    for path in modules:
        texts |= sentences(iter(spoken_constants(ast.parse(path.read_text(encoding="utf-8")))))
    found = {}
    for text in texts:
        said = words(text)
        found.update({" ".join(said[i : i + n]): text for n in (1, 2) for i in range(len(said) + 1 - n)})
    return found


def spoken_constants(tree: ast.Module) -> list[str]:
    """All strings of a module but its docstrings, which nobody is trained on."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docs)
    return [node.value for node in nodes if isinstance(node.value, str)]


def test_the_set_has_the_numbers_that_were_promised() -> None:
    situations = read_situations(SET)
    assert len(situations) >= 210
    counts = Counter((s.feeling, s.split) for s in situations)
    assert len(FEELINGS) >= 14 and set(counts.values()) == {7} and len(counts) == 2 * len(FEELINGS)


def test_no_text_and_no_key_noun_comes_twice() -> None:
    situations = read_situations(SET)
    texts = Counter(text.lower() for s in situations for text in s.wordings)
    nouns = Counter(noun.lower() for s in situations for noun in s.key_nouns)
    assert max(texts.values()) == 1
    assert [noun for noun, count in nouns.items() if count > 1] == []
    for s in situations:
        assert s.key_nouns and all(any(n.lower() in w.lower() for w in s.wordings) for n in s.key_nouns)


def test_situations_tell_neither_feeling_nor_face() -> None:
    feelings = {word for row in FEELINGS.values() for word in row.words} | FEELINGS.keys()
    told = {}
    for situation in read_situations(SET):
        for text in situation.wordings:
            found = ANATOMY.findall(text.lower()) + sorted(feelings & set(words(text)))
            if found:
                told[text] = found
    assert told == {}


def test_targets_are_those_of_the_feeling_and_named_by_components_too() -> None:
    for row, situation in zip(read_jsonl(SET), read_situations(SET), strict=True):
        feeling = FEELINGS[situation.feeling]
        assert set(situation.action_units) == {*feeling.primary, *feeling.secondary}
        assert situation.still == feeling.still
        for unit, ends in situation.ranges().items():
            parts = ACTION_UNITS[unit].components
            assert unit == "25" or row["components"][parts[0]] == list(ends)


def test_no_situation_shares_five_words_with_a_training_text() -> None:
    trained = {run: text for text in training_texts() for run in runs(text)}
    texts = [text for s in read_situations(SET) for text in s.wordings] + list(ASKS)
    shared = {text: [trained[run] for run in runs(text) & trained.keys()] for text in texts}
    assert {text: found for text, found in shared.items() if found} == {}


def test_no_key_noun_stands_in_a_training_text_that_bears_a_face() -> None:
    known = face_bearing_words()
    shared = {}
    for situation in read_situations(SET):
        for noun in situation.key_nouns:
            said = " ".join(words(noun))
            found = [known[form] for form in (said, f"{said}s", said.removesuffix("s")) if form in known]
            if found:
                shared[situation.id, noun] = found
    assert shared == {}


def test_no_situation_is_told_in_a_training_text() -> None:
    trained = [(text, content(text)) for text in training_texts()]
    trained = [(text, stems) for text, stems in trained if len(stems) >= 3]
    told = {}
    for situation in read_situations(SET):
        for text in situation.wordings:
            own = content(text)
            found = [other for other, theirs in trained if len(own & theirs) >= max(3, len(own) / 2)]
            if found:
                told[text] = found
    assert told == {}


def test_every_situation_is_asked_in_all_wordings_and_described_once() -> None:
    situations = read_situations(SET, "test", 1)
    requests = speculative_requests(situations)
    assert len(situations) == len(FEELINGS) and len(requests) == (WORDINGS + 1) * len(situations)
    texts = {request.id: request.text for request in requests}
    assert len(texts) == len(requests)
    for situation in situations:
        for place, wording in enumerate(situation.wordings):
            assert texts[request_id(situation, str(place))].startswith(wording)
        assert texts[request_id(situation, "explicit")].startswith(situation.explicit)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"feeling": "hunger"}, "feeling must be one of"),
        ({"split": "train"}, "split dev or test"),
        ({"paraphrases": ["One."]}, "it has 1 paraphrases, 2 are needed"),
        ({"action_units": {"99": ["A", "B"]}}, "not those of"),
        ({"action_units": {"4": ["A", "Z"]}}, "not those of"),
        ({"action_units": {"4": "A"}}, "is no situation"),
        ({"situation": 3}, "'situation' must be a text"),
        ({"explicit": "a <FACE>"}, "spells <FACE>"),
        ({"id": "a"}, "has the id a again"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    row = {**read_jsonl(SET)[0], "id": "a"}
    rows = [row, {**row, "id": "b", **change}]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(SampleError, match=f"row 2 of .*{fault}"):
        read_situations(tmp_path / "set.jsonl")


def test_a_missing_file_or_split_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="is not a file"):
        read_situations(tmp_path / "set.jsonl")
    (tmp_path / "set.jsonl").write_text(json.dumps(read_jsonl(SET)[0]) + "\n")
    with pytest.raises(SampleError, match="no situation of the split test"):
        read_situations(tmp_path / "set.jsonl", "test")

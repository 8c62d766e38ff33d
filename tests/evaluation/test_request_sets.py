"""The hand-written requests: their form, their numbers, and that training never saw their words.

Independence: no test item shares a run of five words with a training text, unless at most one of the five is
more than a stop word; and no situation of the test split is told in a training text (`training_texts`).
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from evaluation_world import World
from recipes import ROOT
from training_texts import content, runs, training_texts, words

from facegpt.data.records import read_records
from facegpt.errors import SampleError
from facegpt.evaluation.request_sets import (
    WANTS_FACE,
    Request,
    first_of_each_kind,
    read_requests,
    request_samples,
)
from facegpt.files import read_jsonl

SET = ROOT / "eval" / "data" / "requests.jsonl"
GENERAL = ROOT / "eval" / "data" / "general.jsonl"
COUNTS = {"explicit": 140, "speculative": 160, "photograph": 110, "question": 160, "question_photograph": 150}


def test_the_set_has_the_kinds_and_numbers_that_were_promised() -> None:
    requests = read_requests(SET)
    assert all(Counter(r.kind for r in requests)[kind] >= count for kind, count in COUNTS.items())
    assert sum(WANTS_FACE[r.kind] for r in requests) >= 400
    assert sum(not WANTS_FACE[r.kind] for r in requests) >= 300
    for kind in WANTS_FACE:
        halves = Counter(r.split for r in requests if r.kind == kind)
        assert abs(halves["dev"] - halves["test"]) <= 2


def test_situations_state_feelings_evenly() -> None:
    situations = [r for r in read_requests(SET, "test") if r.kind == "speculative"]
    assert len(situations) >= 70
    counts = Counter(feeling for r in situations for feeling in r.feelings)
    assert len(counts) == 7 and max(counts.values()) <= 1.5 * min(counts.values())
    assert sum(len(r.feelings) == 1 for r in situations) >= 0.85 * len(situations)  # or chance would be high


def test_no_request_comes_twice() -> None:
    texts = [" ".join(words(r.text)) for r in read_requests(SET)]
    texts += [" ".join(words(row["text"])) for row in read_jsonl(GENERAL)]
    assert [text for text, count in Counter(texts).items() if count > 1] == []


def test_no_request_of_the_test_split_is_nearly_one_of_dev() -> None:
    dev = [(r.id, runs(r.text)) for r in read_requests(SET, "dev")]
    test = [(r.id, runs(r.text)) for r in read_requests(SET, "test")]
    assert [(a, b) for a, ours in test for b, theirs in dev if len(ours & theirs) >= 3] == []


def test_general_questions_have_their_form() -> None:
    rows = read_jsonl(GENERAL)
    assert len(rows) >= 60 and len({row["id"] for row in rows}) == len(rows)
    assert all(row.keys() == {"id", "text"} and row["text"] for row in rows)


def test_no_test_item_shares_five_words_with_a_training_text() -> None:
    trained = {run: text for text in training_texts() for run in runs(text)}
    shared = {
        r.id: {" ".join(run): trained[run] for run in runs(r.text) & trained.keys()}
        for r in read_requests(SET, "test")
    }
    assert {name: found for name, found in shared.items() if found} == {}


def test_no_situation_of_the_test_split_is_told_in_a_training_text() -> None:
    trained = [(text, content(text)) for text in training_texts()]
    told = {}
    for request in read_requests(SET, "test"):
        if request.kind == "speculative":
            own = content(request.text)
            found = [text for text, theirs in trained if len(own & theirs) >= max(3, len(own) / 2)]
            if found:
                told[request.id] = found
    assert told == {}


def test_the_test_of_independence_finds_what_is_shared() -> None:
    assert runs("Show me the grumpy old baker!") & runs("please show me the GRUMPY, old baker")
    assert not runs("What is it that you have in there") & runs("what is it that you have")
    assert runs("don't touch the red wire") == runs("dont touch the red wire")
    text = "His flight was cancelled and he sleeps on the airport floor."
    assert len(content(text) & content("The airport cancels his flight")) == 3


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"kind": "demand"}, "kind must be one of"),
        ({"split": "train"}, "split dev or test"),
        ({"feelings": ["hunger"]}, "feelings must be some of"),
        ({"feelings": []}, "a speculative request needs one"),
        ({"text": ""}, "not of the form"),
        ({"text": "show me <FACE>"}, "spells <FACE>"),
        ({"note": "x"}, "not of the form"),
        ({"id": "a"}, "has the id a again"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    row = {"id": "a", "kind": "speculative", "text": "He won.", "split": "dev", "feelings": ["happiness"]}
    rows = [row, {**row, "id": "b", **change}]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(SampleError, match=f"row 2 of .*{fault}"):
        read_requests(tmp_path / "set.jsonl")


def test_a_missing_set_or_split_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="is not a file"):
        read_requests(tmp_path / "set.jsonl")
    row = {"id": "a", "kind": "question", "text": "Why?", "split": "dev"}
    (tmp_path / "set.jsonl").write_text(json.dumps(row) + "\n")
    assert read_requests(tmp_path / "set.jsonl", "dev") == [Request("a", "question", "Why?", "dev")]
    with pytest.raises(SampleError, match="no requests of the split test"):
        read_requests(tmp_path / "set.jsonl", "test")


def test_every_photograph_is_shown_before_one_comes_again(world: World) -> None:
    records = read_records(world.path / "faces")
    requests = [Request(f"q{n}", "question_photograph", "How old?", "dev") for n in range(30)]
    requests.append(Request("plain", "explicit", "a grin", "dev"))
    samples = request_samples(requests, records, seed=3)
    shown = [sample.images[0].tobytes() for sample in samples[:-1]]
    assert len(set(shown[: len(records)])) == len(records) and samples[-1].images == []
    again = request_samples(requests, records, seed=3)
    assert [sample.images[0].tobytes() for sample in again[:-1]] == shown


def test_the_first_of_each_kind_keep_their_order() -> None:
    requests = [Request(str(n), kind, "x", "dev") for n, kind in enumerate("aabab")]
    assert [r.id for r in first_of_each_kind(requests, 2)] == ["0", "1", "2", "4"]
    assert first_of_each_kind(requests, 0) == requests

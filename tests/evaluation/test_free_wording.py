"""The recipe that asks in free wording, from command line to file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from evaluation_world import World
from recipes import load_recipe

from facegpt.config import run as run_recipe
from facegpt.evaluation import evaluated_model as evaluation
from facegpt.evaluation.expression_prototypes import COMPONENTS
from facegpt.evaluation.request_sets import Request
from facegpt.head.model import HeadModel
from facegpt.model.generation import Reply
from facegpt.sample import FACE_TOKEN, Sample

free_wording = load_recipe("eval/free_wording.py")


def run(world: World, name: str, out: Path, *more: str) -> dict:
    free_wording.main(world.words(name, out, "n=4", *more))
    return json.loads(out.read_text())


def test_a_model_that_always_speaks_a_face_gets_all_requests_and_all_questions_wrong(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sample] = []
    original = evaluation.answer

    def spy(model: object, samples: list[Sample], *rest: int) -> list[Reply]:
        seen.extend(samples)
        return original(model, samples, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "answer", spy)
    result = run(world, "speaks", tmp_path / "f.json", "split=dev")
    assert result["n"] == len(seen) == 20 and result["split"] == "dev"
    pictures = {"photograph", "question_photograph"}
    assert all(len(sample.images) == (sample.id.rsplit("-", 1)[0] in pictures) for sample in seen)
    shares = {name: found["share"] for name, found in result["emission"].items()}
    assert shares["requests"] > 0.5 and shares["questions"] > 0.5
    assert result["emission"]["requests"]["n"] == 12 and result["emission"]["questions"]["n"] == 8
    wanted = {name for name, found in result["emission"].items() if found["wanted"]}
    assert wanted == {"explicit", "speculative", "photograph", "requests"}
    assert result["feelings"] == {}  # the small head's components have other names
    assert result["command"].startswith("python ")
    for row in result["replies"]:
        assert len(row["probabilities"]) == row["faces"] == row["reply"].count(FACE_TOKEN)


def test_a_silent_model_has_no_false_positives(world: World, tmp_path: Path) -> None:
    result = run(world, "silent", tmp_path / "f.json")
    assert {found["with_face"] for found in result["emission"].values()} == {0}
    low, high = result["emission"]["questions"]["interval"]
    assert low == 0.0 and high == pytest.approx(0.3244, abs=1e-3)  # Wilson's for 0 of 8


def test_faces_are_scored_by_what_they_show() -> None:
    head = HeadModel.builtin()
    smiling = head.mean_parameters()
    for index, name in enumerate(head.expression_names):
        smiling.expression[0, index] = 0.7 * name.startswith(("mouthSmile", "cheekSquint"))
    words = [("a", "speculative", ("happiness",)), ("b", "speculative", ("fear",)), ("c", "explicit", ())]
    requests = [Request(name, kind, "text", "dev", feelings) for name, kind, feelings in words]
    replies = [
        Reply(FACE_TOKEN, torch.zeros(1), smiling, torch.ones(1)),
        Reply("no", torch.zeros(1), None, torch.ones(0)),
        Reply(FACE_TOKEN, torch.zeros(1), head.mean_parameters(), torch.ones(1)),
    ]
    evaluated = SimpleNamespace(head=head, mean_face=head.mean_parameters)
    rows = free_wording.reply_rows(requests, replies, evaluated)
    assert [row.get("shows") for row in rows] == ["happiness", None, "neutral"]
    assert rows[0]["expression"]["mouthSmile"] == 0.7 and rows[0]["expression"].keys() == set(COMPONENTS)
    found = free_wording.feelings(rows)
    assert found.keys() == {"speculative"}
    assert (found["speculative"]["right"], found["speculative"]["with_face"]) == (1, 1)
    assert found["speculative"]["confusion"]["fear"]["no face"] == 1


@pytest.mark.parametrize(
    ("word", "fault"), [("split=train", "split must be one of"), ("n=-1", "n must be at least 0")]
)
def test_impossible_settings_are_refused(
    world: World, tmp_path: Path, word: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main: Callable[[list[str]], None] = free_wording.main
    assert run_recipe(main, world.words("silent", tmp_path / "f.json", word)) == 2
    assert fault in capsys.readouterr().err and not (tmp_path / "f.json").exists()

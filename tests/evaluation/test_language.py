"""The recipe that asks whether a trained model still speaks as its backbone did."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from evaluation_world import World
from recipes import load_recipe
from small_facegpt import small_facegpt

from facegpt.chat import answer, question
from facegpt.config import run as run_recipe
from facegpt.data.collate import collate_prompts
from facegpt.sample import FACE_TOKEN

language = load_recipe("eval/language.py")


def words(world: World, name: str, out: Path, *more: str) -> list[str]:
    return [word for word in world.words(name, out, *more) if not word.startswith("data=")]


def test_a_model_that_nothing_was_changed_in_is_the_untouched_one(world: World, tmp_path: Path) -> None:
    language.main(words(world, "silent", tmp_path / "l.json", "n=3"))
    result = json.loads((tmp_path / "l.json").read_text())
    assert result["n"] == 6 and result["equal_answers"]["share"] == 1.0 and result["with_face"] == 0
    assert result["relative_change"] == pytest.approx(0.0, abs=1e-6)
    assert [row["id"].split("-")[0] for row in result["replies"]] == ["question"] * 3 + ["general"] * 3


def test_a_model_that_says_faces_is_compared_with_its_backbone(world: World, tmp_path: Path) -> None:
    language.main(words(world, "speaks", tmp_path / "l.json", "n=3"))
    result = json.loads((tmp_path / "l.json").read_text())
    assert result["with_face"] > 0 and result["equal_answers"]["share"] < 1.0
    assert all(FACE_TOKEN not in row["untouched"] for row in result["replies"])
    assert result["relative_change"] > 0


def test_losses_are_those_of_one_answer_after_the_other() -> None:
    model = small_facegpt()
    samples = [question(text, None, text) for text in ("Why?", "What is a jaw, and what is it for?", "Who")]
    replies = answer(model, samples, 5)
    together = language.answer_losses(model, samples, replies, batch=3)
    for sample, reply, losses in zip(samples, replies, together, strict=True):
        ids = collate_prompts([sample], model.processor).input_ids
        for number, token in enumerate(reply.ids.tolist()):
            with torch.no_grad():
                hidden = model.hidden_states(ids, torch.ones_like(ids), None).states[0, -1]
                chances = model.vlm.get_output_embeddings()(hidden).softmax(-1)
            assert losses[number].item() == pytest.approx(-math.log(chances[token]), abs=1e-4)
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
        assert len(losses) == len(reply.ids)


def test_a_merged_model_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = language.open_evaluated_model

    def merged(*arguments: str, merge: bool) -> object:
        return original(*arguments, merge=True)

    monkeypatch.setattr(language, "open_evaluated_model", merged)
    assert run_recipe(language.main, words(world, "silent", tmp_path / "l.json", "n=1")) == 1
    assert "is merged" in capsys.readouterr().err and not (tmp_path / "l.json").exists()


def test_a_broken_general_question_is_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "general.jsonl").write_text('{"id": "a"}\n')
    more = [f"general={tmp_path / 'general.jsonl'}"]
    assert run_recipe(language.main, words(world, "silent", tmp_path / "l.json", *more)) == 1
    assert "row 1 of" in capsys.readouterr().err

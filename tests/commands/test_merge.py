"""The verb merge: one folder that needs neither adapter nor backbone, and nothing overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_head import small_head
from talking_model import gray_image, talking_model
from transformers import AutoModelForImageTextToText

from facegpt.chat import ChatSession
from facegpt.commands import merge
from facegpt.config import run
from facegpt.model.checkpoint import load_facegpt, save_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merge")
    model = talking_model(small_head(), path / "llava")
    save_checkpoint(model, path / "run" / "checkpoints" / "step_000002", small_head().id)
    return path


def test_a_merged_model_says_the_same_without_the_backbone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    assert run(merge.main, [f"checkpoint={folder / 'run'}", f"out={out}", "dtype=float32"]) == 0
    assert str(out) in capsys.readouterr().out
    before, _ = load_facegpt(folder / "run" / "checkpoints" / "step_000002", small_head())
    shutil.copytree(out, tmp_path / "elsewhere")
    after, _ = load_facegpt(tmp_path / "elsewhere", small_head())
    turns = [ChatSession(model, 4).say("Show me the face.", gray_image()) for model in (before, after)]
    assert turns[0].text == turns[1].text and len(turns[0].faces) == len(turns[1].faces) > 0
    for one, other in zip(turns[0].faces, turns[1].faces, strict=True):
        assert torch.allclose(one.to_vector(), other.to_vector(), atol=1e-4)
    assert AutoModelForImageTextToText.from_pretrained(out).config.model_type == "llava"
    assert json.loads((out / "facegpt.json").read_text())["lora"] is None


def test_bad_input_is_one_sentence_and_nothing_is_replaced(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for words, says, code in (
        ([f"checkpoint={folder / 'run'}", f"out={tmp_path / 'mine'}"], "exists already", 1),
        ([f"checkpoint={tmp_path}", f"out={tmp_path / 'new'}"], "holds no checkpoint", 1),
        ([f"checkpoint={folder / 'run'}"], "no value for out", 2),
    ):
        assert run(merge.main, words) == code
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"

"""Every wrong input is found before the first step and is one sentence; nothing is written."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace

import pytest
from recipes import ROOT, load_recipe
from small_head import small_head_data
from torch import nn

from facegpt.errors import ConfigError
from facegpt.head.files.format import save_head
from facegpt.perception.recognizer import Recognizer
from facegpt.training import prepare as preparation
from facegpt.training.engine import start_ranks

train = load_recipe("train/train.py")


def said(monkeypatch, capfd, overrides, code=1):
    """What the recipe says with these arguments; it trains only if the exit code is to be 0."""
    began = []
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    monkeypatch.setattr(train, "train", lambda *_: began.append(1))
    capfd.readouterr()
    assert train.main(sys.argv[1:]) in (code, 2 * code)  # 2: the settings say something impossible
    assert bool(began) == (code == 0)
    start = "error: " if code else "note: "
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith(start)]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.face_head.scales={poes: [0.6]}", "poes"),
        ("model.face_head.scales={pose: [0.6, 0.1]}", "pose"),
        ("model.face_head.widths=[0]", "face_head.widths"),
        ("model.lora.targets=[spiral_proj]", "no linear layer spiral_proj"),
        ("model.lora.targets=[]", "lora.targets"),
        ("model.lora.rank=0", "lora.rank"),
        ("model.lora.dropout=1.5", "lora.dropout"),
        ("optimization.lr=nan", "optimization.lr"),
        ("optimization.lr=inf", "optimization.lr"),
        ("optimization.clip=nan", "optimization.clip"),
        ("optimization.weight_decay=inf", "optimization.weight_decay"),
        ("optimization.betas=[2,3]", "optimization.betas"),
        ("objective.pixel=nan", "objective.pixel"),
        ("data.sources.chat.weight=inf", "data.sources.chat.weight"),
        ("data.check=-2", "data.check"),
        ("checkpoint.every=-5", "checkpoint.every"),
        ("validation.max_new_tokens=0", "validation.max_new_tokens"),
        ("validation.pictures=-1", "validation.pictures"),
        ("seed=100000000000000000000000", "seed"),
    ],
)
def test_an_impossible_value_is_one_sentence(world, ranks, monkeypatch, capfd, tmp_path, override, words):
    (line,) = said(monkeypatch, capfd, world.overrides(tmp_path / "run", override))
    assert words in line
    assert not (tmp_path / "run").exists()


def test_a_head_without_landmarks_is_refused(world, ranks, monkeypatch, capfd, tmp_path):
    names = [f"{kind}_{part}" for kind in ("landmark", "contour") for part in ("triangles", "barycentric")]
    save_head(replace(small_head_data(), **dict.fromkeys(names)), tmp_path / "head.npz")
    overrides = world.overrides(tmp_path / "run", f"model.head={tmp_path / 'head.npz'}")
    (line,) = said(monkeypatch, capfd, overrides)
    assert "head.npz has no landmarks to train with" in line


def test_what_a_head_without_masks_and_texture_cannot_teach_is_one_line(
    world, ranks, monkeypatch, capfd, tmp_path
):
    names = ("texture_mean", "texture_basis", "uv", "uv_triangles")
    bare = replace(small_head_data(), regions={}, albedo_names=[], **dict.fromkeys(names))
    save_head(bare, tmp_path / "head.npz")
    overrides = world.overrides(tmp_path / "run", f"model.head={tmp_path / 'head.npz'}")
    (line,) = said(monkeypatch, capfd, overrides, code=0)
    assert "no mask of the face" in line and "no texture" in line
    assert said(monkeypatch, capfd, world.overrides(tmp_path / "run"), code=0) == []


def test_a_recognizer_of_another_input_is_refused(world, ranks, monkeypatch, capfd, tmp_path):
    gray = Recognizer(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()))
    monkeypatch.setattr(preparation, "load_recognizer", lambda name: gray)
    (line,) = said(monkeypatch, capfd, world.overrides(tmp_path / "run"))
    assert "cannot read aligned RGB faces of 112 x 112 pixels" in line
    monkeypatch.setattr(preparation, "load_recognizer", lambda name: Recognizer(nn.Conv2d(3, 4, 3)))
    (line,) = said(monkeypatch, capfd, world.overrides(tmp_path / "run"))
    assert "(1, 4, 110, 110) for one face instead of one row" in line


@pytest.mark.parametrize("content", ["[]", "7", "{", b"\xff\xfe", "[" * 100_000])
def test_a_deepspeed_file_that_is_no_json_object_is_refused(
    world, ranks, monkeypatch, capfd, tmp_path, content
):
    path = tmp_path / "zero.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    overrides = world.overrides(tmp_path / "run", f"optimization.deepspeed={path}")
    (line,) = said(monkeypatch, capfd, overrides)
    assert "zero.json" in line


def test_what_deepspeed_would_refuse_later_is_refused_now(world, ranks, monkeypatch, capfd, tmp_path):
    path = tmp_path / "zero.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": "two"}}))
    overrides = world.overrides(tmp_path / "run", f"optimization.deepspeed={path}")
    (line,) = said(monkeypatch, capfd, overrides)
    assert "zero.json" in line and "stage" in line


def test_a_run_that_would_lie_under_a_file_is_refused(world, ranks, monkeypatch, capfd, tmp_path):
    (tmp_path / "file").write_text("mine")
    (line,) = said(monkeypatch, capfd, world.overrides(tmp_path / "file" / "runs" / "a"))
    assert "file is a file" in line and (tmp_path / "file").read_text() == "mine"


def test_the_deepspeed_file_of_a_configuration_is_found_from_any_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = "configs/deepspeed/zero2.json"
    assert train.from_here_or_root(given) == str(ROOT / given)
    (tmp_path / "configs" / "deepspeed").mkdir(parents=True)
    (tmp_path / given).write_text("{}")
    assert train.from_here_or_root(given) == given
    assert train.from_here_or_root("nowhere.json") == "nowhere.json"


def test_a_missing_deepspeed_is_a_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="DeepSpeed, which is not installed"):
        start_ranks()

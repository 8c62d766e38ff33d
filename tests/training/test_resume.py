"""A resumed run does what the uninterrupted one would have done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


@pytest.mark.parametrize("stage", ["zero0", "zero1", "zero2", "zero3", "zero3 in parts"])
def test_resuming_repeats_the_losses_of_the_uninterrupted_run(world, run_training, tmp_path, stage):
    zero: dict[str, float] = {"stage": int(stage[4])}
    if stage.endswith("parts"):
        zero["stage3_param_persistence_threshold"] = 0  # split even the small ones, which are all here
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": zero}))
    more = [
        f"optimization.deepspeed={tmp_path / 'zero.json'}",
        "checkpoint.keep=0",
        f"validation.path={world.path / 'faces'}",
        "validation.every=1",
        "validation.faces=1",
        "validation.max_new_tokens=2",
    ]
    whole = run_training(world.settings(tmp_path / "whole", *more))
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    shutil.rmtree(cut / "checkpoints" / "step_000004")
    resumed = run_training(world.settings(cut, *more, "resume=true"))
    assert [(row["step"], row["kind"]) for row in resumed] == [
        (step, kind) for step in (1, 2, 3, 4) for kind in ("train", "validation")
    ]
    for expected, actual in zip(whole, resumed, strict=True):
        assert _measured(actual) == pytest.approx(_measured(expected), rel=1e-5)
    for name in ("adapter.safetensors", "face_head.safetensors"):
        weights = [load_file(run / "checkpoints/step_000004" / name) for run in (tmp_path / "whole", cut)]
        assert weights[0].keys() == weights[1].keys()
        assert all(weights[0][key].equal(weights[1][key]) for key in weights[0])
    losses = [row["loss"] for row in whole if row["kind"] == "train"]
    assert len(set(losses)) == 4


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_a_bfloat16_backbone_trains_under_autocast_with_float32_parts(world, run_training, tmp_path, stage):
    more = [
        f"optimization.deepspeed=configs/deepspeed/{stage}.json",
        "model.dtype=bfloat16",
        "model.lora.dropout=0",
    ]
    rows = run_training(world.settings(tmp_path / "half", *more))
    full = run_training(world.settings(tmp_path / "full", "model.dtype=float32", "model.lora.dropout=0"))
    for half, whole in zip(rows, full, strict=True):
        assert half["loss"] == pytest.approx(whole["loss"], rel=0.02) and half["loss"] != whole["loss"]
    adapter = load_file(tmp_path / "half" / "checkpoints" / "step_000004" / "adapter.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}


def test_a_stop_between_two_lines_of_metrics_changes_none_of_them(world, run_training, tmp_path):
    more = ["logging.every=3", "optimization.steps=6", "checkpoint.every=2", "checkpoint.keep=-1"]
    whole = run_training(world.settings(tmp_path / "whole", *more))
    cut = Path(shutil.copytree(tmp_path / "whole", tmp_path / "cut"))
    for step in ("step_000006", "step_000004"):
        shutil.rmtree(cut / "checkpoints" / step)
    resumed = run_training(world.settings(cut, *more, "resume=true"))
    assert [row["step"] for row in resumed] == [3, 6]
    assert [_measured(row) for row in resumed] == [_measured(row) for row in whole]


def _measured(row):
    """Losses, learning rates and gradient norm: all but what depends on the clock."""
    return {key: value for key, value in row.items() if not key.startswith(("kind", "time", "speed"))}

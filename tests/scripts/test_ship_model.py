"""A checkpoint that ships says what the original says, in half the bytes and without its optimizer."""

from __future__ import annotations

from pathlib import Path

import torch
from recipes import load_recipe
from safetensors.torch import load_file
from small_facegpt import small_backbone, small_facegpt

from facegpt.model.checkpoint import ADAPTER, FACE_HEAD, load_facegpt, save_checkpoint


def test_weights_are_rounded_and_nothing_else_comes_along(tmp_path: Path) -> None:
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step_000003"
    model = small_facegpt()
    save_checkpoint(model, checkpoint, "builtin-1")
    (checkpoint / "optimizer.bin").write_bytes(b"x" * 100)
    (run / "metrics.jsonl").write_text("{}\n")
    load_recipe("scripts/ship_model.py").main([f"checkpoint={checkpoint}", f"out={tmp_path / 'small'}"])
    small = tmp_path / "small"
    assert sorted(file.name for file in small.iterdir()) == sorted(
        [ADAPTER, FACE_HEAD, "facegpt.json", "metrics.jsonl"]
    )
    for name in (ADAPTER, FACE_HEAD):
        before, after = load_file(checkpoint / name), load_file(small / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[key], value.bfloat16()) for key, value in before.items())
    loaded, _ = load_facegpt(small, None, dtype="float32", backbone=small_backbone(8))
    states = torch.randn(3, model.face_head.network[0].normalized_shape[0])
    with torch.no_grad():
        assert torch.allclose(loaded.face_head(states), model.face_head(states), rtol=0.03, atol=0.03)

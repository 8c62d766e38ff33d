"""Two ranks with unlike batches do what one process without DeepSpeed does with all of them at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
import two_ranks
from small_head import small_head
from torch.nn.functional import cross_entropy

from facegpt.model.checkpoint import load_facegpt
from facegpt.model.generation import generate
from facegpt.render.renderer import render


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of both ranks in all variants, and the folder of their runs; fails when a rank hangs."""
    out = tmp_path_factory.mktemp("two_ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, two_ranks.__file__, str(out)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, 0]
    results = {name: torch.load(out / f"{name}.pt", weights_only=True) for name in two_ranks.VARIANTS}
    return results, out


@pytest.fixture(scope="module")
def expected():
    """The same steps in plain PyTorch: one graph over all conversations, no DeepSpeed, no shortcut."""
    model, optimization = two_ranks.build(), two_ranks.settings().optimization
    objective, head = two_ranks.objective(model), small_head()
    batches = [
        two_ranks.batch(model, kind, 10 * rank + n)
        for rank, kinds in enumerate(two_ranks.PLAN)
        for n, kind in enumerate(kinds)
    ]
    face_head = [p for n, p in model.named_parameters() if p.requires_grad and n.startswith("face_head")]
    others = [p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("face_head")]
    optimizer = torch.optim.AdamW([{"params": others}, {"params": face_head}], weight_decay=0.0)
    rows = []
    for ramp in (1 / 2, 3 / 4, 1.0):  # linear from lr / warmup to lr in two steps
        optimizer.param_groups[0]["lr"] = optimization.lr * ramp
        optimizer.param_groups[1]["lr"] = optimization.face_head_lr * ramp
        text, face = [], []
        for batch in batches:
            out = model(batch)
            text.append(cross_entropy(out.logits, out.labels, reduction="none"))
            if batch.faces is not None:
                rendering = render(head, out.face_parameters, two_ranks.SIZE)
                face.append(objective(rendering, out.face_parameters, batch.faces)[0])
        loss = torch.cat(text).mean() + 0.1 * torch.cat(face).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([*others, *face_head], optimization.clip)
        optimizer.step()
        rows.append(
            {"loss": loss.item(), "loss/face": torch.cat(face).mean().item(), "grad_norm": norm.item()}
        )
    replies = [
        generate(model, *two_ranks.prompt_of(model, rank), max_new_tokens=6)[0].ids.tolist()
        for rank in range(2)
    ]
    return rows, {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}, replies


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_losses_and_gradient_norms_are_those_of_plain_pytorch(found, expected, stage):
    for actual, row in zip(found[0][stage]["rows"], expected[0], strict=True):
        assert {key: actual[key] for key in row} == pytest.approx(row, rel=1e-4)
        assert actual["clipped"] == 1.0  # norms of 7, clipped to 1


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_weights_after_some_steps_are_those_of_plain_pytorch(found, expected, stage):
    weights = expected[1]
    assert found[0][stage]["weights"].keys() == weights.keys()
    start = {n: p.detach() for n, p in two_ranks.build().named_parameters()}
    for name, value in weights.items():
        moved = (value - start[name]).abs().max()
        assert moved > 1e-4, f"{name} was not trained"
        # AdamW divides by the gradient's size, so entries without a gradient to speak of are noise.
        close = (found[0][stage]["weights"][name] - value).abs() < 0.02 * moved
        assert close.float().mean() > 0.99, name


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_ranks_generate_at_once_what_the_plain_model_generates(found, expected, stage):
    assert found[0][stage]["replies"] == expected[2]


def test_zero_3_splits_every_weight_and_zero_2_none(found):
    whole = sum(p.numel() for p in two_ranks.build().parameters())
    assert found[0]["zero2"]["held"] == whole
    assert found[0]["zero3"]["held"] == found[0]["zero3 bfloat16"]["held"] == 0


@pytest.mark.parametrize("variant", two_ranks.VARIANTS)
def test_a_checkpoint_of_split_weights_is_whole_and_goes_on_as_if_nothing_had_been(found, variant):
    results, folder = found
    weights, further = results[variant]["weights"], results[variant]["further"]
    for name, value in results[variant]["resumed"].items():
        assert torch.allclose(value, further[name], rtol=1e-5, atol=1e-7), name
        assert not value.equal(weights[name]), name
    backbone = two_ranks.backbone()
    checkpoint = folder / variant / "checkpoints" / "step_000003"
    loaded, _ = load_facegpt(checkpoint, small_head(), dtype="float32", backbone=backbone)
    saved = dict(loaded.named_parameters())
    for name, value in weights.items():
        assert saved[name].equal(value) and value.dtype == torch.float32, name


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_a_bfloat16_backbone_gives_two_ranks_nearly_the_losses_of_float32(found, expected, stage):
    for actual, row in zip(found[0][f"{stage} bfloat16"]["rows"], expected[0], strict=True):
        assert {key: actual[key] for key in row} == pytest.approx(row, rel=2e-3)


def test_trained_weights_and_their_gradients_travel_in_float32_under_autocast(found):
    """DeepSpeed would send both in bfloat16, and a gathered weight would be another one than was trained."""
    two, three = (found[0][f"{stage} bfloat16"]["rows"][0] for stage in ("zero2", "zero3"))
    for key in ("loss", "loss/face", "grad_norm"):
        assert three[key] == pytest.approx(two[key], rel=2e-6), key

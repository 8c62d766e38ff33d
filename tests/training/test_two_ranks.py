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

from facegpt.model.generation import generate
from facegpt.render.renderer import render


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of both ranks at ZeRO-2 and ZeRO-3; fails when a rank hangs."""
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
    return {stage: torch.load(out / f"zero{stage}.pt", weights_only=True) for stage in (2, 3)}


@pytest.fixture(scope="module")
def expected():
    """The same steps in plain PyTorch: one graph over all conversations, no DeepSpeed, no shortcut."""
    model, own = two_ranks.build(), two_ranks.settings(2)
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
        optimizer.param_groups[0]["lr"] = own.optimization.lr * ramp
        optimizer.param_groups[1]["lr"] = own.optimization.face_head_lr * ramp
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
        norm = torch.nn.utils.clip_grad_norm_([*others, *face_head], own.optimization.clip)
        optimizer.step()
        rows.append(
            {"loss": loss.item(), "loss/face": torch.cat(face).mean().item(), "grad_norm": norm.item()}
        )
    replies = [
        generate(model, *two_ranks.prompt_of(model, rank), max_new_tokens=6)[0].ids.tolist()
        for rank in range(2)
    ]
    return rows, {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}, replies


@pytest.mark.parametrize("stage", [2, 3])
def test_losses_and_gradient_norms_are_those_of_plain_pytorch(found, expected, stage):
    for actual, row in zip(found[stage]["rows"], expected[0], strict=True):
        assert {key: actual[key] for key in row} == pytest.approx(row, rel=1e-4)


@pytest.mark.parametrize("stage", [2, 3])
def test_weights_after_some_steps_are_those_of_plain_pytorch(found, expected, stage):
    weights = expected[1]
    assert found[stage]["weights"].keys() == weights.keys()
    start = {n: p.detach() for n, p in two_ranks.build().named_parameters()}
    for name, value in weights.items():
        moved = (value - start[name]).abs().max()
        assert moved > 1e-4, f"{name} was not trained"
        # AdamW divides by the gradient's size, so entries without a gradient to speak of are noise.
        close = (found[stage]["weights"][name] - value).abs() < 0.02 * moved
        assert close.float().mean() > 0.99, name


@pytest.mark.parametrize("stage", [2, 3])
def test_ranks_generate_at_once_what_the_plain_model_generates(found, expected, stage):
    assert found[stage]["replies"] == expected[2]

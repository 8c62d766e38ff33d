"""What cannot go on ends on every rank with one sentence, and leaves the weights as they were."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from recipes import ROOT, load_recipe

from facegpt.errors import TrainingError
from facegpt.model.checkpoint import save_checkpoint
from facegpt.training.interrupt import Interrupt
from facegpt.training.step import FaceLoss
from facegpt.training.validation import Answer

train = load_recipe("train/train.py")


def bias(parts, value, groups=slice(None)):
    """Let the face head answer `value` for some parameters, whatever it sees."""
    with torch.no_grad():
        parts.model.face_head.network[-1].bias[groups] = value


def run(settings, parts, ranks):
    train.train(settings, parts, ranks, Interrupt())


def trained(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_diverged_face_head_ends_the_run_with_step_and_samples(world, ranks, tmp_path, value):
    parts = train.prepare(world.settings(tmp_path / "run"), ranks)
    bias(parts, value)
    before = trained(parts.model)
    with pytest.raises(TrainingError, match=r"the loss of step 1 is not finite.*face-\d"):
        run(world.settings(tmp_path / "run"), parts, ranks)
    for name, value in trained(parts.model).items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_face_that_cannot_be_drawn_does_not_spoil_the_others(world, ranks, tmp_path):
    parts = train.prepare(world.settings(tmp_path / "run"), ranks)
    targets = next(b.faces for step in parts.stream.steps(1) for b in step if b.faces and len(b.faces) > 1)
    vectors = parts.face_loss.mean.repeat(len(targets), 1)
    gradient, losses, _ = parts.face_loss(vectors, targets)
    broken = vectors.clone()
    broken[0, 3] = torch.nan
    found_gradient, found, _ = parts.face_loss(broken, targets)
    assert found[0].isnan() and found_gradient[0].isnan().all()
    assert torch.allclose(found[1:], losses[1:]) and torch.allclose(found_gradient[1:], gradient[1:])


@pytest.mark.parametrize("loss", [float("inf"), 1e30])
def test_an_impossible_loss_with_a_finite_gradient_stops_the_run(world, ranks, monkeypatch, tmp_path, loss):
    original = FaceLoss.__call__

    def far_off(self, vectors, targets):
        gradient, losses, parts = original(self, vectors, targets)
        return gradient, None if losses is None else torch.full_like(losses, loss), parts

    monkeypatch.setattr(FaceLoss, "__call__", far_off)
    parts = train.prepare(world.settings(tmp_path / "run"), ranks)
    before = trained(parts.model)
    with pytest.raises(TrainingError, match="step 1 is not finite, or above"):
        run(world.settings(tmp_path / "run"), parts, ranks)
    assert all(value.equal(before[name]) for name, value in trained(parts.model).items())


def test_a_validation_whose_faces_cannot_be_drawn_ends_the_run(world, ranks, tmp_path):
    more = [f"validation.path={world.path / 'faces'}", "validation.faces=2", "validation.max_new_tokens=2"]
    parts = train.prepare(world.settings(tmp_path / "run", *more), ranks)

    def ask(prompts, engine):
        vector = (1e30 * parts.face_loss.mean[0]).tolist()
        return [Answer(p.record, p.kind, "?", "<FACE>", 1, vector) for p in prompts]

    parts.validation._ask = ask
    with pytest.raises(TrainingError, match="answers the image of face-0 with a face that cannot be drawn"):
        parts.validation(None)


def launch(overrides):
    """Train with two ranks; their exit codes and what each wrote to standard error. Fails when one hangs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
    command = [sys.executable, str(ROOT / "train" / "train.py"), *overrides]
    processes = [
        subprocess.Popen(
            command,
            cwd="/",  # where the DeepSpeed file's relative path leads nowhere
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        texts = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], texts


def only_sentence(codes, texts):
    assert codes == [1, 1], texts
    assert "Traceback" not in "".join(texts), texts
    (line,) = [line for text in texts for line in text.splitlines() if line.startswith("error: ")]
    return line


def test_two_ranks_of_a_diverged_model_end_with_one_sentence(world, ranks, tmp_path):
    settings = world.settings(tmp_path / "run")
    parts = train.prepare(settings, ranks)
    bias(parts, torch.nan)
    save_checkpoint(parts.model, tmp_path / "diverged", parts.head.id)
    more = [f"model.start={tmp_path / 'diverged'}", "data.sources.descriptions.weight=0"]
    line = only_sentence(*launch(world.overrides(tmp_path / "run", *more)))
    assert "the loss of step 1 is not finite" in line and "face-" in line


def test_a_bad_conversation_that_one_rank_meets_while_training_ends_both(world, tmp_path):
    rows = json.loads((world.path / "chat.json").read_text())[:1] * 6
    rows[3] = {"id": "half-said", "conversations": [{"from": "human", "value": "What is a jaw?"}]}
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps(rows))
    more = [f"data.sources.chat.path={chat}", "data.check=0", "data.check_files=false", "checkpoint.every=0"]
    assert "half-said" in only_sentence(*launch(world.overrides(tmp_path / "run", *more)))

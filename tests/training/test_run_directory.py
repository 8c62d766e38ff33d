"""What a run leaves behind, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from data_files import face_row, write_shards
from PIL import Image
from recipes import load_recipe
from safetensors.torch import load_file
from small_head import small_head, small_head_data

from facegpt.config import load_config
from facegpt.errors import HeadMismatchError, TrainingError
from facegpt.head.files.format import save_head
from facegpt.model.checkpoint import load_facegpt, merge_lora
from facegpt.training.interrupt import Interrupt
from facegpt.training.settings import TrainSettings
from facegpt.training.step import FaceLoss

train = load_recipe("train/train.py")


@pytest.fixture(scope="module")
def finished(world, run_training, tmp_path_factory):
    """A run of four steps with validation; its directory and its metrics."""
    run = tmp_path_factory.mktemp("runs") / "run"
    more = ["validation.path=" + str(world.path / "faces"), "validation.every=4", "validation.faces=3"]
    rows = run_training(world.settings(run, *more, "validation.max_new_tokens=3", "checkpoint.keep=1"))
    return run, rows


def test_metrics_hold_every_loss_per_part_and_source_rates_speed_and_time(finished):
    rows = [row for row in finished[1] if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    seen = set().union(*rows)
    parts = ("pixel", "perceptual", "landmark", "regularization")
    assert {f"face/{name}" for name in parts} <= seen and "face/parameters" not in seen
    assert {f"source/{name}/text" for name in ("photographs", "descriptions", "chat")} <= seen
    assert "source/photographs/face" in seen and "source/chat/face" not in seen
    assert {"loss", "grad_norm", "lr/lora", "lr/token", "lr/face_head", "speed/faces_per_second"} <= seen
    assert {f"time/{name}" for name in ("data", "model", "render", "optimizer")} <= seen
    for row in rows:
        weighted = sum(
            weight * row[f"face/{name}"] for name, weight in zip(parts, (0.5, 0.25, 5e-4, 0.1), strict=True)
        )
        assert row["loss/face"] == pytest.approx(weighted, rel=1e-4)
        assert row["loss"] == pytest.approx(row["loss/text"] + 0.1 * row["loss/face"], rel=1e-4)


def test_the_warm_up_starts_above_zero_and_the_rate_decays_after_it(finished):
    rates = [row["lr/lora"] for row in finished[1] if row["kind"] == "train"]
    assert rates == pytest.approx([5e-4, 7.5e-4, 1e-3, 7.5e-4])  # warm-up of 2 steps to 1e-3, then decay


def test_validation_generates_and_leaves_numbers_answers_and_a_picture(finished):
    run, rows = finished
    values = [row for row in rows if row["kind"] == "validation"]
    assert [row["step"] for row in values] == [4]
    for name in ("image/emission_recall", "text/emission_recall", "chat/false_positive_rate"):
        assert 0 <= values[0][name] <= 100
    with Image.open(run / "pictures" / "step_000004.jpg") as sheet:
        assert sheet.width > sheet.height > 3 * 200
    answers = [json.loads(line) for line in (run / "answers" / "step_000004.jsonl").read_text().splitlines()]
    assert [answer["kind"] for answer in answers] == 3 * ["chat", "image", "text"]


def test_config_and_versions_are_written_down(world, finished):
    run = finished[0]
    assert load_config(TrainSettings, run / "config.yaml").optimization.steps == 4
    notes = json.loads((run / "run.json").read_text())
    assert notes["head_id"] == small_head().id and notes["ranks"] == 1
    assert {"torch", "transformers", "peft", "deepspeed"} <= notes["versions"].keys()


def test_a_checkpoint_holds_the_trained_parts_only_and_is_enough_to_chat_and_to_merge(finished, tmp_path):
    run = finished[0]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000004"]  # keep=1, no leftovers
    checkpoint = run / "checkpoints" / "step_000004"
    names = set(load_file(checkpoint / "adapter.safetensors"))
    assert all("lora_" in name or "token" in name for name in names) and not any("vision" in n for n in names)
    model = load_facegpt(checkpoint, small_head())[0]
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    files = sorted(path.name for path in checkpoint.rglob("*") if path.is_file())
    assert files == [
        "adapter.safetensors", "checksums.json", "face_head.safetensors", "facegpt.json",
        "rank_00.safetensors", "training.json",
    ]  # fmt: skip
    state = load_file(checkpoint / "optimizer" / "rank_00.safetensors")
    numbers = sum(tensor.numel() for tensor in state.values() if tensor.dtype == torch.float32)
    assert 3 * trained <= numbers < 3.1 * trained  # weights and two moments of Adam, of nothing else
    merge_lora(checkpoint, tmp_path / "merged")
    assert load_facegpt(tmp_path / "merged", small_head())


def test_only_language_model_lora_token_rows_and_face_head_are_trained(finished):
    model, _ = load_facegpt(finished[0] / "checkpoints" / "step_000004", small_head())
    for name, parameter in model.named_parameters():
        allowed = name.startswith("face_head.") or "lora_" in name or "trainable_tokens" in name
        assert parameter.requires_grad == allowed, name
        assert not (parameter.requires_grad and "vision_tower" in name)


def test_a_new_run_can_start_from_a_checkpoint(world, finished, run_training, tmp_path):
    start = finished[0] / "checkpoints" / "step_000004"
    more = ["model.lora.dropout=0", "optimization.steps=1", f"model.start={start}"]
    row = run_training(world.settings(tmp_path / "more", *more))[0]
    fresh = run_training(world.settings(tmp_path / "fresh", *more[:-1]))[0]
    assert row["loss/text"] < fresh["loss/text"]


def complain(monkeypatch, capfd, overrides):
    """Run the recipe with these arguments; the sentence it ends with. It must not have trained."""
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides])
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("training began"))
    capfd.readouterr()
    assert train.main(sys.argv[1:]) in (1, 2)
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_missing_data_is_one_sentence_and_nothing_is_written(world, ranks, monkeypatch, capfd, tmp_path):
    missing = "data.sources.photographs.path=/nowhere/faces"
    assert "/nowhere/faces" in complain(monkeypatch, capfd, world.overrides(tmp_path / "run", missing))
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_is_one_sentence(world, ranks, monkeypatch, capfd, tmp_path):
    line = complain(monkeypatch, capfd, world.overrides(tmp_path / "run", "optimization.rate=1"))
    assert "optimization.rate" in line


def test_a_landmark_that_is_not_a_number_is_found_in_the_last_row(world, ranks, monkeypatch, capfd, tmp_path):
    rows = [face_row(number) for number in range(5)]
    rows[4]["landmarks"][7] = float("nan")
    write_shards(tmp_path / "faces", rows)
    overrides = world.overrides(
        tmp_path / "run", f"data.sources.photographs.path={tmp_path / 'faces'}", "data.check=0"
    )
    assert "face-4" in complain(monkeypatch, capfd, overrides)
    assert not (tmp_path / "run").exists()


def test_a_truncation_that_would_cut_a_face_token_is_refused(world, ranks, monkeypatch, capfd, tmp_path):
    overrides = world.overrides(tmp_path / "run", "data.max_length=24", "data.sources.chat.weight=0")
    line = complain(monkeypatch, capfd, overrides)
    assert "truncation to 24 would cut" in line


def test_the_recognition_network_must_be_there(world, ranks, monkeypatch, capfd, tmp_path):
    overrides = world.overrides(tmp_path / "run", "model.recognizer=/nowhere/arcface.onnx")
    assert "/nowhere/arcface.onnx" in complain(monkeypatch, capfd, overrides)


def test_a_finished_run_is_not_overwritten_by_accident(world, finished, ranks, monkeypatch, capfd):
    assert "already holds a run" in complain(monkeypatch, capfd, world.overrides(finished[0]))


def test_a_checkpoint_of_another_head_is_refused(world, finished, ranks, monkeypatch, capfd, tmp_path):
    other = tmp_path / "other.npz"
    save_head(small_head_data(seed=1), other)
    start = f"model.start={finished[0] / 'checkpoints' / 'step_000004'}"
    line = complain(monkeypatch, capfd, world.overrides(tmp_path / "run", f"model.head={other}", start))
    assert small_head().id in line and small_head(1).id in line
    run = tmp_path / "copy"
    shutil.copytree(finished[0], run)
    more = ["resume=true", "optimization.steps=8", f"model.head={other}"]
    assert "another head model" in complain(monkeypatch, capfd, world.overrides(run, *more))


def test_supervision_by_parameters_needs_parameters_of_this_head(world, ranks, tmp_path):
    settings = world.settings(tmp_path / "run", "objective.parameters=1")
    with pytest.raises(HeadMismatchError, match=r"objective\.parameters"):
        train.prepare(settings, ranks)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(
    world, ranks, run_training, monkeypatch, tmp_path
):
    def broken(self, vectors, targets):
        gradient, losses, parts = original(self, vectors, targets)
        return gradient * float("nan"), losses, parts

    original = FaceLoss.__call__
    monkeypatch.setattr(FaceLoss, "__call__", broken)
    settings = world.settings(tmp_path / "run")
    parts = train.prepare(settings, ranks)
    before = {n: p.detach().clone() for n, p in parts.model.named_parameters() if p.requires_grad}
    with pytest.raises(TrainingError, match="step 1 is not finite"):
        train.train(settings, parts, ranks, Interrupt())
    for name, parameter in parts.model.named_parameters():
        assert name not in before or parameter.equal(before[name]), name
    assert not list(Path(settings.run).glob("checkpoints/*"))

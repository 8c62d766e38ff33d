"""Checkpoints give the same model again, refuse what does not fit, and hold nothing of a head model."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_facegpt import LAYOUT, make_batch, pixels, question, small_backbone, small_facegpt
from small_head import small_head
from torch import Tensor

from facegpt.errors import CheckpointError, FaceGPTError, HeadMismatchError
from facegpt.head.head_id import rounded_hash
from facegpt.head.model import HeadModel
from facegpt.model.backbone import load_backbone
from facegpt.model.checkpoint import (
    load_facegpt,
    load_weights,
    merge_lora,
    read_description,
    save_checkpoint,
)
from facegpt.model.facegpt import FaceGPT
from facegpt.sample import Batch
from facegpt.standins.tiny_llava import save_tiny_llava

HEAD = small_head()


@pytest.fixture(scope="module")
def model() -> FaceGPT:
    return small_facegpt()


@pytest.fixture
def saved(model: FaceGPT, tmp_path: Path) -> Path:
    save_checkpoint(model, tmp_path / "step-10", HEAD.id, {"step": 10})
    return tmp_path / "step-10"


def a_batch(model: FaceGPT) -> Batch:
    reply = model.processor.tokenizer.encode(" Here: <FACE> and <FACE>.</s>", add_special_tokens=False)
    return make_batch(model, [question(model, "Who is it?", image=True) + reply], [len(reply)], pixels(1))


def outputs(model: FaceGPT) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        output = model(a_batch(model))
    return output.logits, output.face_parameters.to_vector()


def test_a_loaded_checkpoint_gives_identical_logits_and_faces(model: FaceGPT, saved: Path) -> None:
    loaded, processor = load_facegpt(saved, HEAD, backbone=small_backbone(8))
    assert processor is loaded.processor and not loaded.training
    for expected, actual in zip(outputs(model), outputs(loaded), strict=True):
        assert torch.equal(expected, actual)
    assert loaded.spec == model.spec and loaded.face_token_id == model.face_token_id


def test_the_backbone_is_found_where_it_was_or_where_it_is_now(tmp_path: Path) -> None:
    backbone, processor = small_backbone(8)
    save_tiny_llava(backbone, processor, tmp_path / "llava")
    loaded = load_backbone(tmp_path / "llava", torch.float32)
    first = small_facegpt(backbone=loaded)
    save_checkpoint(first, tmp_path / "run", HEAD.id)
    assert read_description(tmp_path / "run")["backbone"] == str(tmp_path / "llava")
    second, _ = load_facegpt(tmp_path / "run", HEAD, dtype="float32")
    assert torch.equal(outputs(first)[0], outputs(second)[0])
    (tmp_path / "llava").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="no model directory"):
        load_facegpt(tmp_path / "run", HEAD)
    third, _ = load_facegpt(tmp_path / "run", HEAD, dtype="float32", backbone=tmp_path / "moved")
    assert torch.equal(outputs(first)[1], outputs(third)[1])


def test_a_checkpoint_holds_trained_weights_only(model: FaceGPT, saved: Path) -> None:
    assert {f.name for f in saved.iterdir()} == {
        "adapter.safetensors",
        "face_head.safetensors",
        "facegpt.json",
    }
    stored = load_file(saved / "adapter.safetensors") | load_file(saved / "face_head.safetensors")
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(t.numel() for t in stored.values()) == sum(p.numel() for p in trained)
    assert {t.dtype for t in stored.values()} == {torch.float32}
    description = read_description(saved)
    assert description["head_id"] == HEAD.id and description["extra"] == {"step": 10}
    assert {"facegpt", "torch", "transformers", "peft"} == description["versions"].keys()


def test_another_head_model_is_refused(saved: Path) -> None:
    with pytest.raises(HeadMismatchError, match=f"{HEAD.id}.*{small_head(1).id}"):
        load_facegpt(saved, small_head(1), backbone=small_backbone(8))
    load_facegpt(saved, None, backbone=small_backbone(8))


def test_a_checkpoint_with_a_head_id_of_version_0_1_still_loads(model: FaceGPT, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "old", rounded_hash(HEAD.data))
    load_facegpt(tmp_path / "old", HEAD, backbone=small_backbone(8))
    save_checkpoint(model, tmp_path / "builtin", "92de9cc3a3c9b7d1")
    load_facegpt(tmp_path / "builtin", HeadModel.builtin(), backbone=small_backbone(8))


def test_another_backbone_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="other weights"):
        load_facegpt(saved, HEAD, backbone=small_backbone(9))


def test_a_backbone_with_another_projector_is_refused(saved: Path, tmp_path: Path) -> None:
    backbone, processor = small_backbone(8)
    with torch.no_grad():
        backbone.model.multi_modal_projector.linear_2.weight.mul_(1.5)
    with pytest.raises(CheckpointError, match="other weights"):
        load_facegpt(saved, HEAD, backbone=(backbone, processor))
    old = tmp_path / "of version 0.1"
    shutil.copytree(saved, old)
    description = json.loads((old / "facegpt.json").read_text())
    description["fingerprint"] = description["fingerprint"][:8]  # it looked at the vocabulary alone
    (old / "facegpt.json").write_text(json.dumps(description))
    load_facegpt(old, HEAD, backbone=small_backbone(8))


def test_a_backbone_in_bfloat16_is_recognized(saved: Path) -> None:
    backbone, processor = small_backbone(8)
    for parameter in backbone.parameters():
        parameter.data = parameter.data.bfloat16()
    load_facegpt(saved, HEAD, backbone=(backbone, processor))


def test_empty_shards_are_not_saved(tmp_path: Path) -> None:
    shards = small_facegpt()
    for parameter in shards.parameters():
        if parameter.requires_grad:
            parameter.data = torch.empty(0)  # what ZeRO-3 leaves in the module
    with pytest.raises(CheckpointError, match="empty shard"):
        save_checkpoint(shards, tmp_path / "run", HEAD.id)
    assert not list(tmp_path.iterdir())


def test_files_follow_the_umask(model: FaceGPT, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_checkpoint(model, tmp_path / "run", HEAD.id)
        merge_lora(tmp_path / "run", tmp_path / "merged", torch.float32, backbone=small_backbone(8))
    finally:
        os.umask(before)
    files = [*(tmp_path / "run").iterdir(), *(tmp_path / "merged").iterdir()]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o640"}


@pytest.mark.parametrize("name", ["facegpt.json", "face_head.safetensors"])
def test_a_file_that_may_not_be_read_is_not_called_missing(
    saved: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(
        path: Path, *arguments: Any, **options: Any
    ) -> Any:  # tests may run as root, whom no mode stops
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=f"{re.escape(name)} cannot be read: Permission denied"):
        load_facegpt(saved, HEAD, backbone=small_backbone(8))


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (("backbone",), 5, "backbone"),
        (("backbone",), None, "backbone"),
        (("fingerprint",), [], "other weights"),
        (("fingerprint", 0), "x", "fingerprint"),
        (("mean", 0), 1e22, "mean"),
        (("mean", 0), float("nan"), "mean"),
        (("mean", 0), 10**400, "mean"),
        (("mean",), [0.0], "mean"),
        (("layout", "shape"), 10**9, "mean"),
        (("layout", "shape"), 6.0, "layout"),
        (("lora", "rank"), 1e6, "rank"),
        (("lora", "rank"), 1_000_000, "rank"),
        (("lora", "targets"), [5], "targets"),
        (("lora", "targets"), ["w_pack"], "w_pack"),
        (("head", "widths"), [0], "widths"),
        (("head", "widths"), [32768] * 9, "widths"),
        (("head", "scales"), {"pose": [float("inf")]}, "scales"),
        (("head", "scales"), {"poses": [1.0]}, "poses"),
    ],
)
def test_strange_values_of_a_description_are_a_sentence(
    saved: Path, place: tuple[Any, ...], value: object, word: str
) -> None:
    content = json.loads((saved / "facegpt.json").read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (saved / "facegpt.json").write_text(json.dumps(content))
    with pytest.raises(FaceGPTError, match=word) as caught:
        load_facegpt(saved, HEAD, backbone=small_backbone(8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["absent", None, 5, ["head"]])
def test_a_description_without_the_name_of_its_head_is_a_sentence(saved: Path, value: object) -> None:
    content = json.loads((saved / "facegpt.json").read_text())
    content["head_id"] = value
    if value == "absent":
        del content["head_id"]
    (saved / "facegpt.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="head_id is not a text"):
        load_facegpt(saved, HEAD, backbone=small_backbone(8))


@pytest.mark.parametrize("content", ["[" * 100_000, " " * 16_000_001, "\ud800"])
def test_a_description_that_is_no_json_of_ours_is_refused(saved: Path, content: str) -> None:
    (saved / "facegpt.json").write_text(content, errors="surrogatepass")
    with pytest.raises(CheckpointError, match=r"facegpt\.json"):
        read_description(saved)


@pytest.mark.parametrize("file", ["adapter.safetensors", "face_head.safetensors"])
@pytest.mark.parametrize("damage", ["missing file", "missing", "unexpected", "shape", "cut"])
def test_tensors_that_do_not_fit_are_named(saved: Path, file: str, damage: str) -> None:
    path = saved / file
    tensors = load_file(path)
    name = sorted(tensors)[0]
    words = name
    if damage == "missing":
        tensors.pop(name)
    elif damage == "unexpected":
        words = "strange"
        tensors["strange"] = torch.zeros(1)
    elif damage == "shape":
        tensors[name] = torch.zeros(3, 5, 7)
    save_file(tensors, path)
    if damage == "missing file":
        path.unlink()
        words = "lacks"
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
        words = "damaged"
    with pytest.raises(CheckpointError, match=words) as caught:
        load_weights(small_facegpt(), saved)
    assert file in str(caught.value)


@pytest.mark.parametrize("damage", ["gone", "no json", "list", "format", "lora", "layout"])
def test_a_damaged_description_is_refused(saved: Path, damage: str) -> None:
    path = saved / "facegpt.json"
    content = json.loads(path.read_text())
    if damage == "gone":
        path.unlink()
    elif damage == "no json":
        path.write_text("{")
    elif damage == "list":
        path.write_text("[]")
    else:
        content[damage] = {"format": 99, "lora": {"rank": 4}, "layout": {"size": 1}}[damage]
        path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"facegpt\.json"):
        load_facegpt(saved, HEAD, backbone=small_backbone(8))


def test_an_older_checkpoint_stays_when_saving_fails(model: FaceGPT, saved: Path) -> None:
    with pytest.raises(ValueError):
        save_checkpoint(model, saved, HEAD.id, {"loss": float("nan")})
    assert read_description(saved)["extra"] == {"step": 10}
    assert [f.name for f in saved.parent.iterdir()] == [saved.name]


def test_merging_keeps_logits_and_faces(model: FaceGPT, saved: Path, tmp_path: Path) -> None:
    merge_lora(saved, tmp_path / "merged", torch.float32, backbone=small_backbone(8))
    merged, _ = load_facegpt(tmp_path / "merged", HEAD, dtype="float32")
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert merged.face_token_id == model.face_token_id
    for expected, actual in zip(outputs(model), outputs(merged), strict=True):
        assert (expected - actual).abs().max() < 1e-4
    assert read_description(tmp_path / "merged")["extra"] == {"step": 10}
    with pytest.raises(CheckpointError, match="merged already"):
        merge_lora(tmp_path / "merged", tmp_path / "again")


def test_merging_rounds_once(model: FaceGPT, saved: Path, tmp_path: Path) -> None:
    merge_lora(saved, tmp_path / "whole", torch.float32, backbone=small_backbone(8))
    merge_lora(saved, tmp_path / "half", torch.bfloat16, backbone=small_backbone(8))
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    half = load_file(tmp_path / "half" / "model.safetensors")
    assert whole.keys() == half.keys()
    assert all(torch.equal(whole[name].bfloat16(), half[name]) for name in whole)


def test_a_merged_checkpoint_can_be_the_backbone_of_a_new_run(saved: Path, tmp_path: Path) -> None:
    merge_lora(saved, tmp_path / "merged", torch.float32, backbone=small_backbone(8))
    backbone = load_backbone(tmp_path / "merged", torch.float32)
    again = small_facegpt(backbone=backbone, noise=False)
    merged, _ = load_facegpt(tmp_path / "merged", HEAD, dtype="float32")
    assert torch.allclose(outputs(again)[0], outputs(merged)[0], atol=1e-5), "its <FACE> rows are kept"


def test_nothing_of_a_head_model_is_in_a_checkpoint(model: FaceGPT, saved: Path) -> None:
    allowed = {tuple(p.shape) for p in model.parameters() if p.requires_grad}
    for file in saved.glob("*.safetensors"):
        assert {tuple(t.shape) for t in load_file(file).values()} <= allowed
    numbers = read_description(saved)["mean"]
    assert len(numbers) == LAYOUT.total  # the starting point of theta, which is no head data
    assert (saved / "facegpt.json").stat().st_size < 10_000

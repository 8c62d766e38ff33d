"""A tied vocabulary is trained untied: `<FACE>` is read by one row and emitted by another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_facegpt import make_batch, question, small_facegpt
from tied_llava import SIDE, save, tied_llava
from torch import Tensor

from facegpt.model.backbone import load_backbone
from facegpt.model.checkpoint import load_facegpt, merge_lora, save_checkpoint
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import generate
from facegpt.model.weights import is_tied


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def outputs(model: FaceGPT) -> tuple[Tensor, Tensor]:
    reply = model.processor.tokenizer.encode("Here: <FACE> and <FACE>.<|im_end|>")
    batch = make_batch(model, [question(model, "Who is it?", image=True) + reply], [len(reply)], pictures(1))
    with torch.no_grad():
        output = model(batch)
    return output.logits, output.face_parameters.to_vector()


@pytest.fixture
def model() -> FaceGPT:
    return small_facegpt(backbone=tied_llava())


def test_one_table_in_memory_but_two_rows_for_the_face(model: FaceGPT) -> None:
    shape = (model.vlm.config.get_text_config().vocab_size, 32)
    tables = [p for p in model.parameters() if p.shape == shape]
    assert len(tables) == 2 and tables[0].data_ptr() == tables[1].data_ptr()
    rows = [p for name, p in model.named_parameters() if p.requires_grad and "token" in name]
    assert [tuple(row.shape) for row in rows] == [(1, 32), (1, 32)] and not torch.equal(*rows)


def test_the_row_that_emits_the_face_can_win_without_moving_what_is_read(model: FaceGPT) -> None:
    states = torch.randn(3, 32)
    ids = torch.tensor([[model.face_token_id]])
    read = model.vlm.get_input_embeddings()(ids)
    row = next(p for n, p in model.named_parameters() if "lm_head" in n and p.requires_grad)
    row.data = 50 * states.mean(dim=0, keepdim=True)
    assert model.vlm.get_output_embeddings()(row)[0].argmax() == model.face_token_id
    assert torch.equal(model.vlm.get_input_embeddings()(ids), read)


def test_without_training_a_tied_model_stays_tied() -> None:
    assert is_tied(small_facegpt(backbone=tied_llava(), lora=None).vlm)


def test_a_checkpoint_gives_the_model_back_merged_or_not(model: FaceGPT, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "run", "head")
    for merge in (False, True):
        loaded, _ = load_facegpt(tmp_path / "run", None, backbone=tied_llava(), merge=merge)
        assert any("lora" in name for name, _ in loaded.named_modules()) != merge
        for expected, actual in zip(outputs(model), outputs(loaded), strict=True):
            assert torch.allclose(expected, actual, atol=1e-4)


def test_a_merged_folder_keeps_both_rows_and_the_precise_tower(model: FaceGPT, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path / "run", "head")
    merge_lora(tmp_path / "run", tmp_path / "merged", torch.float32, backbone=tied_llava())
    loaded, _ = load_facegpt(tmp_path / "merged", None, dtype="float32")
    for expected, actual in zip(outputs(model), outputs(loaded), strict=True):
        assert torch.allclose(expected, actual, atol=1e-4)
    merge_lora(tmp_path / "run", tmp_path / "half", torch.bfloat16, backbone=tied_llava())
    whole = load_file(tmp_path / "merged" / "model.safetensors")
    half = load_file(tmp_path / "half" / "model.safetensors")
    for name, tensor in half.items():
        precise = any(part in name for part in (".trunk.", "tower.center", "tower.spread"))
        assert tensor.dtype == (torch.float32 if precise else torch.bfloat16)
        assert torch.equal(tensor, whole[name].to(tensor.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_and_speaks_from_a_folder(tmp_path: Path, dtype: torch.dtype) -> None:
    save(*tied_llava(), tmp_path)
    model = small_facegpt(backbone=load_backbone(tmp_path, dtype), noise=False)
    reply = model.processor.tokenizer.encode("Here: <FACE>.<|im_end|>")
    prompt = question(model, "Who is it?", image=True)
    batch = make_batch(model, [prompt + reply], [len(reply)], pictures(1))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.03)
    model.train()
    for _ in range(40):
        output = model(batch)
        loss = torch.nn.functional.cross_entropy(output.logits, output.labels) + output.anchor
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    answer = generate(model, torch.tensor([prompt]), torch.ones(1, len(prompt)).long(), pictures(1), 12)[0]
    assert answer.text == "Here: <FACE>." and len(answer.faces) == 1

"""The small LLaVA is its parts, put together: words as before, pictures as tokens, a folder like others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tied_llava import CHANNELS, SIDE, save, small_trunk, tied_language, tied_llava
from transformers import PreTrainedModel, ProcessorMixin

from facegpt.errors import CheckpointError, MissingPartError
from facegpt.model.backbone import image_features, image_token_count, load_backbone
from facegpt.model.chat_format import chat_format
from facegpt.model.small_llava import small_llava_folder
from facegpt.parts import SMALL, part_path
from facegpt.sample import Message


def test_the_language_model_says_what_it_said() -> None:
    model, processor = tied_llava()
    known = processor.tokenizer.convert_tokens_to_ids("<image>")
    language = tied_language(known)
    ids = torch.tensor([processor.tokenizer.encode("Who is this person?")])
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits[..., :known], language(ids).logits, atol=1e-5)


def test_the_vocabulary_grows_by_mean_rows_and_has_one_for_the_face() -> None:
    model, processor = tied_llava()
    table, known = model.get_input_embeddings().weight, processor.tokenizer.convert_tokens_to_ids("<image>")
    assert len(table) % 64 == 0 and len(table) > len(processor.tokenizer)
    assert torch.allclose(table[known:], table[:known].mean(dim=0).expand(len(table) - known, -1))


def test_the_chat_format_is_the_language_models_with_images_in_the_users_turn() -> None:
    processor = tied_llava()[1]
    text = chat_format(processor).write([Message("user", "<image>\nWho?"), Message("assistant", "A man.")])
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert text == (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        "<|im_start|>user\n<image>\nWho?<|im_end|>\n<|im_start|>assistant\nA man.<|im_end|>\n"
    )


def test_a_saved_folder_is_read_like_others_and_holds_the_vocabulary_once(tmp_path: Path) -> None:
    model, processor = tied_llava()
    save(model, processor, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
        trunk = [name for name in names if ".trunk." in name]
        assert "lm_head.weight" not in names
        assert trunk and all(file.get_tensor(name).dtype == torch.float32 for name in trunk)
    loaded, read = load_backbone(tmp_path, torch.float32)
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert image_token_count(read) == 4
    assert loaded.generation_config.eos_token_id == read.tokenizer.eos_token_id
    pixels = torch.rand(2, 3, SIDE, SIDE)
    ours, theirs = image_features(model, pixels), image_features(loaded, pixels)
    assert ours.shape == (8, 32) and torch.allclose(ours, theirs, atol=0.05, rtol=0.05)
    assert chat_format(read) == chat_format(processor)


def test_pictures_come_unnormalized_at_the_towers_size() -> None:
    from PIL import Image

    processor = tied_llava()[1]
    picture = Image.new("RGB", (100, 80), (255, 51, 0))
    pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, SIDE, SIDE)
    assert torch.allclose(pixels[0, :, 5, 5], torch.tensor([1.0, 0.2, 0.0]), atol=1e-3)


def test_shipped_weights_are_put_in(tmp_path: Path) -> None:
    local, outputs = CHANNELS + 12, 5
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tower = {
        "center": noise(local),
        "gain": noise(local + outputs),
        "reader.token.weight": noise(3, local),
        "reader.token.bias": noise(3),
        "reader.gather.weight": noise(7, 12),
        "reader.gather.bias": noise(7),
        "reader.facts.weight": noise(outputs, 7),
        "reader.facts.bias": noise(outputs),
    }
    projector = {"linear_1.weight": noise(32, local + outputs), "linear_2.bias": noise(32)}
    name = "model.language_model.layers.1.mlp.up_proj"
    lora = {f"{name}.lora_A": noise(2, 32), f"{name}.lora_B": noise(64, 2)}
    save_file(tower, tmp_path / "tower.safetensors")
    save_file(projector, tmp_path / "projector.safetensors")
    save_file(lora, tmp_path / "adapter.safetensors", metadata={"scale": "0.5"})
    before, model = tied_llava()[0], tied_llava(tmp_path)[0]
    for key, value in tower.items():
        assert torch.equal(model.model.vision_tower.state_dict()[key], value)
    for key, value in projector.items():
        assert torch.equal(model.model.multi_modal_projector.state_dict()[key], value)
    expected = before.get_submodule(name).weight + 0.5 * lora[f"{name}.lora_B"] @ lora[f"{name}.lora_A"]
    assert torch.allclose(model.get_submodule(name).weight, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "tensors"),
    [
        ("tower", {"center": torch.zeros(3)}),
        ("projector", {"linear_3.weight": torch.zeros(3)}),
        ("adapter", {"model.nothing.lora_A": torch.zeros(1, 2), "model.nothing.lora_B": torch.zeros(2, 1)}),
        ("adapter", {"lm_head.lora_A": torch.zeros(1, 2)}),
    ],
)
def test_shipped_weights_that_do_not_fit_are_a_sentence(
    tmp_path: Path, file: str, tensors: dict[str, torch.Tensor]
) -> None:
    save_file(tensors, tmp_path / f"{file}.safetensors", metadata={"scale": "1"})
    with pytest.raises(CheckpointError, match=file):
        tied_llava(tmp_path)


def test_a_projector_at_random_makes_tokens_of_the_size_of_words() -> None:
    model = tied_llava()[0]
    tokens = torch.randn(200, small_trunk()[0].hidden_size)
    made = model.model.multi_modal_projector(tokens).std() / model.get_input_embeddings().weight.std()
    assert 0.4 < made.item() < 2.5


def test_without_its_parts_the_error_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path))
    with pytest.raises(MissingPartError, match="facegpt fetch small"):
        load_backbone("small")


@pytest.fixture(scope="module")
def real() -> tuple[PreTrainedModel, ProcessorMixin]:
    try:
        for part in SMALL:
            part_path(part)
    except MissingPartError as error:
        pytest.skip(f"the real small LLaVA is not tested: {error}")
    assert small_llava_folder().is_dir()
    return load_backbone("small", torch.float32)


def test_the_real_one_answers_plain_questions(real: tuple[PreTrainedModel, ProcessorMixin]) -> None:
    model, processor = real
    rows = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = processor.apply_chat_template(
        rows, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    said = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert processor.decode(said) == "The capital of France is Paris.<|im_end|>"
    assert processor.tokenizer.tokenize("aged 42") == ["aged", "Ġ", "4", "2"]
    assert image_features(model, torch.rand(1, 3, 256, 256)).shape == (image_token_count(processor), 576)

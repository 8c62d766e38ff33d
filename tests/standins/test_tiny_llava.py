"""The stand-in LLaVA: same classes, tokens and files as llava-1.5-7b-hf."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from facegpt.standins.tiny_llava import (
    SPARE_ROWS,
    TINY_RANDOM,
    TinySize,
    build_tiny_llava,
    build_tokenizer,
    save_tiny_llava,
)

TEXTS = [
    "A woman with a round jaw line and high cheek bones smiles warmly at the camera.",
    "USER: Please show the 3D face of this person. ASSISTANT: Sure, here it is.",
] * 20


def test_the_tokenizer_has_llamas_layout_and_spare_rows() -> None:
    tokenizer = build_tokenizer(TEXTS, 512)
    assert [tokenizer.convert_tokens_to_ids(t) for t in ("<unk>", "<s>", "</s>", "<0x00>")] == [0, 1, 2, 3]
    image, pad = (int(tokenizer.convert_tokens_to_ids(t)) for t in ("<image>", "<pad>"))  # type: ignore
    assert pad == image + 1 == len(tokenizer) - 1  # as 32000, 32001 in llava-1.5-7b-hf
    assert 512 - len(tokenizer) >= SPARE_ROWS
    assert tokenizer("<image>", add_special_tokens=False)["input_ids"] == [image]


@pytest.mark.parametrize("text", ["A round jaw line, 3D.", "two\nlines", "unseen: é 漢 🙂 {~}", "a  b"])
def test_any_text_survives_encoding(text: str) -> None:
    tokenizer = build_tokenizer(TEXTS, 512)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[1:]) == text


def test_merges_do_not_cross_words_or_punctuation() -> None:
    tokenizer = build_tokenizer(TEXTS, 600)
    for piece in list(tokenizer.get_vocab())[3:]:
        if not piece.startswith("<"):
            assert "▁" not in piece[1:]
            assert len(piece.lstrip("▁")) <= 1 or piece.lstrip("▁").isalnum()
    assert "▁camera" in tokenizer.get_vocab()


def test_files_round_trip_offline_and_keep_the_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, processor = build_tiny_llava(TEXTS, TINY_RANDOM)
    save_tiny_llava(model, processor, tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    loaded_processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, LlavaForConditionalGeneration)
    assert loaded_processor.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    chat: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who is it, é?"}]}]
    picture = Image.linear_gradient("L").convert("RGB")
    inputs = [
        p(text=p.apply_chat_template(chat, add_generation_prompt=True), images=picture, return_tensors="pt")
        for p in (processor, loaded_processor)
    ]
    assert torch.equal(inputs[0]["input_ids"], inputs[1]["input_ids"])
    assert (inputs[0]["input_ids"] == model.config.image_token_id).sum() == TINY_RANDOM.image_tokens
    assert torch.equal(inputs[0]["pixel_values"], inputs[1]["pixel_values"])
    with torch.no_grad():
        assert torch.equal(model(**inputs[0]).logits, loaded(**inputs[1]).logits)


def test_the_default_size_fits_into_eight_megabytes(tmp_path: Path) -> None:
    model, processor = build_tiny_llava(TEXTS)
    save_tiny_llava(model, processor, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 8e6


def test_the_template_ends_every_answer_with_the_end_token() -> None:
    _, processor = build_tiny_llava(TEXTS, TINY_RANDOM)
    chat = [
        {"role": "user", "content": "<image>\nHello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And now?"},
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == "USER: <image>\nHello ASSISTANT: Hi.</s>USER: And now? ASSISTANT:"


def test_every_parameter_that_requires_a_gradient_gets_one() -> None:
    model, processor = build_tiny_llava(TEXTS, replace(TINY_RANDOM, vision_layers=1))
    inputs = processor(text="<image>\nHello", images=Image.new("RGB", (32, 32), "red"), return_tensors="pt")
    model(**inputs).logits.square().mean().backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


def test_the_seed_decides_the_weights() -> None:
    first, second, other = (build_tiny_llava(TEXTS, TINY_RANDOM, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        build_tokenizer(TEXTS, 300)


def test_image_tokens_count_patches() -> None:
    assert TinySize().image_tokens == 49

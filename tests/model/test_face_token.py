"""`<FACE>` takes a spare vocabulary row, stays one id, and is found where it is predicted."""

from __future__ import annotations

import pytest
import torch
from small_facegpt import LAYOUT, LORA, TEXTS, small_backbone, small_facegpt
from transformers import PreTrainedModel

from facegpt.errors import CheckpointError
from facegpt.head.parameters import FaceParameters
from facegpt.model.backbone import vocabulary_tables
from facegpt.model.facegpt import build_facegpt
from facegpt.model.tokens import add_face_token, face_positions, images_before
from facegpt.sample import FACE_TOKEN
from facegpt.standins.tiny_llava import build_tokenizer


def test_the_token_takes_the_first_spare_row() -> None:
    tokenizer = build_tokenizer(TEXTS, 512)
    known = len(tokenizer)
    assert add_face_token(tokenizer, 512) == known
    assert add_face_token(tokenizer, 512) == known, "adding it again gives the same id"
    assert len(tokenizer) == known + 1


@pytest.mark.parametrize("text", ["<FACE>", "Sure: <FACE>.", "a<FACE>b", "<FACE><FACE>", "<FACE> </s>"])
def test_the_token_is_one_id_and_survives_decoding(text: str) -> None:
    tokenizer = build_tokenizer(TEXTS, 512)
    token = add_face_token(tokenizer, 512)
    ids = tokenizer.encode(text)
    assert ids.count(token) == text.count(FACE_TOKEN)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.replace("</s>", "")


def test_a_full_vocabulary_is_refused() -> None:
    tokenizer = build_tokenizer(TEXTS, 512)
    with pytest.raises(CheckpointError, match="spare row"):
        add_face_token(tokenizer, len(tokenizer))


def test_a_tokenizer_that_splits_the_token_is_refused() -> None:
    tokenizer = build_tokenizer(TEXTS, 512)
    encode = tokenizer.encode
    tokenizer.encode = lambda text, **options: [
        5,
        *encode(text, **options),
    ]  # as Llama's old one: [29871, 32000]
    with pytest.raises(CheckpointError, match="one piece"):
        add_face_token(tokenizer, 512)


def build(backbone: PreTrainedModel, processor: object) -> object:
    return build_facegpt(backbone, processor, LAYOUT, FaceParameters.mean(LAYOUT).to_vector()[0], LORA)  # type: ignore


def test_a_spare_row_means_no_resize() -> None:
    model = small_facegpt()
    assert [table.shape[0] for table in vocabulary_tables(model.vlm)] == [448, 448]
    assert model.face_token_id < 448


def test_without_a_spare_row_the_vocabulary_grows_and_keeps_its_rows() -> None:
    backbone, processor = small_backbone()
    tokenizer = processor.tokenizer
    tokenizer.add_tokens([f"<extra{i}>" for i in range(448 - len(tokenizer))])
    before = [table.clone() for table in vocabulary_tables(backbone)]
    build(backbone, processor)
    for old, new in zip(before, vocabulary_tables(backbone), strict=True):
        assert new.shape[0] == 512
        assert torch.equal(new[:448], old)
        assert torch.allclose(new[448], old.mean(dim=0), atol=1e-6)


def test_spare_rows_keep_the_values_of_the_backbone() -> None:
    backbone, processor = small_backbone()
    before = [table.clone() for table in vocabulary_tables(backbone)]
    token = len(processor.tokenizer)
    build(backbone, processor)
    for old, new in zip(before, vocabulary_tables(backbone), strict=True):
        assert torch.equal(new[:token], old[:token]) and torch.equal(new[token + 1 :], old[token + 1 :])
        assert len(new) > token + 1


def test_a_new_row_starts_as_the_mean_of_all_words() -> None:
    backbone, processor = small_backbone()
    before = [table.clone() for table in vocabulary_tables(backbone)]
    known = len(processor.tokenizer)
    build(backbone, processor)
    for old, new in zip(before, vocabulary_tables(backbone), strict=True):
        assert torch.allclose(new[known], old[:known].mean(dim=0), atol=1e-6)


def test_positions_are_those_that_predict_the_token() -> None:
    ids = torch.tensor([[1, 7, 9, 9, 2], [0, 0, 1, 5, 9], [1, 4, 4, 2, 0]])
    rows, columns = face_positions(ids, 9)
    assert rows.tolist() == [0, 0, 1] and columns.tolist() == [1, 2, 3]


def test_a_face_that_nothing_predicts_is_refused() -> None:
    with pytest.raises(ValueError, match="conversation 1"):
        face_positions(torch.tensor([[1, 9], [9, 1]]), 9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_face_is_about_the_image_shown_last_before_it(side: str) -> None:
    # 2 tokens an image; row 0 has two images and a face after each, row 1 none, row 2 one after its first
    rows = ["..IIx.IIx", ".x.", "x.IIx..x"]
    padded = [row.rjust(12, "_") if side == "left" else row.ljust(12, "_") for row in rows]
    is_image = torch.tensor([[letter == "I" for letter in row] for row in padded])
    places = [(r, c) for r, row in enumerate(padded) for c, letter in enumerate(row) if letter == "x"]
    where, columns = (torch.tensor(numbers) for numbers in zip(*places, strict=True))
    assert images_before(is_image, where, columns, 2).tolist() == [0, 1, -1, -1, 2, 2]

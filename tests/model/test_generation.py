"""What generation says and shows is what teacher forcing gives for the same tokens (contract 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_facegpt import LORA, make_batch, pad, pixels, question, small_facegpt

from facegpt.errors import SampleError
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import Reply, end_token_ids, generate
from facegpt.model.spec import FaceHeadSettings
from facegpt.model.tokens import face_positions


@pytest.fixture(scope="module", params=[False, True], ids=["state", "state, image and text"])
def model(request: pytest.FixtureRequest) -> FaceGPT:
    return small_facegpt(
        head=FaceHeadSettings(reads_image=request.param, text_layer=1 if request.param else None)
    )


def prompts(model: FaceGPT, images: bool) -> list[list[int]]:
    return [
        question(model, "Who is it?", image=images),
        question(model, "Please show me a woman who smiles warmly at the camera."),
        question(model, "Hello, and this one?", image=images),
    ]


def say(model: FaceGPT, rows: list[list[int]], images: int, seed: int = 0, steps: int = 40) -> list[Reply]:
    ids, mask = pad(rows, model, "left")
    values = pixels(images) if images else None
    generator = torch.Generator().manual_seed(seed)
    return generate(model, ids, mask, values, steps, temperature=1.0, generator=generator)


def check_against_teacher_forcing(
    model: FaceGPT, rows: list[list[int]], replies: list[Reply], images: int, side: str
) -> int:
    """Compare faces and probabilities of the replies; returns how many faces there were."""
    whole = [row + reply.ids.tolist() for row, reply in zip(rows, replies, strict=True)]
    answers = [len(reply.ids) for reply in replies]
    batch = make_batch(model, whole, answers, pixels(images) if images else None, side=side)
    with torch.no_grad():
        output = model(batch)
    at_face = output.labels == model.face_token_id  # supervised only, so those of the replies
    expected = output.logits[at_face].softmax(dim=-1)[:, model.face_token_id]
    rows_of_faces, columns = face_positions(batch.input_ids, model.face_token_id)
    new = batch.label_mask[rows_of_faces, columns + 1]
    shown = [reply.faces.to_vector() for reply in replies if reply.faces is not None]
    assert torch.allclose(torch.cat(shown), output.face_parameters.to_vector()[new], atol=1e-4)
    assert torch.allclose(torch.cat([r.face_probabilities for r in replies]), expected, atol=1e-5)
    for reply in replies:
        count = int((reply.ids == model.face_token_id).sum())
        assert reply.text.count("<FACE>") == count == len(reply.face_probabilities)
        assert (0 if reply.faces is None else len(reply.faces)) == count
    return int(at_face.sum())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("images", [0, 2])
def test_generation_equals_teacher_forcing_over_several_turns(model: FaceGPT, images: int, side: str) -> None:
    rows = prompts(model, images > 0)
    replies = say(model, rows, images)
    assert check_against_teacher_forcing(model, rows, replies, images, side) >= 3
    assert max(len(reply.face_probabilities) for reply in replies) >= 2, "several faces in one answer"

    end = model.processor.tokenizer.eos_token_id
    second = []
    for row, reply in zip(rows, replies, strict=True):
        said = [token for token in reply.ids.tolist() if token != end]
        second.append([*row, *said, end, *question(model, "And now happier?", begin=False)])
    replies = say(model, second, images, seed=1)
    assert check_against_teacher_forcing(model, second, replies, images, side) >= 3


def test_a_row_says_the_same_alone_and_in_company(model: FaceGPT) -> None:
    rows = prompts(model, images=True)
    ids, mask = pad(rows, model, "left")
    together = generate(model, ids, mask, pixels(2), 20)
    for row, values in enumerate((pixels(2)[:1], None, pixels(2)[1:])):
        ids, mask = pad([rows[row]], model, "left")
        alone = generate(model, ids, mask, values, 20)[0]
        assert torch.equal(alone.ids, together[row].ids)


def test_greedy_answers_are_those_of_transformers(model: FaceGPT) -> None:
    rows = prompts(model, images=True)
    ids, mask = pad(rows, model, "left")
    answered = generate(model, ids, mask, pixels(2), 20)
    vlm: Any = model.vlm
    theirs = vlm.generate(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=pixels(2),
        max_new_tokens=20,
        do_sample=False,
        suppress_tokens=list(range(len(model.processor.tokenizer), 448)),  # rows without a token
    )
    for row, reply in enumerate(answered):
        assert reply.ids.tolist() == theirs[row, ids.shape[1] :][: len(reply.ids)].tolist()


def test_the_seed_decides_a_sampled_answer(model: FaceGPT) -> None:
    rows = prompts(model, images=False)
    first, second, other = (say(model, rows, 0, seed, 10) for seed in (5, 5, 6))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a.ids, b.ids) for a, b in zip(first, other, strict=True))


def test_answers_stop_at_the_end_token_and_hide_it() -> None:
    model = small_facegpt()
    end = model.processor.tokenizer.eos_token_id
    outputs: Any = model.vlm.get_output_embeddings()
    with torch.no_grad():
        outputs.token_adapter.base_layer.weight[end] *= 2.0
    replies = [r for seed in range(3) for r in say(model, prompts(model, False), 0, seed, 20)]
    finished = [reply for reply in replies if reply.ids[-1] == end]
    assert len(finished) > 0
    assert len({len(reply.ids) for reply in finished}) > 1, "rows of one batch end at different steps"
    assert all((reply.ids[:-1] != end).all() and "</s>" not in reply.text for reply in replies)


@pytest.mark.parametrize("case", ["pad is the end", "several ends", "the chat format's end"])
def test_answers_end_at_any_end_token_even_where_it_pads_too(case: str) -> None:
    model = small_facegpt()
    tokenizer, config = model.processor.tokenizer, model.vlm.generation_config
    end = tokenizer.eos_token_id
    if case == "pad is the end":
        tokenizer.pad_token = tokenizer.eos_token
    elif case == "several ends":
        words = torch.cat([r.ids for r in say(model, prompts(model, False), 0)]).tolist()
        end = max(set(words) - {model.face_token_id}, key=words.count)  # a word that it says often
        config.eos_token_id = [tokenizer.eos_token_id, end]
    else:
        end = tokenizer.convert_tokens_to_ids("<unk>")
        model.processor.chat_template = model.processor.chat_template.replace("</s>", "<unk>")
        assert end_token_ids(model) == sorted([end, tokenizer.eos_token_id])
    if case != "several ends":
        outputs: Any = model.vlm.get_output_embeddings()
        outputs.token_adapter.base_layer.weight.data[end] *= 2.0
    replies = [r for seed in range(3) for r in say(model, prompts(model, False), 0, seed, 20)]
    finished = [reply for reply in replies if reply.ids[-1] == end]
    assert finished and (case == "several ends" or len({len(reply.ids) for reply in finished}) > 1)
    for reply in replies:
        ended = int(reply.ids[-1]) in end_token_ids(model)
        assert (reply.ids[:-1] != end).all() and (ended or len(reply.ids) == 20)
        said = reply.ids[:-1] if ended else reply.ids
        assert reply.text == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_an_answer_is_cut_at_the_limit(model: FaceGPT) -> None:
    assert [len(r.ids) for r in say(model, prompts(model, False), 0, steps=1)] == [1, 1, 1]


def test_padding_images_and_rows_without_a_word_are_never_said() -> None:
    model = small_facegpt()
    tokenizer = model.processor.tokenizer
    layer: Any = model.vlm.get_output_embeddings()
    outputs = layer.token_adapter.base_layer
    never = [tokenizer.pad_token_id, model.vlm.config.image_token_id, len(tokenizer), 447]
    with torch.no_grad():  # make them as likely as can be
        outputs.weight[never] = 100 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    said = torch.cat([reply.ids for reply in say(model, prompts(model, False), 0)])
    assert not set(said.tolist()) & set(never)


def test_a_model_in_training_mode_answers_without_dropout_and_goes_on_training() -> None:
    model = small_facegpt(lora=replace(LORA, dropout=0.5))
    expected = say(model, prompts(model, False), 0, steps=10)
    model.train()
    replies = say(model, prompts(model, False), 0, steps=10)
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(expected, replies, strict=True))
    assert model.training and model.vlm.get_decoder().training


def test_right_padded_prompts_are_refused(model: FaceGPT) -> None:
    ids, mask = pad(prompts(model, False), model, "right")
    with pytest.raises(ValueError, match="left"):
        generate(model, ids, mask, None, 4)


def test_a_prompt_without_its_image_is_refused(model: FaceGPT) -> None:
    ids, mask = pad(prompts(model, True), model, "left")
    with pytest.raises(SampleError, match="0 images need 0"):
        generate(model, ids, mask, None, 4)
    with pytest.raises(ValueError, match="max_new_tokens"):
        generate(model, ids, mask, pixels(2), 0)

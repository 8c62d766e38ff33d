"""Batches: padding, pixel values and face targets in the order of their tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_files import face_image
from PIL import Image

from facegpt.data.collate import LARGEST_SQUARE, collate, collate_prompts, pixel_values
from facegpt.data.conversation import encode_conversation, encode_prompt
from facegpt.errors import SampleError
from facegpt.model.tokens import add_face_token
from facegpt.sample import FaceTarget, Message, Sample
from facegpt.standins.tiny_llava import TINY_RANDOM, build_processor, build_tokenizer


@pytest.fixture(scope="module")
def processor():
    tokenizer = build_tokenizer(["USER: Show the face. ASSISTANT: Here it is."] * 3, TINY_RANDOM.vocab_size)
    add_face_token(tokenizer, TINY_RANDOM.vocab_size)
    return build_processor(tokenizer, TINY_RANDOM)


def target(value, parameters=None):
    return FaceTarget(torch.full((3, 8, 8), value), torch.full((68, 2), value), torch.ones(8, 8), parameters)


def sample(name, question, answer=None, images=(), faces=()):
    messages = [Message("user", question)] + ([] if answer is None else [Message("assistant", answer)])
    return Sample(name, "test", messages, list(images), list(faces))


@pytest.fixture()
def samples():
    return [
        sample("a", "<image>\nShow it", "<FACE> and <FACE>", [face_image(32, 1)], [target(0.1), target(0.2)]),
        sample("b", "Hello", "A much longer answer without any face in it, so that others are padded."),
        sample("c", "<image>\n<image>\nTwo", "<FACE>", [face_image(32, 2), face_image(32, 3)], [target(0.3)]),
    ]


def test_training_batches_are_padded_on_the_right(samples, processor):
    batch = collate(samples, processor)
    assert batch.ids == ["a", "b", "c"] and batch.sources == ["test"] * 3
    for row, one in enumerate(samples):
        encoded = encode_conversation(one.messages, processor)
        length = len(encoded.input_ids)
        assert batch.input_ids[row, :length].tolist() == encoded.input_ids
        assert batch.label_mask[row, :length].tolist() == encoded.label_mask
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (batch.input_ids.shape[1] - length)
        assert (batch.input_ids[row, length:] == processor.tokenizer.pad_token_id).all()
        assert not batch.label_mask[row, length:].any()
    assert batch.input_ids.dtype == torch.int64 and batch.label_mask.dtype == torch.bool


def test_images_and_faces_come_in_the_order_of_their_tokens(samples, processor):
    batch = collate(samples, processor)
    assert batch.pixel_values.shape == (3, 3, 32, 32)
    image_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    assert (batch.input_ids == image_id).sum().item() == 3 * TINY_RANDOM.image_tokens
    for i, seed in enumerate((1, 2, 3)):
        assert torch.equal(batch.pixel_values[i], pixel_values([face_image(32, seed)], processor)[0])
    assert batch.faces.image[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert len(batch.faces) == 3 and batch.faces.parameters is None


def test_batches_without_images_or_faces_have_none(processor):
    batch = collate([sample("a", "Hi", "Ho")], processor)
    assert batch.pixel_values is None and batch.faces is None


def test_parameters_are_stacked_when_every_face_has_them(processor):
    faces = [target(0.1, torch.arange(4.0)), target(0.2, torch.ones(4))]
    whole = collate([sample("a", "Hi", "<FACE><FACE>", faces=faces)], processor)
    assert whole.faces.parameters.tolist() == [[0, 1, 2, 3], [1, 1, 1, 1]]
    mixed = collate([sample("a", "Hi", "<FACE><FACE>", faces=[faces[0], target(0.1)])], processor)
    assert mixed.faces.parameters is None


def test_prompts_are_padded_on_the_left_and_may_carry_targets(processor):
    prompts = [
        sample("a", "<image>\nShow it", images=[face_image(32)], faces=[target(0.5)]),
        sample("b", "Hello there, how are you?"),
    ]
    batch = collate_prompts(prompts, processor)
    for row, one in enumerate(prompts):
        ids = encode_prompt(one.messages, processor)
        assert batch.input_ids[row, -len(ids) :].tolist() == ids
        assert batch.attention_mask[row].flip(0).tolist() == sorted(batch.attention_mask[row].tolist())[::-1]
        assert batch.attention_mask[row].sum() == len(ids)
    assert not batch.label_mask.any() and len(batch.faces) == 1


def test_wide_images_are_padded_and_not_cropped(processor):
    wide = Image.new("RGB", (64, 32), (255, 0, 0))
    values = pixel_values([wide], processor)[0]
    top, middle = values[:, 2, 16], values[:, 16, 16]
    assert top.abs().max() < 0.01  # the mean colour is 0 after normalisation
    assert middle[0] > 1.5 and middle[1] < -1.5
    assert (values[0, 16] > 1.5).all()  # the whole width is there


def test_a_very_long_image_is_scaled_before_it_is_padded(processor, monkeypatch):
    asked, full = [], np.full
    monkeypatch.setattr(
        "facegpt.data.collate.np.full", lambda shape, *a, **o: asked.append(shape) or full(shape, *a, **o)
    )
    values = pixel_values([Image.new("RGB", (60_000, 1000), "red")], processor)
    assert asked == [(LARGEST_SQUARE, LARGEST_SQUARE, 3)] and values.shape == (1, 3, 32, 32)
    pixel_values([Image.new("RGB", (1, 30_000), "red")], processor)
    assert asked[1] == asked[0]


def test_scaling_first_gives_the_picture_of_padding_first(processor, monkeypatch):
    ramp = np.linspace(0, 255, 600)[None, :] * np.linspace(0.2, 1, 300)[:, None]
    wide = Image.fromarray(ramp.astype(np.uint8)).convert("RGB")
    padded_first = pixel_values([wide], processor)
    monkeypatch.setattr("facegpt.data.collate.LARGEST_SQUARE", 256)
    scaled_first = pixel_values([wide], processor)
    difference = (scaled_first - padded_first).abs()
    assert 0 < difference.mean() < 0.02 and difference[..., 10:22, :].max() < 0.05  # the rest are its borders


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (sample("photo 7", "Hi", "<FACE>"), "1 <FACE> and 0 face targets"),
        (sample("photo 7", "Hi", "Ho", faces=[target(0.1)]), "0 <FACE> and 1 face targets"),
        (sample("photo 7", "<image>\nHi", "Ho"), "1 <image> and 0 images"),
        (sample("photo 7", "Hi", "Ho", images=[face_image()]), "0 <image> and 1 images"),
        (sample("photo 7", "Hi " * 40, "Ho"), "no supervised token"),
        (sample("photo 7", "<FACE>?", "Ho"), "in a user turn"),
    ],
)
def test_a_sample_that_does_not_fit_together_is_named(samples, processor, bad, reason):
    with pytest.raises(SampleError, match=f"photo 7 .*{reason}"):
        collate([samples[0], bad], processor, max_length=40)

"""Samples to a batch: token ids padded, images preprocessed, face targets stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from facegpt.data.conversation import encode_conversation, encode_prompt, validate_sample
from facegpt.sample import Batch, FaceTarget, FaceTargets, Sample

# Pixels. A longer image is scaled down before it is padded (60000 x 1000 would else take 10 GB); a photograph
# of 24 megapixels is not touched.
LARGEST_SQUARE = 6144


def collate(samples: Sequence[Sample], processor: ProcessorMixin, max_length: int | None = None) -> Batch:
    """Whole conversations for training, padded on the right. Raises SampleError, naming the sample."""
    encoded = []
    for sample in samples:
        validate_sample(sample)
        encoded.append(encode_conversation(sample.messages, processor, max_length, sample.id))
    length = max(len(item.input_ids) for item in encoded)
    ids = torch.full((len(samples), length), processor.tokenizer.pad_token_id, dtype=torch.int64)
    attention, labels = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for row, item in enumerate(encoded):
        ids[row, : len(item.input_ids)] = torch.tensor(item.input_ids)
        attention[row, : len(item.input_ids)] = 1
        labels[row, : len(item.input_ids)] = torch.tensor(item.label_mask)
    return _batch(samples, processor, ids, attention, labels)


def collate_prompts(samples: Sequence[Sample], processor: ProcessorMixin) -> Batch:
    """Conversations that end with a user turn, for generation: padded on the left, nothing supervised.

    Face targets of the samples, which evaluation compares the answers with, need no `<FACE>` in the turns.
    Raises SampleError, naming the sample.
    """
    prompts = []
    for sample in samples:
        validate_sample(sample, prompt=True)
        prompts.append(encode_prompt(sample.messages, processor, sample.id))
    length = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(samples), length), processor.tokenizer.pad_token_id, dtype=torch.int64)
    attention = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        attention[row, length - len(prompt) :] = 1
    return _batch(samples, processor, ids, attention, torch.zeros(ids.shape, dtype=torch.bool))


def pixel_values(images: Sequence[Image.Image], processor: ProcessorMixin) -> Tensor:
    """Images (M,3,h,w) as the vision tower takes them.

    Images that are not square are padded with the mean colour, as LLaVA-1.5 was trained, not cropped; those
    with a side above LARGEST_SQUARE are scaled down to it first.
    An image that occurs several times (the same object, asked several questions) is processed once.
    """
    fill = tuple(round(255 * value) for value in processor.image_processor.image_mean)
    unique = {id(image): image for image in images}
    squares = [_square(image.convert("RGB"), fill) for image in unique.values()]
    place = {key: row for row, key in enumerate(unique)}
    processed = processor.image_processor(images=squares, return_tensors="pt").pixel_values
    values: Tensor = processed[[place[id(image)] for image in images]]
    return values


def stack_targets(faces: Sequence[FaceTarget]) -> FaceTargets | None:
    """Face targets of one size as a batch, None when there are none; parameters only if all have them."""
    if not faces:
        return None
    every = torch.ones(68, dtype=torch.bool)
    valid = [every if face.landmark_valid is None else face.landmark_valid for face in faces]
    parameters = [face.parameters for face in faces]
    known = [values for values in parameters if values is not None]
    return FaceTargets(
        torch.stack([face.image for face in faces]),
        torch.stack([face.landmarks for face in faces]),
        torch.stack([face.skin_mask for face in faces]),
        torch.stack(known) if len(known) == len(faces) else None,
        None if all(face.landmark_valid is None for face in faces) else torch.stack(valid),
    )


def _batch(
    samples: Sequence[Sample], processor: Any, ids: Tensor, attention: Tensor, labels: Tensor
) -> Batch:
    images = [image for sample in samples for image in sample.images]
    return Batch(
        ids=[sample.id for sample in samples],
        sources=[sample.source for sample in samples],
        input_ids=ids,
        attention_mask=attention,
        label_mask=labels,
        pixel_values=pixel_values(images, processor) if images else None,
        faces=stack_targets([face for sample in samples for face in sample.faces]),
    )


def _square(image: Image.Image, fill: tuple[int, ...]) -> Image.Image:
    """The RGB image in the middle of a square of colour `fill`, whose side is at most LARGEST_SQUARE."""
    if max(image.size) > LARGEST_SQUARE:
        scale = LARGEST_SQUARE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    side = max(image.size)
    if image.size == (side, side):
        return image
    canvas = np.full((side, side, 3), fill, dtype=np.uint8)
    top, left = (side - image.height) // 2, (side - image.width) // 2
    canvas[top : top + image.height, left : left + image.width] = np.asarray(image)
    return Image.fromarray(canvas)

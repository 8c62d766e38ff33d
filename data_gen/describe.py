"""python data_gen/describe.py --data outputs/demo/data/train --backbone tiny [key=value ...]

Lets the untouched vision-language model write what text-to-face and the face conversations are made of: a
description of each face along five aspects, and answers to questions about the photograph. The rows go to
DATA/descriptions.jsonl, where facegpt.data.records finds them.

Faces that have a row are skipped, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import MISSING
from PIL import Image
from tqdm import tqdm

from facegpt.config import parse_config
from facegpt.data.collate import collate_prompts, pixel_values
from facegpt.data.conversation import IMAGE_TOKEN
from facegpt.data.records import ANNOTATIONS, read_annotations, read_records
from facegpt.data.sample import FaceRecord, Message, Sample
from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS
from facegpt.errors import FaceGPTError
from facegpt.files import append_jsonl
from facegpt.model.backbone import image_features, load_backbone
from facegpt.model.tokens import FACE_TOKEN


@dataclass
class DescriptionSettings:
    """data: a folder of face records. backbone: "tiny", a model directory or a model id. batch: faces at
    once, each of which is asked 5 + questions times. questions: how many of the 6 topics, drawn by face and
    seed. limit: only the first so many faces. temperature: 0 takes the likeliest words.
    """

    data: str = MISSING
    backbone: str = "tiny"
    batch: int = 8
    questions: int = 4
    max_new_tokens: int = 96
    temperature: float = 0.0
    limit: int | None = None
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.questions <= len(FACE_QUESTIONS):
            raise ValueError(f"questions must be between 0 and {len(FACE_QUESTIONS)}, it is {self.questions}")


def main(argv: list[str]) -> None:
    settings = parse_config(DescriptionSettings, argv, __doc__)
    records = read_records(settings.data)
    out = Path(settings.data) / ANNOTATIONS
    done = read_annotations(out) if out.is_file() else {}
    missing = [index for index, name in enumerate(records.ids[: settings.limit]) if name not in done]
    if missing:
        device = settings.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(settings.seed)
        model, processor = load_backbone(settings.backbone, settings.dtype, device)
        with tqdm(total=len(missing), desc="describe", unit="face") as progress:
            for start in range(0, len(missing), settings.batch):
                faces = [records[index] for index in missing[start : start + settings.batch]]
                append_jsonl(out, describe(faces, model, processor, settings))
                progress.update(len(faces))
    print(f"{out}: {len(missing)} faces described, {len(done)} were there already")


def describe(
    faces: Sequence[FaceRecord], model: Any, processor: Any, settings: DescriptionSettings
) -> Iterator[dict[str, Any]]:
    """Rows of descriptions.jsonl for some faces, all their questions in one batch."""
    aspects = list(ASPECT_QUESTIONS)
    asked = []  # questions of each face: the aspects, then its topics
    for face in faces:
        rng = random.Random(f"{settings.seed}/{face.id}")
        topics = rng.sample(FACE_QUESTIONS, settings.questions)
        asked.append([*ASPECT_QUESTIONS.values(), *topics])
    images = [face.image for face in faces]
    answers = iter(ask(images, asked, model, processor, settings))
    for face, own in zip(faces, asked, strict=True):
        replies = [next(answers) for _ in own]
        description = {a: text for a, text in zip(aspects, replies[: len(aspects)], strict=True) if text}
        pairs = zip(own[len(aspects) :], replies[len(aspects) :], strict=True)
        conversation = [[question, text] for question, text in pairs if text]
        yield {"id": face.id, "description": description, "conversation": conversation}


@torch.no_grad()
def ask(
    images: Sequence[Image.Image],
    asked: Sequence[Sequence[str]],
    model: Any,
    processor: Any,
    settings: DescriptionSettings,
) -> list[str]:
    """The model's answers, in whole sentences, to the questions `asked` about each image, image by image.

    The vision tower sees every image once, however many questions there are about it.
    """
    samples = [
        Sample(f"question {question!r}", "describe", [Message("user", f"{IMAGE_TOKEN}\n{question}")], [image])
        for image, own in zip(images, asked, strict=True)
        for question in own
    ]
    batch = collate_prompts(samples, processor).to(model.device)
    features = image_features(model, pixel_values(images, processor).to(model.device, model.dtype))
    per_image = features.unflatten(0, (len(images), -1))  # (images, tokens, hidden)
    counts = torch.tensor([len(own) for own in asked], device=model.device)
    repeated = per_image.repeat_interleave(counts, dim=0).flatten(0, 1)
    embeddings = model.get_input_embeddings()(batch.input_ids)
    is_image = (batch.input_ids == model.config.image_token_id)[..., None]
    sampling = {"do_sample": True, "temperature": settings.temperature} if settings.temperature > 0 else {}
    ids = model.generate(
        inputs_embeds=embeddings.masked_scatter(is_image, repeated.to(embeddings.dtype)),
        attention_mask=batch.attention_mask,
        max_new_tokens=settings.max_new_tokens,
        **(sampling or {"do_sample": False}),
    )
    texts = processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [whole_sentences(text) for text in texts]


def whole_sentences(text: str) -> str:
    """The text without a last sentence that was cut off, and without our tokens should a model spell them."""
    for token in (IMAGE_TOKEN, FACE_TOKEN):
        text = text.replace(token, "")
    text = " ".join(text.split())
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if end >= 0 else text


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FaceGPTError as error:
        sys.exit(f"error: {error}")

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
from facegpt.data.collate import collate_prompts
from facegpt.data.conversation import IMAGE_TOKEN
from facegpt.data.records import ANNOTATIONS, read_annotations, read_records
from facegpt.data.sample import FaceRecord, Message, Sample
from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS
from facegpt.errors import FaceGPTError
from facegpt.files import append_jsonl
from facegpt.model.backbone import load_backbone
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
    prompts = [(face.image, question) for face, own in zip(faces, asked, strict=True) for question in own]
    answers = iter(ask(prompts, model, processor, settings))
    for face, own in zip(faces, asked, strict=True):
        replies = [next(answers) for _ in own]
        description = {a: text for a, text in zip(aspects, replies[: len(aspects)], strict=True) if text}
        pairs = zip(own[len(aspects) :], replies[len(aspects) :], strict=True)
        conversation = [[question, text] for question, text in pairs if text]
        yield {"id": face.id, "description": description, "conversation": conversation}


@torch.no_grad()
def ask(
    prompts: Sequence[tuple[Image.Image, str]], model: Any, processor: Any, settings: DescriptionSettings
) -> list[str]:
    """The model's answers to questions about images, in whole sentences."""
    samples = [
        Sample(f"prompt {i}", "describe", [Message("user", f"{IMAGE_TOKEN}\n{question}")], [image])
        for i, (image, question) in enumerate(prompts)
    ]
    batch = collate_prompts(samples, processor).to(model.device)
    sampling = {"do_sample": True, "temperature": settings.temperature} if settings.temperature > 0 else {}
    ids = model.generate(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        pixel_values=batch.pixel_values.to(model.dtype),  # type: ignore[union-attr]
        max_new_tokens=settings.max_new_tokens,
        **(sampling or {"do_sample": False}),
    )
    texts = processor.tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)
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

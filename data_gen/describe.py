"""python data_gen/describe.py --data outputs/demo/data/train --backbone tiny [key=value ...]

Lets the pretrained vision-language model write what text-to-face and the face conversations are made of: a
description of each face along five aspects, and answers to questions about the photograph. The rows go to
DATA/descriptions.jsonl, where facegpt.data.records finds them.

Faces that have a row are skipped, so an interrupted run continues where it stopped. A second run on the same
folder is refused while one is writing.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.collate import pixel_values
from facegpt.data.conversation import encode_prompt
from facegpt.data.records import ANNOTATIONS, FaceRecords, read_annotations, read_records
from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS
from facegpt.errors import ConfigError
from facegpt.files import append_jsonl, take_lock
from facegpt.machine import choose_device
from facegpt.model.backbone import image_features, load_backbone
from facegpt.sample import FACE_TOKEN, IMAGE_TOKEN, FaceRecord, Message


@dataclass
class DescriptionSettings:
    """data: a folder of face records. backbone: "tiny", a model directory or a model id. batch: faces at
    once, each of which is asked 5 + questions times. questions: how many of the 6 topics, drawn by face and
    seed. limit: only the first so many faces. temperature: 0 takes the likeliest words.
    max_new_tokens: the longest answer. seed: of topics, and of words at a temperature above 0. dtype: of the
    backbone; auto is bfloat16 where the device computes in it. device: auto is the GPU where there is one.
    """

    data: str = MISSING
    backbone: str = "tiny"
    batch: int = 32
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
        at_least(1, self, "batch", "max_new_tokens", "limit")
        at_least(0, self, "temperature")


def main(argv: list[str]) -> None:
    settings = parse_config(DescriptionSettings, argv, __doc__)
    records = read_records(settings.data)
    out = Path(settings.data) / ANNOTATIONS
    with only_writer(out):
        described, present = describe_missing(records, out, settings)
    print(f"{out}: {described} faces described, {present} were there already")


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold the lock of a file, which is created if need be; ConfigError when another process has it."""
    with path.open("a") as file:
        if not take_lock(file, wait=False):
            raise ConfigError(f"another process is writing {path}; wait for it or end it")
        yield


def describe_missing(records: FaceRecords, out: Path, settings: DescriptionSettings) -> tuple[int, int]:
    """Append a row for every face that has none; returns how many were written and how many were there."""
    done = read_annotations(out)
    missing = [index for index, name in enumerate(records.ids[: settings.limit]) if name not in done]
    if missing:
        device = choose_device(settings.device)
        torch.manual_seed(settings.seed)
        model, processor = load_backbone(settings.backbone, settings.dtype, device)
        with tqdm(total=len(missing), desc="describe", unit="face") as progress:
            for start in range(0, len(missing), settings.batch):
                faces = [records[index] for index in missing[start : start + settings.batch]]
                append_jsonl(out, describe(faces, model, processor, settings))
                progress.update(len(faces))
    return len(missing), len(done)


@torch.no_grad()
def describe(
    faces: Sequence[FaceRecord], model: Any, processor: Any, settings: DescriptionSettings
) -> Iterator[dict[str, Any]]:
    """Rows of descriptions.jsonl for some faces.

    The vision tower sees every image once. All faces are asked the same question together: their prompts are
    equally long, and their answers nearly.
    """
    aspects = list(ASPECT_QUESTIONS)
    asked = []  # questions of each face: the aspects, then its topics
    for face in faces:
        rng = random.Random(f"{settings.seed}/{face.id}")
        asked.append([*ASPECT_QUESTIONS.values(), *rng.sample(FACE_QUESTIONS, settings.questions)])
    pixels = pixel_values([face.shown for face in faces], processor)
    features = image_features(model, pixels.to(model.device, model.dtype)).unflatten(0, (len(faces), -1))
    answers: dict[tuple[int, str], str] = {}
    for question in [*ASPECT_QUESTIONS.values(), *FACE_QUESTIONS]:
        rows = [row for row, questions in enumerate(asked) if question in questions]
        if rows:
            texts = ask(question, features[rows], model, processor, settings)
            answers.update(zip([(row, question) for row in rows], texts, strict=True))
    for row, (face, questions) in enumerate(zip(faces, asked, strict=True)):
        replies = [answers[row, question] for question in questions]
        description = {a: text for a, text in zip(aspects, replies[: len(aspects)], strict=True) if text}
        pairs = zip(questions[len(aspects) :], replies[len(aspects) :], strict=True)
        conversation = [[question, text] for question, text in pairs if text]
        yield {"id": face.id, "description": description, "conversation": conversation}


def ask(
    question: str, features: Tensor, model: Any, processor: Any, settings: DescriptionSettings
) -> list[str]:
    """The model's answers, in whole sentences, to one question about each image.

    features: projected image tokens (n, tokens, hidden).
    """
    messages = [Message("user", f"{IMAGE_TOKEN}\n{question}")]
    prompt = encode_prompt(messages, processor)
    ids = torch.tensor([prompt], device=model.device).expand(len(features), -1)
    embeddings = model.get_input_embeddings()(ids)
    is_image = (ids == model.config.image_token_id)[..., None]
    sampling = {"do_sample": True, "temperature": settings.temperature} if settings.temperature > 0 else {}
    answers = model.generate(
        inputs_embeds=embeddings.masked_scatter(is_image, features.to(embeddings.dtype)),
        attention_mask=torch.ones_like(ids),
        max_new_tokens=settings.max_new_tokens,
        **(sampling or {"do_sample": False}),
    )
    texts = processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [whole_sentences(text) for text in texts]


def whole_sentences(text: str) -> str:
    """The text without a last sentence that was cut off, and without our tokens should a model spell them."""
    for token in (IMAGE_TOKEN, FACE_TOKEN):
        text = text.replace(token, "")
    text = " ".join(text.split())
    end = max(text.rfind(mark) for mark in ".!?")
    return text[: end + 1] if end >= 0 else text


if __name__ == "__main__":
    sys.exit(run(main))

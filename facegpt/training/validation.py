"""Validation by generation: held-out faces are asked for, and what the model really answers is measured."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from facegpt.data.collate import collate_prompts, stack_targets
from facegpt.data.records import read_records
from facegpt.data.targets import face_target, to_tensor
from facegpt.data.templates import FACE_QUESTIONS, face_request
from facegpt.errors import SampleError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.face_token_rates import face_token_rates
from facegpt.metrics.image import landmark_error, photometric_error
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import generate
from facegpt.render.renderer import render
from facegpt.sample import IMAGE_TOKEN, FaceRecord, Message, Sample
from facegpt.training.engine import Ranks, autocast, zero_stage
from facegpt.training.settings import TrainSettings
from facegpt.visualize import contact_sheet, head_picture, overlay

IMAGE, TEXT, CHAT = "image", "text", "chat"  # face from image, face from text, a question that wants no face
PICTURE_SIZE = 224

Drawing = Callable[[FaceParameters], Image.Image]


@dataclass
class Prompt:
    record: int
    kind: str
    sample: Sample


@dataclass
class Answer:
    """vector: the first face of the answer, None without one; errors compare it with the record."""

    record: int
    kind: str
    question: str
    text: str
    faces: int
    vector: list[float] | None = None
    landmark_error: float = math.nan
    photometric_error: float = math.nan


class Validation:
    """Asks for faces of held-out records in three ways, shared among the ranks."""

    def __init__(
        self,
        settings: TrainSettings,
        ranks: Ranks,
        head: HeadModel,
        model: FaceGPT,
        processor: ProcessorMixin,
    ) -> None:
        """Read the records. Raises SampleError when they cannot be used."""
        self.own, self.size = settings.validation, settings.data.render_size
        self.ranks, self.head, self.model, self.processor = ranks, head, model, processor
        records = read_records(Path(settings.data.folder) / (self.own.path or ""))
        self.records: list[FaceRecord] = list(records[: self.own.faces])
        if not self.records:
            raise SampleError(f"{self.own.path} (validation.path) holds no face records")
        self.prompts = _prompts(self.records, self.size)

    def __call__(self, engine: Any) -> tuple[dict[str, float], list[Answer]]:
        """Means over all ranks, and every answer. Every rank must call it; decoding is greedy."""
        own = self.prompts[self.ranks.rank :: self.ranks.world]
        # Equally many batches on every rank: at ZeRO-3 each one gathers weights from all ranks.
        most = math.ceil(len(self.prompts) / self.ranks.world)
        spare = [] if own and len(own) == most else self.prompts[:1]
        asked = own + spare
        answers: list[Answer] = []
        for start in range(0, most, self.own.batch):
            answers += self._ask(asked[start : start + self.own.batch], engine)
        gathered = [item for part in self.ranks.gather(answers[: len(own)]) for item in part]
        gathered.sort(key=lambda answer: (answer.record, answer.kind))
        return _summary(gathered), gathered

    @torch.no_grad()
    def _ask(self, prompts: list[Prompt], engine: Any) -> list[Answer]:
        batch = collate_prompts([prompt.sample for prompt in prompts], self.processor).to(self.ranks.device)
        with autocast(engine):
            replies = generate(
                self.model,
                batch.input_ids,
                batch.attention_mask,
                batch.pixel_values,
                max_new_tokens=self.own.max_new_tokens,
                synced_gpus=zero_stage(engine) == 3,
            )
        answers = []
        for prompt, reply in zip(prompts, replies, strict=True):
            count = 0 if reply.faces is None else len(reply.faces)
            answer = Answer(prompt.record, prompt.kind, prompt.sample.messages[-1].text, reply.text, count)
            if reply.faces is not None and prompt.sample.faces:
                self._measure(answer, reply.faces[0], prompt.sample)
            answers.append(answer)
        return answers

    def _measure(self, answer: Answer, face: FaceParameters, sample: Sample) -> None:
        target = stack_targets(sample.faces)
        assert target is not None
        image, landmarks, skin = (
            value.to(self.ranks.device) for value in (target.image, target.landmarks, target.skin_mask)
        )
        rendering = render(self.head, face, self.size)
        answer.vector = face.to_vector()[0].tolist()
        answer.landmark_error = float(landmark_error(rendering.landmarks, landmarks, self.size))
        answer.photometric_error = float(
            photometric_error(image, rendering.image, skin * rendering.skin_mask)
        )

    def sheet(self, answers: list[Answer]) -> Image.Image:
        """A row per face: photograph, the answer over it, the answer alone, the answer to its description."""
        found = {(answer.record, answer.kind): answer.vector for answer in answers}

        def draw(index: int, kind: str, picture: Drawing) -> Image.Image | None:
            vector = found.get((index, kind))
            return None if vector is None else picture(self._parameters(vector))

        rows = []
        for index, record in enumerate(self.records[: self.own.pictures]):
            photo = record.image.resize((PICTURE_SIZE, PICTURE_SIZE))

            def over(face: FaceParameters, photo: Image.Image = photo) -> Image.Image:
                rendering = render(self.head, face, PICTURE_SIZE)
                return overlay(to_tensor(photo), rendering.image[0].cpu(), rendering.mask[0].cpu())

            def alone(face: FaceParameters) -> Image.Image:
                return head_picture(self.head, face, PICTURE_SIZE)

            rows.append(
                [photo, draw(index, IMAGE, over), draw(index, IMAGE, alone), draw(index, TEXT, alone)]
            )
        return contact_sheet(rows, ["photograph", "image to face", "its head", "text to face"])

    def _parameters(self, vector: list[float]) -> FaceParameters:
        tensor = torch.tensor([vector], device=self.ranks.device)
        return FaceParameters.from_vector(tensor, self.model.spec.layout)


def _prompts(records: list[FaceRecord], size: int) -> list[Prompt]:
    """What is asked of every record, grouped by kind, so that prompts of a batch have similar lengths."""
    prompts = []
    for index, record in enumerate(records):
        rng = random.Random(index)
        target = face_target(record, size)
        questions = [question for question, _ in record.conversation] or FACE_QUESTIONS
        texts = {IMAGE: face_request(rng)[0], CHAT: rng.choice(questions)}
        if record.description:
            texts[TEXT] = face_request(rng, record.description)[0]
        for kind, text in texts.items():
            front, images = ("", []) if kind == TEXT else (f"{IMAGE_TOKEN}\n", [record.image])
            faces = [] if kind == CHAT else [target]
            sample = Sample(record.id, kind, [Message("user", front + text)], images, faces)
            prompts.append(Prompt(index, kind, sample))
    return sorted(prompts, key=lambda prompt: prompt.kind)


def _summary(answers: list[Answer]) -> dict[str, float]:
    """Means per kind; what cannot be said, as an error without any face, is left out."""
    values: dict[str, float] = {}
    for kind in (IMAGE, TEXT):
        own = [answer for answer in answers if answer.kind == kind]
        faces = [answer for answer in own if answer.vector is not None]
        if own:
            rates = face_token_rates([1] * len(own), [a.faces for a in own])
            values[f"{kind}/emission_recall"] = rates.recall
        for name in ("landmark_error", "photometric_error"):
            known = [value for value in (getattr(face, name) for face in faces) if not math.isnan(value)]
            if known:
                values[f"{kind}/{name}"] = sum(known) / len(known)
    chat = [answer.faces for answer in answers if answer.kind == CHAT]
    values["chat/false_positive_rate"] = face_token_rates([0] * len(chat), chat).false_positive_rate
    return values

"""Validation by generation: held-out faces are asked for, and what the model really answers is measured.

It is measured as `eval/reconstruct.py` does: at 224 pixels, on the skin of the true face, and where a request
brings no `<FACE>` the mean face is scored in its place.
"""

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

from facegpt.data.collate import collate_prompts
from facegpt.data.held_out import target_groups, true_parameters
from facegpt.data.records import FaceRecords, read_records
from facegpt.data.targets import to_tensor
from facegpt.data.templates import FACE_QUESTIONS, face_request
from facegpt.errors import HeadMismatchError, RenderingError, SampleError, TrainingError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.face_token_rates import face_token_rates
from facegpt.metrics.image_errors import image_errors
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import Reply, generate
from facegpt.render.renderer import render
from facegpt.sample import IMAGE_TOKEN, FaceRecord, Message, Sample
from facegpt.training.engine import Ranks, autocast, zero_stage
from facegpt.training.settings import TrainSettings
from facegpt.visualize import contact_sheet, head_picture, overlay

IMAGE, TEXT, CHAT = "image", "text", "chat"  # face from image, face from text, a question that wants no face
SIZE = 224  # of the comparison and the pictures

Drawing = Callable[[FaceParameters], Image.Image]


@dataclass
class Prompt:
    """What is asked about record number `record`; kind: one of `IMAGE`, `TEXT`, `CHAT`."""

    record: int
    kind: str
    sample: Sample


@dataclass
class Answer:
    """vector: the first face of the answer, None without one; errors compare it with the record.

    They are NaN for a question that wants no face. drawable: not so when a face came that is not finite.
    """

    record: int
    kind: str
    question: str
    text: str
    num_faces: int
    vector: list[float] | None = None
    drawable: bool = True
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
        self.settings = settings.validation
        self.ranks, self.head, self.model, self.processor = ranks, head, model, processor
        path = Path(settings.data.folder) / (self.settings.path or "")
        data = read_records(path)
        self.records: list[FaceRecord] = list(data[: self.settings.faces])
        if not self.records:
            raise SampleError(f"{path} (validation.path) holds no face records")
        self.truth = _truth(self.records, data, head)
        self.prompts = _prompts(self.records)
        layout = model.spec.layout
        mean = head.mean_parameters(1, layout.neck, layout.eyes)
        # Measured now, because a record that cannot be compared is to be found before the first step.
        names, targets = [record.id for record in self.records], target_groups(self.records, SIZE)
        self.mean_errors = image_errors(names, targets, {"mean": mean}, head, self.truth)["mean"]

    def __call__(self, engine: Any) -> tuple[dict[str, float], list[Answer]]:
        """Means over all ranks, and every answer. Every rank must call it; decoding is greedy.

        Raises TrainingError on every rank when an answer holds a face that cannot be drawn.
        """
        share = self.prompts[self.ranks.rank :: self.ranks.world]
        # Equally many batches on every rank: at ZeRO-3 each one gathers weights from all ranks.
        most = math.ceil(len(self.prompts) / self.ranks.world)
        spare = [] if share and len(share) == most else self.prompts[:1]
        asked = share + spare
        answers: list[Answer] = []
        for start in range(0, most, self.settings.batch):
            answers += self._ask(asked[start : start + self.settings.batch], engine)
        answers = answers[: len(share)]
        for answer in answers:
            if answer.kind != CHAT:
                self._measure(answer)
        gathered = [item for part in self.ranks.gather(answers) for item in part]
        gathered.sort(key=lambda answer: (answer.record, answer.kind))
        for answer in gathered:
            if not answer.drawable:
                name = self.records[answer.record].id
                raise TrainingError(
                    f"the model answers the {answer.kind} of {name} with a face that cannot be drawn: it "
                    "has diverged; start again with a lower optimization.lr"
                )
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
                max_new_tokens=self.settings.max_new_tokens,
                synced_gpus=zero_stage(engine) == 3,
            )
        return [answered(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]

    def _measure(self, answer: Answer) -> None:
        index = answer.record
        if answer.vector is None:  # the mean face is scored in its place
            errors, row = self.mean_errors, index
        else:
            record, truth = self.records[index], None if self.truth is None else self.truth[index]
            faces, targets = {"answer": self._parameters(answer.vector)}, target_groups([record], SIZE)
            try:
                errors, row = image_errors([record.id], targets, faces, self.head, truth)["answer"], 0
            except RenderingError:  # numbers that are not finite or too large
                answer.drawable = False
                return
        answer.landmark_error = float(errors.landmark[row])
        answer.photometric_error = float(errors.photometric[row])

    def sheet(self, answers: list[Answer]) -> Image.Image:
        """A row per face: photograph, the answer over it, the answer alone, the answer to its description."""
        found = {(answer.record, answer.kind): answer.vector for answer in answers}

        def draw(index: int, kind: str, picture: Drawing) -> Image.Image | None:
            vector = found.get((index, kind))
            return None if vector is None else picture(self._parameters(vector))

        rows = []
        for index, record in enumerate(self.records[: self.settings.pictures]):
            photo = record.image.resize((SIZE, SIZE))

            def over(face: FaceParameters, photo: Image.Image = photo) -> Image.Image:
                rendering = render(self.head, face, SIZE)
                return overlay(to_tensor(photo), rendering.image[0].cpu(), rendering.mask[0].cpu())

            def alone(face: FaceParameters) -> Image.Image:
                return head_picture(self.head, face, SIZE)

            rows.append(
                [photo, draw(index, IMAGE, over), draw(index, IMAGE, alone), draw(index, TEXT, alone)]
            )
        return contact_sheet(rows, ["photograph", "image to face", "its head", "text to face"])

    def _parameters(self, vector: list[float]) -> FaceParameters:
        tensor = torch.tensor([vector], device=self.ranks.device)
        return FaceParameters.from_vector(tensor, self.model.spec.layout)


def answered(prompt: Prompt, reply: Reply) -> Answer:
    """What a reply says, not measured yet."""
    count = 0 if reply.faces is None else len(reply.faces)
    vector = None if reply.faces is None else reply.faces[0].to_vector()[0].tolist()
    return Answer(prompt.record, prompt.kind, prompt.sample.messages[-1].text, reply.text, count, vector)


def _truth(records: list[FaceRecord], data: FaceRecords, head: HeadModel) -> FaceParameters | None:
    """The known parameters of synthetic faces; of those of another head nothing is known."""
    try:
        return true_parameters(records, data, head)
    except (HeadMismatchError, SampleError):
        return None


def _prompts(records: list[FaceRecord]) -> list[Prompt]:
    """What is asked of every record, grouped by kind, so that prompts of a batch have similar lengths."""
    prompts = []
    for index, record in enumerate(records):
        rng = random.Random(index)
        questions = [question for question, _ in record.conversation] or FACE_QUESTIONS
        texts = {IMAGE: face_request(rng)[0], CHAT: rng.choice(questions)}
        described = rng.choice(record.texts) if record.texts else record.description
        if described:
            texts[TEXT] = face_request(rng, described)[0]
        for kind, text in texts.items():
            front, images = ("", []) if kind == TEXT else (f"{IMAGE_TOKEN}\n", [record.shown])
            sample = Sample(record.id, kind, [Message("user", front + text)], images)
            prompts.append(Prompt(index, kind, sample))
    return sorted(prompts, key=lambda prompt: prompt.kind)


def _summary(answers: list[Answer]) -> dict[str, float]:
    """Means per kind of question; what cannot be said is left out."""
    values: dict[str, float] = {}
    for kind in (IMAGE, TEXT):
        asked = [answer for answer in answers if answer.kind == kind]
        if not asked:
            continue
        counts = [answer.num_faces for answer in asked]
        values[f"{kind}/emission_recall"] = face_token_rates([1] * len(asked), counts).recall
        for name in ("landmark_error", "photometric_error"):
            known = [value for value in (getattr(a, name) for a in asked) if not math.isnan(value)]
            if known:
                values[f"{kind}/{name}"] = sum(known) / len(known)
    counts = [answer.num_faces for answer in answers if answer.kind == CHAT]
    values["chat/false_positive_rate"] = face_token_rates([0] * len(counts), counts).false_positive_rate
    return values

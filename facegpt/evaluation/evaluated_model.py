"""What the evaluation recipes share: the model of a run, generated answers, means with their error."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from facegpt.chat import answer, newest_checkpoint
from facegpt.files import atomic_path
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.machine import choose_device, package_versions
from facegpt.model.checkpoint import load_facegpt, read_description
from facegpt.model.facegpt import FaceGPT
from facegpt.model.generation import Reply
from facegpt.sample import Sample

WHEN_NO_FACE = (
    "Every answer is generated token by token; nothing is teacher forced. Where a request for a face brings "
    "no <FACE>, the mean face is scored in its place."
)


@dataclass
class EvaluatedModel:
    """What is evaluated: a model, the head it speaks of, and the checkpoint both come from."""

    model: FaceGPT
    head: HeadModel
    checkpoint: Path

    @property
    def layout(self) -> ParameterLayout:
        """Sizes of the faces that the model speaks; neck and eyes only where it has learnt them."""
        return self.model.spec.layout

    def mean_face(self) -> FaceParameters:
        """The head's mean parameters in the layout of the model."""
        return self.head.mean_parameters(1, self.layout.neck, self.layout.eyes)


def open_evaluated_model(
    checkpoint: str, head: str, backbone: str | None = None, device: str = "auto", merge: bool = True
) -> EvaluatedModel:
    """Load the newest checkpoint of a run and its head, "builtin" or a head file.

    merge: add LoRA to the backbone, as chat does, which halves the time of a token.
    Raises CheckpointError, HeadFileError or HeadMismatchError for what cannot be loaded or does not fit,
    ConfigError for a device that is not here.
    """
    folder = newest_checkpoint(checkpoint)
    model_head = HeadModel.open(head)
    chosen = choose_device(device)
    model, _ = load_facegpt(folder, model_head, chosen, backbone=backbone or None, merge=merge)
    return EvaluatedModel(model, model_head.to(chosen), folder)


def replies_to(
    evaluated: EvaluatedModel, samples: Sequence[Sample], batch: int, max_new_tokens: int, label: str
) -> list[Reply]:
    """Greedy answers in the order of the samples; batched by length, so that little is padding."""
    order = sorted(
        range(len(samples)), key=lambda i: (len(samples[i].images), len(samples[i].messages[0].text))
    )
    found: dict[int, Reply] = {}
    with tqdm(total=len(samples), desc=label, unit="answer") as progress:
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            replies = answer(evaluated.model, [samples[i] for i in chosen], max_new_tokens)
            found.update(zip(chosen, replies, strict=True))
            progress.update(len(chosen))
    return [found[index] for index in range(len(samples))]


def first_faces(replies: Sequence[Reply], evaluated: EvaluatedModel) -> FaceParameters:
    """The first face of every reply, the mean face where there is none; (N) faces on the head's device."""
    mean = evaluated.mean_face()
    return FaceParameters.cat([mean if r.faces is None else r.faces[0].to(mean.shape) for r in replies])


def face_counts(replies: Sequence[Reply]) -> list[int]:
    """How many faces each reply has."""
    return [0 if reply.faces is None else len(reply.faces) for reply in replies]


def mean_and_error(values: Tensor | Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error (0 for a single value)."""
    numbers = torch.as_tensor(values, dtype=torch.float64)
    spread = float(numbers.std()) if len(numbers) > 1 else 0.0
    return float(numbers.mean()), spread / math.sqrt(len(numbers))


def provenance(evaluated: EvaluatedModel, settings: Any) -> dict[str, Any]:
    """How the numbers came about: command, settings, checkpoint, head, versions."""
    description = read_description(evaluated.checkpoint)
    return {
        "command": shlex.join(["python", *sys.argv]),
        "settings": dict(vars(settings)),
        "seed": settings.seed,
        "checkpoint": evaluated.checkpoint.as_posix(),
        "training": description.get("extra", {}),
        "backbone": description["backbone"],
        "head_id": evaluated.head.id,
        "head": evaluated.head.data.metadata.get("name", ""),
        "device": str(evaluated.model.device),
        "versions": package_versions(),
    }


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines, atomically."""
    with atomic_path(path) as temporary:
        text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        temporary.write_text(text, encoding="utf-8")


def samples_path(out: Path) -> Path:
    """Where the single answers of a result file lie: reconstruct.json -> reconstruct_samples.jsonl."""
    return out.with_name(f"{out.stem}_samples.jsonl")

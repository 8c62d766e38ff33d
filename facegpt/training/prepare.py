"""Everything a run works with, loaded and checked before the first step."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
import transformers
from transformers import ProcessorMixin

from facegpt.errors import CheckpointError, ConfigError
from facegpt.head.model import HeadModel
from facegpt.losses.objective import FaceObjective
from facegpt.model.backbone import load_backbone
from facegpt.model.checkpoint import load_facegpt, load_weights
from facegpt.model.facegpt import FaceGPT, build_facegpt
from facegpt.perception.recognizer import load_recognizer
from facegpt.training.engine import Ranks, check_deepspeed_config
from facegpt.training.resume import checkpoint_to_resume
from facegpt.training.settings import TrainSettings
from facegpt.training.step import FaceLoss
from facegpt.training.stream import Stream
from facegpt.training.validation import Validation


@dataclass
class TrainingParts:
    """What a run works with, all of it checked.

    checkpoint: where it goes on from, None for a start. note: what cannot be learnt with this head, or "".
    """

    head: HeadModel
    model: FaceGPT
    processor: ProcessorMixin
    face_loss: FaceLoss
    stream: Stream
    validation: Validation | None
    checkpoint: Path | None
    note: str


def prepare(settings: TrainSettings, ranks: Ranks) -> TrainingParts:
    """Load and check everything; nothing is written and the ranks do not wait for each other.

    Raises a FaceGPTError or OSError whose text says what is wrong.
    """
    if settings.logging.wandb and importlib.util.find_spec("wandb") is None:
        raise ConfigError("logging.wandb is set but wandb is not installed; install it or leave it out")
    torch.manual_seed(settings.seed)
    head = HeadModel.open(settings.model.head).to(ranks.device)
    note = check_head(head, settings.model.head)
    checkpoint = checkpoint_to_resume(settings, head, ranks)
    model, processor = load_model(settings, head, ranks.device)
    if checkpoint is not None:
        load_weights(model, checkpoint)  # now: ZeRO-3 splits them when the engine is built
    check_deepspeed_config(settings.optimization, model.vlm.dtype == torch.bfloat16)
    recognizer = (
        load_recognizer(settings.model.recognizer).to(ranks.device) if settings.objective.perceptual else None
    )
    objective = FaceObjective(settings.objective, recognizer, model.spec.layout)
    context = int(model.vlm.config.get_text_config().max_position_embeddings)
    if settings.data.max_length > context:
        raise ConfigError(
            f"data.max_length is {settings.data.max_length}, the backbone reads {context} tokens"
        )
    stream = Stream(settings, ranks, processor)
    stream.check(head, model.spec.layout)
    return TrainingParts(
        head=head,
        model=model,
        processor=processor,
        face_loss=FaceLoss(head, objective, settings.data.render_size),
        stream=stream,
        validation=Validation(settings, ranks, head, model, processor) if settings.validation.path else None,
        checkpoint=checkpoint,
        note=note,
    )


def check_head(head: HeadModel, name: str) -> str:
    """One sentence about what cannot be learnt with this head, "" when it has everything.

    Raises ConfigError when it has no landmarks: without them no face finds its place in the photograph.
    """
    if not head.has_landmarks:
        raise ConfigError(
            f"the head model {name} has no landmarks to train with; put FLAME's landmark embedding beside it "
            "(docs/heads.md), or take another head"
        )
    missing = []
    if not head.has_skin_mask:
        missing.append("no mask of the face, so hair, ears and neck are compared as if they were skin")
    if not head.has_texture:
        missing.append("no texture, so the color of the skin is not learnt")
    return f"the head model {name} has {', and '.join(missing)}" if missing else ""


def load_model(
    settings: TrainSettings, head: HeadModel, device: torch.device
) -> tuple[FaceGPT, ProcessorMixin]:
    """The backbone with fresh trainable parts, or with those of the checkpoint `model.start`.

    Raises CheckpointError for what cannot be loaded, ConfigError for LoRA targets, face-head scales or a
    tokenizer that do not fit.
    """
    chosen = settings.model
    if chosen.start:
        model, processor = load_facegpt(chosen.start, head, device, dtype=chosen.dtype)
        if model.spec.lora is None:
            raise CheckpointError(
                f"{chosen.start} is merged and has no LoRA to train; start before the merge"
            )
    else:
        backbone, processor = load_backbone(chosen.backbone, chosen.dtype, device)
        mean = head.mean_parameters(neck=chosen.neck, eyes=chosen.eyes)
        vector = mean.to_vector()[0]
        try:
            model = build_facegpt(
                backbone, processor, mean.layout, vector, chosen.lora, chosen.face_head.settings()
            )
        except ValueError as error:
            raise ConfigError(f"{chosen.backbone} cannot be trained like that: {error}") from None
    if chosen.activation_checkpointing:
        model.checkpoint_activations()
    return model, processor


def quiet_libraries() -> None:
    """Every rank would draw the bars of loading weights and shards, and warn of its libraries' own calls."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)

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
from facegpt.training.engine import Ranks, deepspeed_config
from facegpt.training.resume import checkpoint_to_resume
from facegpt.training.settings import TrainSettings
from facegpt.training.step import FaceLoss
from facegpt.training.stream import Stream
from facegpt.training.validation import Validation


@dataclass
class Parts:
    """What a run works with, all of it checked."""

    head: HeadModel
    model: FaceGPT
    processor: ProcessorMixin
    face_loss: FaceLoss
    stream: Stream
    validation: Validation | None
    checkpoint: Path | None


def prepare(settings: TrainSettings, ranks: Ranks) -> Parts:
    """Load and check everything; nothing is written and the ranks do not wait for each other."""
    if settings.logging.wandb and importlib.util.find_spec("wandb") is None:
        raise ConfigError("logging.wandb is set but wandb is not installed; install it or leave it out")
    torch.manual_seed(settings.seed)
    head = HeadModel.open(settings.model.head)
    head = head.to(ranks.device)
    checkpoint = checkpoint_to_resume(settings, head.id, ranks)
    model, processor = load_model(settings, head, ranks.device)
    if checkpoint is not None:
        load_weights(model, checkpoint)  # now: ZeRO-3 splits them when the engine is built
    deepspeed_config(settings.optimization, model.vlm.dtype == torch.bfloat16)  # for its errors only
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
    stream.check(head.id, model.spec.layout)
    validation = Validation(settings, ranks, head, model, processor) if settings.validation.path else None
    return Parts(
        head,
        model,
        processor,
        FaceLoss(head, objective, settings.data.render_size),
        stream,
        validation,
        checkpoint,
    )


def load_model(
    settings: TrainSettings, head: HeadModel, device: torch.device
) -> tuple[FaceGPT, ProcessorMixin]:
    """The backbone with fresh trainable parts, or with those of the checkpoint `model.start`."""
    own = settings.model
    if own.start:
        model, processor = load_facegpt(own.start, head.id, device, dtype=own.dtype)
        if model.spec.lora is None:
            raise CheckpointError(f"{own.start} is merged and has no LoRA to train; start before the merge")
    else:
        backbone, processor = load_backbone(own.backbone, own.dtype, device)
        mean = head.mean_parameters(neck=own.neck, eyes=own.eyes)
        layout, vector = mean.layout, mean.to_vector()[0]
        model = build_facegpt(backbone, processor, layout, vector, own.lora, own.face_head.settings())
    if own.activation_checkpointing:
        model.checkpoint_activations()
    return model, processor


def quiet_libraries() -> None:
    """Every rank would draw the bars of loading weights and shards, and warn of its libraries' own calls."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)

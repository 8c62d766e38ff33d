"""Settings of a training run: all that `train/train.py` can be told, with the method's values as defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal

from facegpt.config import MISSING
from facegpt.losses.objective import ObjectiveWeights
from facegpt.model.spec import FaceHeadSettings, LoraSettings

# The least that a number may be, and where no number may be negative.
NEVER_NEGATIVE = ("optimization.", "objective.", "data.sources.")
LEAST = {
    "data.render_size": 1,
    "data.max_length": 1,
    "data.check": -1,
    "data.prefetch": 1,
    "optimization.steps": 1,
    "optimization.batch": 1,
    "optimization.accumulation": 1,
    "optimization.warmup": 1,
    "validation.every": 1,
    "validation.faces": 1,
    "validation.batch": 1,
    "validation.pictures": 0,
    "validation.max_new_tokens": 1,
    "logging.every": 1,
    "checkpoint.every": 0,
    "checkpoint.keep": -1,
}


@dataclass
class FaceHeadOptions:
    """`FaceHeadSettings` as YAML can say it.

    widths: of the hidden layers; null: one layer of the backbone's width.
    scales: group of parameters -> output scale, one number or one for each of its parameters.
    reads_image: whether the face head sees the mean image token beside the face state.
    text_layer: of the language model, from 1, whose states of the text before the face it reads; null: none.
    """

    widths: list[int] | None = None
    scales: dict[str, list[float]] = field(default_factory=dict)
    reads_image: bool = False
    text_layer: int | None = None

    def settings(self) -> FaceHeadSettings:
        """As the model takes them; ConfigError for widths or scales that are too large or no numbers."""
        scales = {name: tuple(values) for name, values in self.scales.items()}
        widths = None if self.widths is None else tuple(self.widths)
        return FaceHeadSettings(widths, scales, self.reads_image, self.text_layer)


@dataclass
class ModelSettings:
    """What speaks and what it speaks about.

    backbone: "tiny" (built in) or a folder or hub name of a LLaVA in transformers' format.
    head: "builtin" or a head file (FLAME .pkl, our .npz or .safetensors).
    recognizer: network of the perceptual loss, "tiny" (built in), "sface" (fetched) or an ArcFace file:
        .onnx, .pth or .safetensors.
    start: a facegpt checkpoint whose trained parts are the starting point, null for a fresh start; its
        backbone, LoRA and face head then count, not those given here.
    dtype: of the frozen backbone; "auto" is bfloat16 where the device computes in it, else float32.
    neck, eyes: predict these optional groups too.
    activation_checkpointing: recompute activations in the backward pass: less memory, a third more time.
    """

    backbone: str = "llava-hf/llava-1.5-7b-hf"
    head: str = "builtin"
    recognizer: str = "tiny"
    start: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    neck: bool = False
    eyes: bool = False
    activation_checkpointing: bool = False
    lora: LoraSettings = field(default_factory=LoraSettings)
    face_head: FaceHeadOptions = field(default_factory=FaceHeadOptions)


@dataclass
class SourceSettings:
    """One source of conversations.

    kind: image_to_face and text_to_face read face records (a folder of parquet shards or of photographs with
        landmark files), instruct reads LLaVA's JSON list.
    path: folder of records, or the list.
    images: for instruct, the folder that the list's image names are relative to.
    weight: how often it is drawn in comparison with the other sources; 0 leaves it out.
    """

    kind: Literal["image_to_face", "text_to_face", "instruct"] = MISSING
    path: str = MISSING
    images: str | None = None
    weight: float = 1.0


@dataclass
class DataSettings:
    """Which conversations, in which proportion.

    sources: name -> source; the names appear in the metrics.
    folder: relative paths of sources and of `validation.path` start here.
    render_size: side of face targets and renderings in pixels.
    max_length: longest conversation in tokens, image tokens included.
    check_files: whether every record is loaded and every picture decoded before training (1-2 ms a synthetic
        face, more for large photographs; the ranks share the work).
    check: how many of the run's conversations are tokenised before training; -1: all of them.
    prefetch: steps whose batches are prepared ahead by the loading thread.
    """

    sources: dict[str, SourceSettings] = field(default_factory=dict)
    folder: str = "."
    render_size: int = 224
    max_length: int = 2048
    check_files: bool = True
    check: int = 20000
    prefetch: int = 2


@dataclass
class ObjectiveSettings(ObjectiveWeights):
    """total = text * L_text + face * L_face; the weights inside L_face are those of `ObjectiveWeights`.

    text, face: weight of the part in the total.
    pixel, perceptual, landmark, regularization: weight of the part in L_face; 0 leaves it out.
    landmark_delta: pixels of a 224 crop beyond which the landmark part grows linearly; 0: nowhere.
    """

    text: float = 1.0
    face: float = 0.1


@dataclass
class OptimizationSettings:
    """AdamW under DeepSpeed's WarmupDecayLR (linear warm-up, linear decay).

    steps: optimiser steps of the whole run. batch: conversations per rank and micro-batch. accumulation:
    micro-batches per step. lr: LoRA, and the face head and the <FACE> rows when theirs is 0.
    clip: the largest norm of the whole gradient (0: none). The landmark term is in square pixels unless it
        has a `landmark_delta`, so it may be passed in every step; `clipped` in the metrics is the share of
        steps that did.
    face_head_lr, token_lr: of the face head and of the <FACE> rows; 0: lr.
    betas, weight_decay: AdamW's.
    warmup: steps of linear warm-up.
    deepspeed: DeepSpeed's JSON; a relative path starts where one is, or else at the root of the repository.
    """

    steps: int = 5000
    batch: int = 8
    accumulation: int = 4
    lr: float = 2e-5
    face_head_lr: float = 0.0
    token_lr: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    warmup: int = 100
    clip: float = 1.0
    deepspeed: str = "configs/deepspeed/zero2.json"


@dataclass
class ValidationSettings:
    """Validation by generation on held-out faces.

    path: face records (null: no validation). every: steps between validations; the last step always has one.
    faces: how many of the records. pictures: how many of them are shown in the contact sheet.
    batch: conversations at once. max_new_tokens: the longest answer.
    """

    path: str | None = None
    every: int = 200
    faces: int = 32
    batch: int = 8
    pictures: int = 6
    max_new_tokens: int = 48


@dataclass
class LoggingSettings:
    """every: steps between lines of metrics.jsonl. wandb: log to Weights & Biases, offline without a key.
    progress: whether to draw a bar. project: name of the project there.
    """

    every: int = 10
    progress: bool = True
    wandb: bool = False
    project: str = "facegpt"


@dataclass
class CheckpointSettings:
    """every: steps between checkpoints (0: at the end only). keep: how many of the newest stay (-1: all)."""

    every: int = 500
    keep: int = 2


@dataclass
class TrainSettings:
    """A training run.

    run: directory of everything the run writes. resume: continue from its newest checkpoint, or from the
    beginning when it has none. overwrite: delete what an earlier run left there. seed: of everything drawn.
    """

    run: str = MISSING
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimization: OptimizationSettings = field(default_factory=OptimizationSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)

    def __post_init__(self) -> None:
        """Impossible values, as ValueError (which `load_config` turns into a ConfigError naming the file)."""
        for key, number in _numbers(self):
            least = LEAST.get(key, 0 if key.startswith(NEVER_NEGATIVE) else None)
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{key} is {number}, it must be a finite number")
            if least is not None and number < least:
                raise ValueError(f"{key} is {number}, it must be at least {least}")
        if abs(self.seed) >= 2**32:
            raise ValueError(f"seed is {self.seed}, it must be below 2**32")
        if max(self.optimization.betas) >= 1:
            raise ValueError(f"optimization.betas are {self.optimization.betas}, they must be below 1")
        if not any(source.weight > 0 for source in self.data.sources.values()):
            raise ValueError("data.sources names no source with a weight above 0")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a dataclass and what it holds, with its dotted key; those of a list share one."""
    if isinstance(value, int | float):
        yield key, value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _numbers(item, key)
    elif isinstance(value, dict) or is_dataclass(value):
        for name, item in (value if isinstance(value, dict) else vars(value)).items():
            yield from _numbers(item, f"{key}.{name}" if key else name)

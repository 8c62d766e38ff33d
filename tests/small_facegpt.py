"""A FaceGPT for tests: the tiny random LLaVA, LoRA of rank 4, about 90 thousand parameters, seeded.

All weights that training would move are filled with noise, so that nothing is zero or equal by accident, and
`<FACE>` is made a likely word.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedModel, ProcessorMixin

from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.model.facegpt import FaceGPT, build_facegpt
from facegpt.model.spec import FaceHeadSettings, LoraSettings
from facegpt.sample import Batch, FaceTargets
from facegpt.standins.tiny_llava import TINY_RANDOM, build_tiny_llava

TEXTS = [
    "A woman with a round jaw line and high cheek bones smiles warmly at the camera.",
    "USER: Please show the 3D face of this person. ASSISTANT: Sure, here it is.",
] * 20
LAYOUT = ParameterLayout(shape=6, expression=4, albedo=3)
LORA = LoraSettings(rank=4, alpha=8, dropout=0.0)


def small_backbone(seed: int = 0) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """An untrained LLaVA of 68 thousand parameters; 4 image tokens, states that depend on the text."""
    model, processor = build_tiny_llava(TEXTS, TINY_RANDOM, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:  # transformers' 0.02 makes every state nearly the same
                parameter.data.normal_(std=0.3 if "embed" in name else 1.5 / parameter.shape[1] ** 0.5)
    model.name_or_path = "small"
    return model, processor


def small_facegpt(
    seed: int = 8,
    lora: LoraSettings | None = LORA,
    noise: bool = True,
    backbone: tuple[PreTrainedModel, ProcessorMixin] | None = None,
    head: FaceHeadSettings | None = None,
) -> FaceGPT:
    """See the module; noise=False leaves LoRA and face head as they are at the start of training."""
    vlm, processor = backbone or small_backbone(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        mean = FaceParameters.mean(LAYOUT).to_vector()[0]
        model = build_facegpt(vlm, processor, LAYOUT, mean, lora, head)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and noise:
                parameter.data.add_(torch.randn_like(parameter) * (2.0 if "token" in name else 0.1))
    return model


def question(model: FaceGPT, text: str, image: bool = False, begin: bool = True) -> list[int]:
    """Ids of one user turn up to where the answer begins."""
    marker = "<image>" * TINY_RANDOM.image_tokens + "\n" if image else ""
    return model.processor.tokenizer.encode(f"USER: {marker}{text} ASSISTANT:", add_special_tokens=begin)


def pad(rows: Sequence[Sequence[int]], model: FaceGPT, side: str = "right") -> tuple[Tensor, Tensor]:
    """Ids (N,T) and attention mask (N,T)."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), model.processor.tokenizer.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, values in enumerate(rows):
        where = slice(0, len(values)) if side == "right" else slice(width - len(values), width)
        ids[row, where], mask[row, where] = torch.tensor(values), 1
    return ids, mask


def make_batch(
    model: FaceGPT,
    rows: Sequence[Sequence[int]],
    answers: Sequence[int],
    pixel_values: Tensor | None = None,
    faces: FaceTargets | None = None,
    side: str = "right",
) -> Batch:
    """A batch in which the last answers[n] tokens of row n are supervised."""
    ids, mask = pad(rows, model, side)
    supervised, _ = pad([[1] * len(row) for row in rows], model, side)
    for row, (values, answer) in enumerate(zip(rows, answers, strict=True)):
        start = 0 if side == "right" else ids.shape[1] - len(values)
        supervised[row, : start + len(values) - answer] = 0
    label_mask = (supervised == 1) & mask.bool()
    names = [f"sample-{row}" for row in range(len(rows))]
    return Batch(names, ["test"] * len(rows), ids, mask, label_mask, pixel_values, faces)


def pixels(count: int, seed: int = 0) -> Tensor:
    """Normalised images (count,3,32,32) of noise."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))

"""Loading the vision-language model, and the few things that are particular to LLaVA.

Everything else in `facegpt.model` works with any Hugging Face image-text-to-text model that replaces the
embeddings of its image tokens by `get_image_features(pixel_values).pooler_output`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from facegpt.errors import CheckpointError

TINY_BACKBONE = Path(__file__).resolve().parent.parent / "assets" / "tiny_llava"

# LLaVA-1.5's Vicuna format without its system prompt. It is our own because the published llava-1.5-7b-hf
# template ends an assistant turn with a space instead of </s>: a model trained on that never learns to stop.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set ns = namespace(text='') %}"
    "{% if message['content'] is string %}{% set ns.text = message['content'] %}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{% set ns.text = ns.text + '<image>\n' %}"
    "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{% set ns.text = ns.text + part['text'] %}"
    "{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + ns.text + ' ' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ 'ASSISTANT: ' }}{% generation %}{{ ns.text + '</s>' }}{% endgeneration %}"
    "{% else %}{{ ns.text + ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def load_backbone(
    path: str | Path, dtype: torch.dtype | str = "auto", device: torch.device | str = "cpu"
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A frozen vision-language model in eval mode, and its processor.

    path: "tiny" for the built-in stand-in, a directory in Hugging Face layout, or a model id.
    dtype: of the weights, a torch type or its name; "auto" is bfloat16 on a GPU or a CPU with AMX, float32 on
    other CPUs.

    Raises CheckpointError when nothing can be loaded from `path`, ValueError for an unknown dtype.
    """
    source = TINY_BACKBONE if str(path) == "tiny" else path
    looks_local = isinstance(source, Path) or source.startswith((".", "/"))
    if looks_local and not Path(source).is_dir():
        raise CheckpointError(f"there is no model directory {source}; give the folder or the id of a model")
    weights = resolve_dtype(dtype, device)
    try:
        # The PIL image processor: torchvision's resizes differently, and results should not depend on it.
        processor = AutoProcessor.from_pretrained(source, backend="pil")
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=weights)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source} is not a readable image-text-to-text model: {error}") from error
    model.name_or_path = str(path)  # what a checkpoint records; never the folder that "tiny" stands for
    _complete_processor(processor, model.config)
    return freeze(cast(Any, model).to(device)), processor


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """Exclude every weight from training: vision tower, projector and language model alike."""
    return model.requires_grad_(False).eval()


def lora_targets(model: PreTrainedModel, names: tuple[str, ...]) -> str:
    """A regular expression for PEFT that matches the linear layers `names` of the language model only.

    Bare names such as "q_proj" would also hit the vision tower, whose layers have the same names.
    Raises ValueError when a name matches no linear layer, or the expression one outside the language model.
    """
    language = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is language)
    expression = rf"{re.escape(prefix)}\.(.*\.)?({'|'.join(map(re.escape, names))})"
    inside = {id(module) for module in language.modules()}
    hits = [(name, module) for name, module in model.named_modules() if re.fullmatch(expression, name)]
    strays = [name for name, module in hits if id(module) not in inside or not isinstance(module, nn.Linear)]
    if strays:
        raise ValueError(f"LoRA would change {strays[0]}, which is no linear layer of the language model")
    for wanted in names:
        if not any(name.endswith(f".{wanted}") for name, _ in hits):
            raise ValueError(f"the language model has no linear layer {wanted} for LoRA")
    return expression


def vision_tower(model: PreTrainedModel) -> nn.Module:
    """The image encoder."""
    return cast(nn.Module, model.base_model.vision_tower)


def vocabulary_tables(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Weights of the embedding and of the output layer, both (V,H); one tensor twice when they are tied."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    return cast(Tensor, inputs.weight), cast(Tensor, outputs.weight)


def image_features(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Projected image tokens (M*tokens, hidden) of pixel_values (M,3,h,w)."""
    return torch.cat(list(model.get_image_features(pixel_values=pixel_values).pooler_output))  # type: ignore


def blank_image(model: PreTrainedModel, device: torch.device) -> Tensor:
    """A zero image (1,3,h,w): what the tower sees when a batch has no image."""
    side = model.config.vision_config.image_size
    return torch.zeros(1, 3, side, side, device=device, dtype=model.dtype)


def image_token_count(processor: Any) -> int:
    """How many `<image>` tokens one image takes: 576 for LLaVA-1.5, 49 for the tiny stand-in."""
    crop = processor.image_processor.crop_size
    tokens = (crop["height"] // processor.patch_size) * (crop["width"] // processor.patch_size)
    dropped = 1 if processor.vision_feature_select_strategy == "default" else 0
    return tokens + processor.num_additional_image_tokens - dropped


def resolve_dtype(dtype: torch.dtype | str, device: torch.device | str) -> torch.dtype:
    """The dtype that `load_backbone` means. Raises ValueError for an unknown name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype != "auto":
        known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
        if dtype not in known:
            raise ValueError(f"dtype '{dtype}' is none of auto, {', '.join(known)}")
        return known[dtype]
    if torch.device(device).type != "cpu":
        return torch.bfloat16
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)  # a private name that may go
    return torch.bfloat16 if probe is not None and probe() else torch.float32


def _complete_processor(processor: Any, config: Any) -> None:
    """Older llava-1.5 snapshots lack the fields that count image tokens; all lack </s> in the template."""
    if config.model_type != "llava":
        return
    if processor.patch_size is None:
        processor.patch_size = config.vision_config.patch_size
        processor.num_additional_image_tokens = 1  # CLIP's CLS
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    processor.chat_template = CHAT_TEMPLATE

"""Loading the vision-language model, and the few things that are particular to LLaVA.

Everything else in `facegpt.model` works with any Hugging Face image-text-to-text model that replaces the
embeddings of its image tokens by `get_image_features(pixel_values).pooler_output`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from facegpt.errors import CheckpointError, ConfigError
from facegpt.model.chat_format import VICUNA_TEMPLATE, chat_format
from facegpt.model.small_llava import small_llava_folder  # its face tower is known to AutoModel from here on

TINY_BACKBONE = Path(__file__).resolve().parent.parent / "assets" / "tiny_llava"

# A name on the model hub: "owner/name" or "name".
MODEL_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_backbone(
    path: str | Path, dtype: torch.dtype | str = "auto", device: torch.device | str = "cpu"
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A frozen vision-language model in eval mode, and its processor.

    path: "small" for the small LLaVA, which is assembled from its fetched parts at the first time, "tiny" for
    the built-in stand-in, a directory in Hugging Face layout, or a model id.
    dtype: of the weights, a torch type or its name; "auto" is bfloat16 on a GPU and on a CPU that has
    instructions for it (AMX, AVX-512 BF16), float32 on other CPUs.

    Code that a folder brings along is never run: a model that needs some is refused.
    Raises CheckpointError when nothing can be loaded from `path` or its chat template cannot be followed,
    MissingPartError for a small LLaVA whose parts were not fetched, ConfigError for an unknown dtype.
    """
    builtin = {"tiny": lambda: TINY_BACKBONE, "small": small_llava_folder}.get(str(path))
    source = builtin() if builtin else path
    is_name = isinstance(source, str) and MODEL_ID.fullmatch(source)
    if not is_name and not (str(source) and Path(source).is_dir()):
        raise CheckpointError(f"there is no model directory {source}; give the folder or the id of a model")
    weights = resolve_dtype(dtype, device)
    with _readable(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        # The PIL image processor: torchvision's resizes differently, and results should not depend on it.
        processor = AutoProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
        _complete_processor(processor, config)
    chat_format(processor)  # for its error, which should come before the weights
    with _readable(source):
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=weights, trust_remote_code=False)
    model.name_or_path = str(path)  # what a checkpoint records; never the folder that "tiny" stands for
    return freeze(cast(Any, model).to(device)), processor


@contextmanager
def _readable(source: str | Path) -> Iterator[None]:
    """Turn whatever a broken or foreign folder raises into a CheckpointError of one sentence."""
    try:
        yield
    except Exception as error:  # readers of half a dozen formats raise many types; all mean the same here
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if "trust_remote_code" in str(error):
            reason = "it needs code of its own, and facegpt runs none that comes with a model"
        raise CheckpointError(f"{source} is not a readable image-text-to-text model: {reason}") from error


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """Exclude every weight from training: vision tower, projector and language model alike."""
    return model.requires_grad_(False).eval()


def lora_targets(model: PreTrainedModel, names: tuple[str, ...]) -> str:
    """A regular expression for PEFT that matches the linear layers `names` of the language model only.

    Bare names such as "q_proj" would also hit the vision tower, whose layers have the same names.
    Raises ConfigError when a name matches no linear layer, or the expression one outside the language model.
    """
    language = model.get_decoder()
    prefix = next(name for name, module in model.named_modules() if module is language)
    expression = rf"{re.escape(prefix)}\.(.*\.)?({'|'.join(map(re.escape, names))})"
    inside = {id(module) for module in language.modules()}
    hits = [(name, module) for name, module in model.named_modules() if re.fullmatch(expression, name)]
    strays = [name for name, module in hits if id(module) not in inside or not isinstance(module, nn.Linear)]
    if strays:
        raise ConfigError(f"LoRA would change {strays[0]}, which is no linear layer of the language model")
    for wanted in names:
        if not any(name.endswith(f".{wanted}") for name, _ in hits):
            raise ConfigError(f"the language model has no linear layer {wanted} for LoRA")
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
    """The dtype that `load_backbone` means. Raises ConfigError for an unknown name."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype != "auto":
        known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
        if dtype not in known:
            raise ConfigError(f"dtype '{dtype}' is none of auto, {', '.join(known)}")
        return known[dtype]
    if torch.device(device).type != "cpu":
        return torch.bfloat16
    return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (AMX or AVX-512 BF16).

    With AVX-512 BF16 (AMD EPYC, one thread) products of 64 to 900 rows run 2 to 4.5 times as fast as in
    float32 and a training step of the tiny stand-in 1.15 to 1.4 times; only products of a single row with
    matrices below about 1000 x 1000 are slower.
    """
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # private, so they may go
    probes = [getattr(torch.cpu, name, None) for name in names]
    return any(probe is not None and probe() for probe in probes)


def _complete_processor(processor: Any, config: Any) -> None:
    """Add what older snapshots lack: the counts of image tokens, an end to LLaVA-1.5's answers, padding."""
    tokenizer = processor.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not processor.chat_template:
        processor.chat_template = tokenizer.chat_template
    if config.model_type != "llava":
        return
    if processor.patch_size is None:
        processor.patch_size = config.vision_config.patch_size
        processor.num_additional_image_tokens = 1  # CLIP's CLS
    if processor.vision_feature_select_strategy is None:
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    if not processor.chat_template or "ASSISTANT:" in processor.chat_template:  # LLaVA-1.5's own lacks </s>
        processor.chat_template = VICUNA_TEMPLATE

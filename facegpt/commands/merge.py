"""facegpt merge --checkpoint RUN --out DIR

Adds the LoRA of a checkpoint and its rows of `<FACE>` to the backbone and writes all of it into the new
folder DIR: a checkpoint for `facegpt chat` and at the same time a plain Hugging Face model folder, which
needs neither PEFT nor the backbone any more. No head data are in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from facegpt.chat import newest_checkpoint
from facegpt.commands.output import check_output
from facegpt.config import MISSING, parse_config
from facegpt.errors import ConfigError
from facegpt.model.checkpoint import merge_lora


@dataclass
class MergeSettings:
    """checkpoint: a run or one of its checkpoints.
    out: folder to make; one that exists is left alone, and is an error.
    backbone: where the vision-language model lies, if it has moved.
    dtype: of the weights in the new folder.
    """

    checkpoint: Path = MISSING
    out: Path = MISSING
    backbone: str | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"


def main(argv: Sequence[str]) -> None:
    settings = parse_config(MergeSettings, argv, __doc__)
    if settings.out.exists():
        raise ConfigError(f"{settings.out} exists already; name a new folder")
    check_output(settings.out, folder=True)
    checkpoint = newest_checkpoint(settings.checkpoint)
    merge_lora(checkpoint, settings.out, getattr(torch, settings.dtype), settings.backbone)
    print(f"wrote {settings.out}: {checkpoint} merged, as {settings.dtype}")

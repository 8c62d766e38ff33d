"""Make a checkpoint small enough to ship: `python scripts/ship_model.py checkpoint=RUN out=DIR`.

What was trained (LoRA, the `<FACE>` rows, the face head) is rounded to bfloat16; optimizer and random states
stay behind. The result is a checkpoint like any other, for chat and evaluation; training goes on from the
original. The run's metrics come along, so that the figures lie beside the weights.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from facegpt.chat import SHIPPED_MODEL, newest_checkpoint
from facegpt.config import MISSING, parse_config, run
from facegpt.files import atomic_directory
from facegpt.model.checkpoint import ADAPTER, DESCRIPTION, FACE_HEAD, read_description

METRICS = "metrics.jsonl"  # of the run, two folders above a checkpoint; its config names its maker's folders


@dataclass
class ShipSettings:
    """checkpoint: a run or one of its checkpoints. out: folder of the small one, which is replaced."""

    checkpoint: Path = MISSING
    out: Path = SHIPPED_MODEL


def main(argv: list[str]) -> None:
    settings = parse_config(ShipSettings, argv, __doc__)
    checkpoint = newest_checkpoint(settings.checkpoint)
    read_description(checkpoint)  # for its error
    with atomic_directory(settings.out) as temporary:
        shutil.copy(checkpoint / DESCRIPTION, temporary)
        for name in (ADAPTER, FACE_HEAD):
            weights = {key: value.to(torch.bfloat16) for key, value in load_file(checkpoint / name).items()}
            save_file(weights, temporary / name)
        if (file := checkpoint.parents[1] / METRICS).is_file():
            shutil.copy(file, temporary)
    size = sum(file.stat().st_size for file in settings.out.iterdir())
    print(f"{settings.out}: {size / 1e6:.1f} MB, from {checkpoint}")


if __name__ == "__main__":
    sys.exit(run(main))

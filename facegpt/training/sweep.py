"""Removing what a run wrote, by name: nothing else that lies in its directory is ever touched."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from facegpt.files import remove
from facegpt.model.checkpoint import ADAPTER, DESCRIPTION, FACE_HEAD, run_checkpoints
from facegpt.training.optimizer_state import OPTIMIZER
from facegpt.training.resume import CHECKSUMS, STATE

METRICS, CONFIG = "metrics.jsonl", "config.yaml"
STEP_FILES = re.compile(r"config_to_step_\d+\.yaml|(pictures/step_\d+\.jpg)|(answers/step_\d+\.jsonl)")
PART = re.compile(r"\.+step_\d+(\.[0-9a-f-]+)?\.part")  # a checkpoint that was never completed


def remove_run(path: Path) -> None:
    """Remove what an earlier run wrote; run.json stays and is replaced, so the directory is always ours."""
    for name in (METRICS, CONFIG):
        (path / name).unlink(missing_ok=True)
    for file in path.rglob("*"):
        if STEP_FILES.fullmatch(file.relative_to(path).as_posix()) and file.is_file():
            file.unlink()
    for checkpoint in run_checkpoints(path):
        remove_checkpoint(checkpoint)
    for folder in ("pictures", "answers", "checkpoints"):
        with suppress(OSError):  # not empty: something is in it that no run wrote
            (path / folder).rmdir()


def sweep_checkpoints(folder: Path) -> None:
    """Remove checkpoints that were never completed and the rest of those that were being removed."""
    for path in sorted(folder.glob(".*step_*.part")):
        if PART.fullmatch(path.name):
            remove(path)
    for path in folder.glob("step_*"):
        if path.name.removeprefix("step_").isdecimal() and not (path / DESCRIPTION).exists():
            remove_checkpoint(path)


def remove_checkpoint(path: Path) -> None:
    """Remove the files of a checkpoint, its description first: without it, it is no checkpoint any more."""
    for name in (DESCRIPTION, ADAPTER, FACE_HEAD, STATE, CHECKSUMS):
        (path / name).unlink(missing_ok=True)
    for pattern in ("rank_*.safetensors", "*mp_rank_*_states.pt"):
        for file in (path / OPTIMIZER).glob(pattern):
            file.unlink()
    with suppress(OSError):  # not empty: something is in it that no run wrote
        (path / OPTIMIZER).rmdir()
    with suppress(OSError):
        path.rmdir()

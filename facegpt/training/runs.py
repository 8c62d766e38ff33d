"""The run directory: what a run writes, and how it is found again.

config.yaml    the resolved settings (config_to_step_N.yaml: those it had until it was resumed at step N)
run.json       head id, ranks, versions
metrics.jsonl  one line per logged step ("kind": "train") and per validation ("kind": "validation")
pictures/      contact sheets of validations    answers/      what was asked and answered in them
checkpoints/   step_000500/: trained parts and optimiser state
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image

from facegpt.config import save_config
from facegpt.errors import CheckpointError, ConfigError
from facegpt.files import atomic_path, read_jsonl, write_json
from facegpt.model.checkpoint import save_checkpoint
from facegpt.model.facegpt import FaceGPT
from facegpt.training.engine import Ranks, gathered_parameters
from facegpt.training.settings import TrainSettings

OPTIMIZER = "optimizer"  # DeepSpeed's part of a checkpoint
PACKAGES = ("torch", "transformers", "peft", "deepspeed", "numpy")


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step_*") if (path / "facegpt.json").is_file())


def checkpoint_to_resume(settings: TrainSettings, head_id: str, ranks: Ranks) -> Path | None:
    """The newest checkpoint when the run is to be resumed, None for a start from the beginning.

    Raises ConfigError when the directory holds another run that was not meant to be touched, CheckpointError
    when the checkpoint is of another head, number of ranks or model.
    """
    run = Path(settings.run)
    if not settings.resume:
        if (run / "metrics.jsonl").exists() and not settings.overwrite:
            raise ConfigError(
                f"{run} already holds a run; add resume=true, overwrite=true or another run=DIRECTORY"
            )
        return None
    found = checkpoints(run)
    if not found:
        return None
    newest = found[-1]
    try:
        saved = json.loads((newest / "training.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        raise CheckpointError(f"{newest} has no readable training.json, so it cannot be resumed") from None
    now = _training_state(settings, head_id, ranks)
    words = {"head": "head model", "ranks": "number of ranks", "model": "model section", "stage": "ZeRO file"}
    for key, word in words.items():
        if saved[key] != now[key]:
            raise CheckpointError(
                f"{newest} was written with another {word} ({saved[key]}, now {now[key]}); "
                "resume with the old one or start a new run"
            )
    if saved["step"] >= settings.optimization.steps:
        raise ConfigError(
            f"{run} is finished at step {saved['step']}; raise optimization.steps or add overwrite=true"
        )
    return newest


def _training_state(settings: TrainSettings, head_id: str, ranks: Ranks) -> dict[str, Any]:
    """What must be equal for the optimiser's state to be read back."""
    lora = dict(sorted(vars(settings.model.lora).items()))
    model = {
        "backbone": settings.model.backbone,
        "neck": settings.model.neck,
        "eyes": settings.model.eyes,
        **lora,
    }
    stage = Path(settings.optimization.deepspeed).name
    state = {"head": head_id, "ranks": ranks.world, "model": model, "stage": stage}
    return dict(json.loads(json.dumps(state)))  # as it looks after a trip through the file


class Run:
    """The files of one run; made on every rank, writing only on the first."""

    def __init__(self, settings: TrainSettings, head_id: str, ranks: Ranks, step: int = 0) -> None:
        """Make the directory, or cut it back to `step` when the run resumes there."""
        self.settings, self.head_id, self.ranks = settings, head_id, ranks
        self.path = Path(settings.run)
        self.metrics = self.path / "metrics.jsonl"
        self.tracker: Any = None
        if not ranks.first:
            return
        if step == 0:
            for old in (
                "metrics.jsonl",
                "pictures",
                "answers",
                "checkpoints",
                "run.json",
                "config.yaml",
                "wandb",
            ):
                _remove(self.path / old)
        self.path.mkdir(parents=True, exist_ok=True)
        config = self.path / "config.yaml"
        if step and config.exists():  # what it ran with until here may have been something else
            os.replace(config, self.path / f"config_to_step_{step:06d}.yaml")
        save_config(settings, config)
        write_json(self.path / "run.json", {"head_id": head_id, "ranks": ranks.world, "versions": versions()})
        rows = (
            [row for row in read_jsonl(self.metrics) if row["step"] <= step] if self.metrics.exists() else []
        )
        with atomic_path(self.metrics) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        if settings.logging.wandb:
            self.tracker = _start_wandb(settings, self.path)

    def log(self, kind: str, step: int, values: dict[str, float], picture: Path | None = None) -> None:
        """Append one line to metrics.jsonl, and tell W&B. Only the first rank does anything."""
        if not self.ranks.first:
            return
        finite = {name: float(f"{value:.8g}") for name, value in values.items() if math.isfinite(value)}
        row = {"kind": kind, "step": step, **finite}  # JSON knows no NaN
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.tracker is not None:
            import wandb

            pictures = {} if picture is None else {f"{kind}/faces": wandb.Image(str(picture))}
            self.tracker.log(
                {f"{kind}/{name}": value for name, value in values.items()} | pictures, step=step
            )

    def picture(self, step: int, image: Image.Image) -> Path:
        """Save a contact sheet under pictures/ and return its path."""
        path = self.path / "pictures" / f"step_{step:06d}.jpg"
        with atomic_path(path) as temporary:
            image.convert("RGB").save(temporary, quality=92)
        return path

    def answers(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Keep what was asked and answered in a validation, without the numbers of the faces."""
        kept = [{k: v for k, v in row.items() if k in ("record", "kind", "question", "text")} for row in rows]
        with atomic_path(self.path / "answers" / f"step_{step:06d}.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def checkpoint(self, step: int, engine: Any, model: FaceGPT) -> Path:
        """Write a checkpoint; every rank must call it. It has its name only once it is complete.

        It holds the trained parts (`facegpt.model.checkpoint`) and, under optimizer/, what DeepSpeed needs to
        resume; the frozen backbone and the head model are in neither.
        """
        final = self.path / "checkpoints" / f"step_{step:06d}"
        part = final.with_name(f".{final.name}.part")
        if self.ranks.first:
            _remove(part)
            part.mkdir(parents=True)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with gathered_parameters(engine, trained):
            if self.ranks.first:
                save_checkpoint(model, part, self.head_id, {"step": step, "run": self.path.name})
        self.ranks.barrier()
        engine.save_checkpoint(
            str(part),
            tag=OPTIMIZER,
            save_latest=False,
            exclude_frozen_parameters=True,
            client_state={"step": step},
        )
        if self.ranks.first:
            for script in part.glob("zero_to_*.py"):  # DeepSpeed's converters of its own format
                script.unlink()
            state = {"step": step, **_training_state(self.settings, self.head_id, self.ranks)}
            write_json(part / "training.json", state)
            _remove(final)
            os.replace(part, final)
            keep = self.settings.checkpoint.keep
            for old in checkpoints(self.path)[:-keep] if keep else []:
                _remove(old)
        self.ranks.barrier()
        return final

    def close(self) -> None:
        if self.tracker is not None:
            self.tracker.finish()


def resume(engine: Any, checkpoint: Path) -> int:
    """Read weights of the trained parts, optimiser and schedule into the engine; the step to go on after."""
    loaded, client = engine.load_checkpoint(str(checkpoint), tag=OPTIMIZER, load_module_strict=False)
    if loaded is None:
        raise CheckpointError(
            f"{checkpoint} has no readable optimiser state; it can be chatted with, not resumed"
        )
    return int(client["step"])


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, "facegpt"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _start_wandb(settings: TrainSettings, path: Path) -> Any:
    import wandb

    mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    return wandb.init(
        project=settings.logging.project, name=path.name, dir=str(path), mode=mode, config=_plain(settings)
    )


def _plain(settings: TrainSettings) -> dict[str, Any]:
    return asdict(settings)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

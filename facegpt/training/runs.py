"""The run directory: what a run writes. `facegpt.training.resume` finds it again.

config.yaml    the resolved settings (config_to_step_N.yaml: those it had until it was resumed at step N)
run.json       head id, ranks, versions; by it a directory is known to be a run's
metrics.jsonl  one line per logged step ("kind": "train") and per validation ("kind": "validation")
pictures/      contact sheets of validations    answers/      what was asked and answered in them
checkpoints/   step_000500/: trained parts (`facegpt.model.checkpoint`) and, for resuming, the state of the
               optimizer (`facegpt.training.optimizer_state`), the settings and the checksums of all files
.lock          held while a process writes here

Only these are ever removed; whatever else lies in the directory stays.
"""

from __future__ import annotations

import json
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from PIL import Image
from safetensors import SafetensorError

from facegpt.config import save_config
from facegpt.errors import FaceGPTError, TrainingError
from facegpt.files import append_jsonl, atomic_path, flush, read_jsonl, remove, seal, sha256, write_json
from facegpt.machine import package_versions
from facegpt.model.checkpoint import run_checkpoints, save_checkpoint
from facegpt.model.facegpt import FaceGPT
from facegpt.training.engine import Ranks, gathered_parameters, raise_together
from facegpt.training.lock import LOCK, lock
from facegpt.training.meter import MetricMeter
from facegpt.training.optimizer_state import OPTIMIZER, load_state, save_state
from facegpt.training.resume import (
    RUN,
    STATE,
    check_directory,
    training_state,
    write_checksums,
    write_training_state,
)
from facegpt.training.settings import TrainSettings
from facegpt.training.sweep import CONFIG, METRICS, remove_checkpoint, remove_run, sweep_checkpoints


class Run:
    """The files of one run; made on every rank, writing only on the first.

    A full disk while the run goes on is a warning: what could not be written is missing, and what was written
    before stays whole.
    """

    def __init__(self, settings: TrainSettings, head_id: str, ranks: Ranks, step: int = 0) -> None:
        """Make the directory, or cut it back to `step` when the run resumes there.

        Every rank must call it. Raises TrainingError, on every rank, when that is not possible; an older run
        is removed only after all else that could go wrong.
        """
        self.settings, self.head_id, self.ranks = settings, head_id, ranks
        self.path = Path(settings.run)
        self.metrics = self.path / METRICS
        self.state = training_state(settings, head_id, ranks)
        self.tracker: Any = None
        self.held: TextIO | None = None
        complaint = ""
        if ranks.first:
            try:
                self._open(step)
            except (FaceGPTError, OSError) as error:
                complaint = str(error)
        raise_together(ranks, complaint)

    def _open(self, step: int) -> None:
        new = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self.held = lock(self.path)
            check_directory(self.settings)  # again, now that nobody else can change the answer
            if self.settings.logging.wandb:
                self.tracker = _start_wandb(self.settings, self.path)
        except Exception:
            self.close()
            if new:
                with suppress(OSError):
                    (self.path / LOCK).unlink()
                    self.path.rmdir()
            raise
        notes = {"head_id": self.head_id, "ranks": self.ranks.world, "versions": package_versions()}
        write_json(self.path / RUN, notes)
        sweep_checkpoints(self.path / "checkpoints")
        if step == 0:
            remove_run(self.path)
        config = self.path / CONFIG
        if step and config.exists():  # what it ran with until here may have been something else
            os.replace(config, self.path / f"config_to_step_{step:06d}.yaml")
        save_config(self.settings, config)
        rows = read_jsonl(self.metrics) if self.metrics.exists() else []
        with atomic_path(self.metrics) as temporary:
            kept = [row for row in rows if isinstance(row.get("step"), int) and row["step"] <= step]
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def log(self, kind: str, step: int, values: dict[str, float], picture: Path | None = None) -> None:
        """Append one line to metrics.jsonl, and tell W&B. Only the first rank does anything."""
        if not self.ranks.first:
            return
        finite = {name: float(f"{value:.8g}") for name, value in values.items() if math.isfinite(value)}
        with warned_when_full():
            append_jsonl(self.metrics, [{"kind": kind, "step": step, **finite}])  # JSON knows no NaN
        if self.tracker is not None:
            import wandb

            pictures = {} if picture is None else {f"{kind}/faces": wandb.Image(str(picture))}
            self.tracker.log(
                {f"{kind}/{name}": value for name, value in values.items()} | pictures, step=step
            )

    def picture(self, step: int, image: Image.Image) -> Path | None:
        """Save a contact sheet under pictures/ and return its path, None when it could not be written."""
        path = self.path / "pictures" / f"step_{step:06d}.jpg"
        with warned_when_full(), atomic_path(path) as temporary:
            image.convert("RGB").save(temporary, quality=92)
        return path if path.exists() else None

    def answers(self, step: int, rows: list[dict[str, Any]]) -> None:
        """Keep what was asked and answered in a validation, without the numbers of the faces."""
        kept = [{k: v for k, v in row.items() if k in ("record", "kind", "question", "text")} for row in rows]
        path = self.path / "answers" / f"step_{step:06d}.jsonl"
        with warned_when_full(), atomic_path(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def checkpoint(
        self, step: int, engine: Any, model: FaceGPT, meter: MetricMeter, needed: bool = False
    ) -> Path | None:
        """Write a checkpoint; every rank must call it. It has its name only once it is complete and on disk.

        It holds the trained parts (`facegpt.model.checkpoint`) and what is needed to resume; the frozen
        backbone and the head model are not in it. `meter`: its sums since the last line of metrics.

        When it cannot be written (a full disk), what there is of it is removed, the older ones stay, and the
        result is a warning and None, or, if the checkpoint is `needed`, TrainingError on every rank.
        """
        final = self.path / "checkpoints" / f"step_{step:06d}"
        part = final.with_name(f".{final.name}.part")

        def write_parameters() -> None:
            if self.ranks.first:
                remove(part)
                save_checkpoint(model, part, self.head_id, {"step": step, "run": self.path.name})
                (part / OPTIMIZER).mkdir()

        def write_state() -> tuple[str, str]:
            path = save_state(engine, part, self.ranks, {"meter": meter.state()})
            return path.relative_to(part).as_posix(), sha256(path)

        def finish() -> None:
            if self.ranks.first:
                write_training_state(part, step, self.state)
                write_checksums(part, dict(sums))
                seal(part)
                remove_checkpoint(final)
                if final.exists():  # somebody has put something into it
                    os.replace(final, final.with_name(f"{final.name}.kept-{uuid.uuid4().hex[:8]}"))
                os.replace(part, final)
                flush(final.parent)

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        with gathered_parameters(engine, trained):
            complaint, _ = _attempt(self.ranks, write_parameters)
        if not complaint:
            complaint, sums = _attempt(self.ranks, write_state)
        if not complaint:
            complaint, _ = _attempt(self.ranks, finish)
        if not complaint:
            self._rotate()
            return final
        if self.ranks.first:
            with suppress(OSError):
                remove(part)
        sentence = (
            f"the checkpoint of step {step} could not be written ({complaint}); the older ones are whole"
        )
        if needed:
            raise TrainingError(f"{sentence}. Make room on the disk and add resume=true")
        if self.ranks.first:
            print(f"warning: {sentence}, and training goes on", file=sys.stderr, flush=True)
        return None

    def _rotate(self) -> None:
        """Remove the oldest checkpoints beyond `checkpoint.keep`."""
        keep = self.settings.checkpoint.keep
        if self.ranks.first and keep > 0:
            for old in run_checkpoints(self.path)[:-keep]:
                remove_checkpoint(old)

    def close(self) -> None:
        """Let go of the directory."""
        if self.tracker is not None:
            self.tracker.finish()
        if self.held is not None:
            self.held.close()
            self.held = None


def resume(engine: Any, checkpoint: Path, meter: MetricMeter, ranks: Ranks) -> int:
    """Put optimizer, schedule and the meter's sums back; the step to go on after. Every rank must call it.

    The engine's model must have the checkpoint's weights already.
    """
    extra = load_state(engine, checkpoint, ranks)
    meter.restore(extra.get("meter"))
    return int(json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["step"])


def _start_wandb(settings: TrainSettings, path: Path) -> Any:
    import wandb

    if not os.environ.get("WANDB_MODE"):
        os.environ.pop("WANDB_MODE", None)  # empty is not a mode for W&B
    mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    try:
        return wandb.init(
            project=settings.logging.project,
            name=path.name,
            dir=str(path),
            mode=mode,
            config=asdict(settings),
        )
    except Exception as error:  # whatever its network, its settings or its service say
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TrainingError(
            f"W&B does not start in mode {mode} ({reason}); set WANDB_MODE=offline or WANDB_API_KEY, or "
            "leave logging.wandb out"
        ) from None


def _attempt(ranks: Ranks, action: Callable[[], Any]) -> tuple[str, list[Any]]:
    """Do it on every rank; the first complaint of any of them ("": none), and the results of all."""
    complaint, result = "", None
    try:
        result = action()
    except (OSError, SafetensorError, FaceGPTError) as error:
        complaint = str(error) or type(error).__name__
    everyone = ranks.gather((complaint, result))
    return next((text for text, _ in everyone if text), ""), [value for _, value in everyone]


@contextmanager
def warned_when_full() -> Iterator[None]:
    """A warning instead of an error of the disk: a missing picture is no reason to end a run."""
    try:
        yield
    except OSError as error:
        print(f"warning: {error}; training goes on without it", file=sys.stderr, flush=True)

"""Train a vision-language model to speak in faces.

    deepspeed --num_accelerators 2 train/train.py --config configs/tiny/train.yaml [key=value ...]
    torchrun --nproc-per-node 2 train/train.py --config configs/tiny/train.yaml [key=value ...]
    python train/train.py --config configs/tiny/train.yaml [key=value ...]

The method: the vision tower is frozen, the language model gets LoRA, the `<FACE>` rows and the face head are
trained; image-to-face, text-to-face and instruction samples are mixed by weight; the faces that the model
speaks are rendered and compared with the photographs (total = text + 0.1 * face).

`--help` lists all settings, `facegpt.training.runs` says what a run writes, `resume=true` goes on with a run.

SIGTERM and Ctrl-C end it after the step with a checkpoint and exit code 0 (the deepspeed launcher itself then
returns 1).

Everything that can be wrong with the input is found before the first step and reported in one sentence, with
exit code 1 (2 for the settings themselves) and nothing written.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from facegpt.config import parse_config, refuse, run
from facegpt.errors import FaceGPTError, RunFinished, TrainingError
from facegpt.training.engine import Ranks, build_engine, start_ranks
from facegpt.training.interrupt import Interrupt, catch_signals
from facegpt.training.meter import Clock, MetricMeter
from facegpt.training.optimizer_state import check_can_be_saved
from facegpt.training.prepare import TrainingParts, prepare, quiet_libraries
from facegpt.training.runs import Run, resume
from facegpt.training.settings import TrainSettings
from facegpt.training.step import next_batches, optimize


def train(settings: TrainSettings, parts: TrainingParts, ranks: Ranks, interrupt: Interrupt) -> None:
    """The loop: steps, and at their intervals metrics, validation by generation, checkpoints."""
    steps, every = settings.optimization.steps, settings.logging.every
    engine = build_engine(parts.model, settings.optimization, ranks)
    check_can_be_saved(engine)
    meter = MetricMeter(parts.stream.names, settings.objective, ranks)
    step = resume(engine, parts.checkpoint, meter, ranks) if parts.checkpoint else 0
    directory = Run(settings, parts.head.id, ranks, step)
    clock = Clock(ranks.device)
    batches = parts.stream.steps(step + 1)
    progress = tqdm(
        total=steps, initial=step, desc=directory.path.name, unit="step", mininterval=1.0,
        disable=not (ranks.first and settings.logging.progress),
    )  # fmt: skip
    engine.train()
    while step < steps:
        step += 1
        logged = step % every == 0 or step == steps
        clock.begin_step(logged)
        # Dropout depends on the step alone, so a resumed run does what the uninterrupted one would have.
        torch.manual_seed(1_000_003 * settings.seed + step * ranks.world + ranks.rank)
        with clock("data"):
            micro_batches = next_batches(batches, ranks)
        rates = optimize(engine, parts.face_loss, micro_batches, settings, ranks, meter, clock, step)
        if logged:
            norm = engine.get_global_grad_norm()  # before clipping; DeepSpeed has none without ZeRO
            norms = {} if norm is None else {"grad_norm": float(norm)}
            row = {**meter.report(), **rates, **norms, **clock.report()}
            directory.log("train", step, row)
            progress.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
        progress.update()
        paused = time.perf_counter()
        if parts.validation and (step % settings.validation.every == 0 or step == steps):
            values, answers = parts.validation(engine)
            if ranks.first:
                picture = directory.picture(step, parts.validation.sheet(answers))
                directory.answers(step, [vars(answer) for answer in answers])
                directory.log("validation", step, values, picture)
                means = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
                progress.write(f"step {step}: {means}")
        last = step == steps or interrupt.anywhere(ranks)
        if last or (settings.checkpoint.every and step % settings.checkpoint.every == 0):
            directory.checkpoint(step, engine, parts.model, meter, needed=last)
        meter.started += time.perf_counter() - paused  # speeds are those of training
        if last and step < steps:
            if ranks.first:
                progress.write(f"stopped after step {step}, which is saved; add resume=true to go on")
            break
    progress.close()
    directory.close()


def launch(argv: list[str]) -> int:
    code = main(argv)
    if torch.distributed.is_initialized():  # its threads would make the process abort at the end
        torch.distributed.destroy_process_group()
    return code


def main(argv: list[str]) -> int:
    """Prepare, train, and end every rank with the same exit code, while the first one speaks for all."""
    first = os.environ.get("RANK", "0") == "0"
    try:
        settings = parse_config(TrainSettings, argv, __doc__)
        settings.optimization.deepspeed = from_here_or_root(settings.optimization.deepspeed)
        quiet_libraries()
        ranks = start_ranks()
    except FaceGPTError as error:
        return refuse(error, first)
    parts, complaint, finished = None, "", ""
    try:
        parts = prepare(settings, ranks)
    except RunFinished as error:  # on every rank
        finished = str(error)
    except (FaceGPTError, OSError, ValueError) as error:
        complaint = str(error) or type(error).__name__
    for sentence in ranks.complaints(complaint):
        return refuse(TrainingError(sentence), first)
    if parts is None:
        if first:
            print(finished)
        return 0
    if parts.note and first:
        print(f"note: {parts.note}", file=sys.stderr, flush=True)
    try:
        with catch_signals() as interrupt:
            train(settings, parts, ranks, interrupt)
    except TrainingError as error:  # on every rank
        return refuse(error, first)
    except FaceGPTError as error:  # on this rank only; the launcher ends the others, which wait for it
        sys.exit(refuse(error, True))
    return 0


def from_here_or_root(path: str) -> str:
    """A relative path starts where one is, or else at the root of this repository."""
    other = Path(__file__).resolve().parents[1] / path
    return str(other) if other.exists() and not Path(path).exists() else path


if __name__ == "__main__":
    sys.exit(run(launch))

"""Train a vision-language model to speak in faces.

    deepspeed --num_accelerators 2 train/train.py --config configs/tiny/train.yaml [key=value ...]
    torchrun --nproc-per-node 2 train/train.py --config configs/tiny/train.yaml [key=value ...]
    python train/train.py --config configs/tiny/train.yaml [key=value ...]

The method: the vision tower is frozen, the language model gets LoRA, the `<FACE>` rows and the face head are
trained; image-to-face, text-to-face and instruction samples are mixed by weight; the faces that the model
speaks are rendered and compared with the photographs (total = text + 0.1 * face).

`--help` lists all settings, `facegpt.training.runs` says what a run writes, `resume=true` goes on with a run.

Everything that can be wrong with the input is found before the first step and reported in one sentence, with
exit code 1 and nothing written.
"""

from __future__ import annotations

import os
import sys
import time

import torch
from tqdm import tqdm

from facegpt.config import parse_config, run
from facegpt.errors import FaceGPTError, TrainingError
from facegpt.training.engine import Ranks, build_engine, start_ranks
from facegpt.training.meter import Clock, MetricMeter
from facegpt.training.prepare import Parts, prepare, quiet_libraries
from facegpt.training.runs import Run, resume
from facegpt.training.settings import TrainSettings
from facegpt.training.step import optimize


def train(settings: TrainSettings, parts: Parts, ranks: Ranks) -> None:
    """The loop: steps, and at their intervals metrics, validation by generation, checkpoints."""
    steps, every = settings.optimization.steps, settings.logging.every
    engine = build_engine(parts.model, settings.optimization, ranks)
    step = resume(engine, parts.checkpoint) if parts.checkpoint else 0
    run = Run(settings, parts.head.id, ranks, step)
    meter = MetricMeter(parts.stream.names, settings.objective, ranks)
    clock = Clock(ranks.device)
    batches = parts.stream.steps(step + 1)
    progress = tqdm(
        total=steps, initial=step, desc=run.path.name, unit="step", mininterval=1.0,
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
            micro_batches = [batch.to(ranks.device) for batch in next(batches)]
        rates = optimize(engine, parts.face_loss, micro_batches, settings, ranks, meter, clock, step)
        if logged:
            norm = {"grad_norm": float(engine.get_global_grad_norm())}  # before clipping
            row = {**meter.report(), **rates, **norm, **clock.report()}
            run.log("train", step, row)
            progress.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
        progress.update()
        paused = time.perf_counter()
        if parts.validation and (step % settings.validation.every == 0 or step == steps):
            values, answers = parts.validation(engine)
            if ranks.first:
                picture = run.picture(step, parts.validation.sheet(answers))
                run.answers(step, [vars(answer) for answer in answers])
                run.log("validation", step, values, picture)
                means = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
                progress.write(f"step {step}: {means}")
        if step == steps or (settings.checkpoint.every and step % settings.checkpoint.every == 0):
            run.checkpoint(step, engine, parts.model)
        meter.started += time.perf_counter() - paused  # speeds are those of training
    progress.close()
    run.close()


def main() -> int:
    first = os.environ.get("RANK", "0") == "0"
    try:
        settings = parse_config(TrainSettings, sys.argv[1:], __doc__)
    except FaceGPTError as error:
        return refuse(str(error), first)
    quiet_libraries()
    ranks = start_ranks()
    parts, complaint = None, ""
    try:
        parts = prepare(settings, ranks)
    except (FaceGPTError, OSError) as error:
        complaint = str(error)
    complaints = [text for text in ranks.gather(complaint) if text]
    if complaints or parts is None:
        return refuse(complaints[0], first)
    try:
        train(settings, parts, ranks)
    except TrainingError as error:
        return refuse(str(error), first)
    except FaceGPTError as error:  # on this rank only; the launcher ends the others
        return refuse(str(error), True)
    torch.distributed.destroy_process_group()
    return 0


def refuse(sentence: str, speak: bool) -> int:
    if speak:
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(run(lambda argv: main()))

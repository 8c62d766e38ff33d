"""Train a vision-language model to speak in faces.

    deepspeed --num_accelerators 2 train/train.py --config configs/tiny/train.yaml [key=value ...]
    torchrun --nproc-per-node 2 train/train.py --config configs/tiny/train.yaml [key=value ...]
    python train/train.py --config configs/tiny/train.yaml [key=value ...]

The method: the vision tower is frozen, the language model gets LoRA, the `<FACE>` rows and the face head are
trained; image-to-face, text-to-face and instruction samples are mixed by weight; the faces that the model
speaks are rendered and compared with the photographs (total = text + 0.1 * face).

`--help` lists all settings, `train/runs.py` says what a run writes, `resume=true` goes on with a run.

Everything that can be wrong with the input is found before the first step and reported in one sentence, with
exit code 1 and nothing written.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from engine import Ranks, build_engine, deepspeed_config, group_names, start_ranks
from ledger import Clock, Ledger
from runs import Run, checkpoint_to_resume, resume
from settings import TrainSettings
from stream import Stream
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import ProcessorMixin
from validation import Validation

from facegpt.config import parse_config
from facegpt.data.sample import Batch, FaceTargets
from facegpt.errors import CheckpointError, ConfigError, FaceGPTError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective
from facegpt.model.backbone import load_backbone
from facegpt.model.checkpoint import load_facegpt
from facegpt.model.facegpt import FaceGPT, build_facegpt
from facegpt.perception.recognizer import load_recognizer
from facegpt.render.renderer import render


@dataclass
class Parts:
    """What a run works with, all of it checked."""

    head: HeadModel
    model: FaceGPT
    processor: ProcessorMixin
    graphics: Graphics
    stream: Stream
    validation: Validation | None
    checkpoint: Path | None


class Graphics:
    """The face losses and their gradient: head model, renderer and objective over all faces of a batch."""

    def __init__(self, head: HeadModel, objective: FaceObjective, size: int) -> None:
        self.head, self.objective, self.size = head, objective, size

    def __call__(
        self, vectors: Tensor, targets: FaceTargets | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """d(sum of losses)/d(vectors) (R,N), loss per face (F,), its unweighted parts, each (F,).

        vectors (R,N), R >= F: parameter vectors; rows beyond the targets are dummies and get a zero gradient.
        The gradient is taken here and now, so the images' graph is freed before the language model's backward
        pass needs the memory, and that pass looks the same on every rank, with faces or without.
        """
        gradient = torch.zeros_like(vectors)
        if targets is None or len(targets) == 0:
            return gradient, None, {}
        leaf = vectors[: len(targets)].detach().float().requires_grad_()
        parameters = FaceParameters.from_vector(leaf, self.objective.layout)
        with torch.enable_grad():
            losses, parts = self.objective(render(self.head, parameters, self.size), parameters, targets)
            (gradient[: len(targets)],) = torch.autograd.grad(losses.sum(), leaf)
        return gradient, losses.detach(), {name: part.detach() for name, part in parts.items()}


def prepare(settings: TrainSettings, ranks: Ranks) -> Parts:
    """Load and check everything; nothing is written and the ranks do not wait for each other."""
    if settings.logging.wandb and importlib.util.find_spec("wandb") is None:
        raise ConfigError("logging.wandb is set but wandb is not installed; install it or leave it out")
    torch.manual_seed(settings.seed)
    head = HeadModel.builtin() if settings.model.head == "builtin" else HeadModel.load(settings.model.head)
    head = head.to(ranks.device)
    checkpoint = checkpoint_to_resume(settings, head.id, ranks)
    model, processor = load_model(settings, head, ranks.device)
    deepspeed_config(settings.optimization, model.vlm.dtype == torch.bfloat16)  # for its errors only
    recognizer = (
        load_recognizer(settings.model.recognizer).to(ranks.device) if settings.objective.perceptual else None
    )
    objective = FaceObjective(settings.objective, recognizer, model.spec.layout)
    context = int(model.vlm.config.get_text_config().max_position_embeddings)
    if settings.data.max_length > context:
        raise ConfigError(
            f"data.max_length is {settings.data.max_length}, the backbone reads {context} tokens"
        )
    stream = Stream(settings, ranks, processor)
    stream.check(head.id, model.spec.layout)
    validation = Validation(settings, ranks, head, model, processor) if settings.validation.path else None
    return Parts(
        head,
        model,
        processor,
        Graphics(head, objective, settings.data.render_size),
        stream,
        validation,
        checkpoint,
    )


def load_model(
    settings: TrainSettings, head: HeadModel, device: torch.device
) -> tuple[FaceGPT, ProcessorMixin]:
    """The backbone with fresh trainable parts, or with those of the checkpoint `model.start`."""
    own = settings.model
    if own.start:
        model, processor = load_facegpt(own.start, head.id, device, dtype=own.dtype)
        if model.spec.lora is None:
            raise CheckpointError(f"{own.start} is merged and has no LoRA to train; start before the merge")
    else:
        backbone, processor = load_backbone(own.backbone, own.dtype, device)
        mean = head.mean_parameters(neck=own.neck, eyes=own.eyes)
        layout, vector = mean.layout, mean.to_vector()[0]
        model = build_facegpt(backbone, processor, layout, vector, own.lora, own.face_head.settings())
    if own.activation_checkpointing:
        model.checkpoint_activations()
    return model, processor


def train(settings: TrainSettings, parts: Parts, ranks: Ranks) -> None:
    """The loop: steps, and at their intervals metrics, validation by generation, checkpoints."""
    steps, every = settings.optimization.steps, settings.logging.every
    engine = build_engine(parts.model, settings.optimization, ranks)
    step = resume(engine, parts.checkpoint) if parts.checkpoint else 0
    run = Run(settings, parts.head.id, ranks, step)
    ledger = Ledger(parts.stream.names, settings.objective, ranks)
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
        rates = optimize(engine, parts.graphics, micro_batches, settings, ranks, ledger, clock, step)
        if logged:
            norm = {"grad_norm": float(engine.get_global_grad_norm())}  # before clipping
            row = {**ledger.report(), **rates, **norm, **clock.report()}
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
        ledger.started += time.perf_counter() - paused  # speeds are those of training
    progress.close()
    run.close()


def optimize(
    engine: Any,
    graphics: Graphics,
    micro_batches: list[Batch],
    settings: TrainSettings,
    ranks: Ranks,
    ledger: Ledger,
    clock: Clock,
    step: int,
) -> dict[str, float]:
    """One step of the optimiser over this rank's micro-batches; the learning rates it used.

    The text loss is a mean over the supervised tokens, the face loss a mean over the faces, of all ranks and
    micro-batches together: a rank that happens to hold one face does not give it the weight of eight.

    Raises TrainingError on every rank when the loss is not finite anywhere; the weights are then untouched.
    """
    weights = settings.objective
    counts = torch.tensor(
        [
            float(sum(int(batch.label_mask[:, 1:].sum()) for batch in micro_batches)),
            float(sum(len(batch.faces) for batch in micro_batches if batch.faces is not None)),
        ],
        device=ranks.device,
    )
    tokens_everywhere, faces_everywhere = ranks.sum(counts).clamp(min=1).unbind()
    health = torch.zeros((), device=ranks.device)
    for number, batch in enumerate(micro_batches, start=1):
        with clock("model"):
            logits, labels, label_rows, vectors, face_rows = engine(batch)
            text = cross_entropy(logits, labels, reduction="none")
        with clock("render"):
            gradient, faces, parts = graphics(vectors, batch.faces)
        with clock("model"):
            # d(face loss)/d(vectors) is known: a product with it passes it on to the language model.
            through_faces = (vectors * gradient).sum() / faces_everywhere
            loss = weights.text * text.sum() / tokens_everywhere + weights.face * through_faces
            health = health + loss.detach()
            engine.backward(loss * ranks.world, scale_wrt_gas=False)  # DeepSpeed averages over the ranks
        ledger.add(batch.sources, text, label_rows, faces, face_rows, parts)
        with clock("optimizer"):
            if number == len(micro_batches):
                ensure_finite(health, ranks, step, micro_batches)
            rates = engine.get_lr()
            engine.step()
    return {f"lr/{name}": rate for name, rate in zip(group_names(engine), rates, strict=True)}


def ensure_finite(health: Tensor, ranks: Ranks, step: int, micro_batches: list[Batch]) -> None:
    """Stop before a loss or a gradient of the faces that is not finite reaches the weights."""
    healthy = bool(torch.isfinite(health))
    if ranks.sum(torch.tensor(float(not healthy), device=ranks.device)) == 0:
        return
    own = [] if healthy else [sample for batch in micro_batches for sample in batch.ids]
    suspects = [name for names in ranks.gather(own) for name in names]
    raise TrainingError(
        f"the loss of step {step} is not finite; it comes from one of the samples {', '.join(suspects[:32])}"
    )


class TrainingError(FaceGPTError):
    """Training cannot go on."""


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


def quiet_libraries() -> None:
    """Every rank would draw the bars of loading weights and shards, and warn of its libraries' own calls."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)


def refuse(sentence: str, speak: bool) -> int:
    if speak:
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())

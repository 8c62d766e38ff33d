"""Start the face head where no language is needed: `python scripts/pretrain_face_head.py`.

A face head that reads images sees the mean image token beside the face state. Here it learns that half alone,
on the tokens of rendered faces, with the objective of the training that follows; the state it is given is
noise, so it learns to look at the picture. A step costs a hundredth of one through the language model, which
then begins with a head that knows faces (`model.start`).

    WORK/faces-*.npz     the faces of `scripts/pretrain_face_reader.py`
    OUT                  a checkpoint for `model.start`: this head, and LoRA as it is at the beginning

About six minutes on two cores.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from facegpt.config import at_least, load_config, parse_config, run
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective
from facegpt.model.checkpoint import save_checkpoint
from facegpt.model.facegpt import FaceGPT
from facegpt.perception.recognizer import load_recognizer
from facegpt.render.renderer import render
from facegpt.sample import FaceTargets
from facegpt.standins.rendered_faces import RenderedFaces, mean_tokens
from facegpt.training.prepare import load_model
from facegpt.training.settings import TrainSettings


@dataclass
class HeadStartSettings:
    """out: folder of the checkpoint. config: the training it is for: model, objective and render size are
    taken from there. work: the faces of `pretrain_face_reader.py`. steps, batch, lr: of this training.
    held_out: faces for measuring only. seed: of weights, batches and noise.
    """

    out: str = "outputs/small/start"
    config: str = "configs/small/train.yaml"
    work: str = "outputs/face_reader"
    steps: int = 1500
    batch: int = 32
    lr: float = 2e-3
    held_out: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "batch", "held_out")


def main(argv: list[str]) -> None:
    settings = parse_config(HeadStartSettings, argv, __doc__)
    training = load_config(TrainSettings, settings.config)
    torch.manual_seed(settings.seed)
    head = HeadModel.open(training.model.head)
    model, _ = load_model(training, head, torch.device("cpu"))
    recognizer = load_recognizer(training.model.recognizer)
    objective = FaceObjective(training.objective, recognizer, model.spec.layout)
    rendered = RenderedFaces(Path(settings.work))
    images, truth = mean_tokens(model, rendered), rendered.parameters
    count = len(images) - settings.held_out
    optimizer = torch.optim.AdamW(model.face_head.parameters(), lr=settings.lr, weight_decay=0.0)
    bar = tqdm(range(settings.steps), desc="face head", mininterval=5)
    for step in bar:
        rows = torch.randint(count, (settings.batch,))
        losses, parts = face_losses(
            model, head, objective, images[rows], truth[rows], training.data.render_size
        )
        for group in optimizer.param_groups:
            decay = 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
            group["lr"] = settings.lr * min(1.0, (step + 1) / 50) * max(decay, 0.05)
        optimizer.zero_grad()
        losses.mean().backward()
        nn.utils.clip_grad_norm_(model.face_head.parameters(), training.optimization.clip)
        optimizer.step()
        if step % 100 == 0:
            bar.write(f"step {step}: " + said(parts))
    with torch.no_grad():
        chunks = [slice(start, start + settings.batch) for start in range(count, len(images), settings.batch)]
        measured = [
            face_losses(model, head, objective, images[c], truth[c], training.data.render_size)[1]
            for c in chunks
        ]
    print(
        "held-out faces: "
        + said({name: torch.cat([parts[name] for parts in measured]) for name in measured[0]})
    )
    save_checkpoint(model, settings.out, head.id)


def face_losses(
    model: FaceGPT, head: HeadModel, objective: FaceObjective, images: Tensor, truth: Tensor, size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses (n,) of the faces read from mean tokens (n,H), and their parts; the true faces are rendered."""
    layout = model.spec.layout
    with torch.no_grad():
        shown = render(head, FaceParameters.from_vector(truth, layout), size)
    targets = FaceTargets(shown.image.clamp(0, 1), shown.landmarks, shown.skin_mask, truth)
    spoken = model.face_head.face_parameters(torch.randn_like(images), images)
    return objective(render(head, spoken, size), spoken, targets)


def said(parts: dict[str, Tensor]) -> str:
    """The mean of every part of the objective in one line."""
    return ", ".join(f"{name} {float(values.detach().mean()):.4g}" for name, values in parts.items())


if __name__ == "__main__":
    sys.exit(run(main))

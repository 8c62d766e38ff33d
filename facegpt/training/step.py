"""One step of training: the face losses with their gradient, the text loss, and the optimiser's turn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from facegpt.errors import TrainingError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective
from facegpt.render.renderer import render
from facegpt.sample import Batch, FaceTargets
from facegpt.training.engine import Ranks, group_names
from facegpt.training.meter import Clock, MetricMeter
from facegpt.training.settings import TrainSettings


class FaceLoss:
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


def optimize(
    engine: Any,
    face_loss: FaceLoss,
    micro_batches: list[Batch],
    settings: TrainSettings,
    ranks: Ranks,
    meter: MetricMeter,
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
            gradient, faces, parts = face_loss(vectors, batch.faces)
        with clock("model"):
            # d(face loss)/d(vectors) is known: a product with it passes it on to the language model.
            through_faces = (vectors * gradient).sum() / faces_everywhere
            loss = weights.text * text.sum() / tokens_everywhere + weights.face * through_faces
            health = health + loss.detach()
            engine.backward(loss * ranks.world, scale_wrt_gas=False)  # DeepSpeed averages over the ranks
        meter.add(batch.sources, text, label_rows, faces, face_rows, parts)
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

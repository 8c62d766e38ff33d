"""One step of training: the face losses with their gradient, the text loss, and the optimiser's turn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from facegpt.errors import FaceGPTError, RenderingError, TrainingError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective
from facegpt.render.renderer import render
from facegpt.sample import Batch, FaceTargets
from facegpt.training.engine import Ranks, group_names, raise_together
from facegpt.training.meter import Clock, MetricMeter
from facegpt.training.settings import TrainSettings

# No comparison of a photograph gives more: landmarks a million pixels off weigh 1e10.
LARGEST_LOSS = 1e12


class FaceLoss:
    """The face losses and their gradient: head model, renderer and objective over all faces of a batch."""

    def __init__(self, head: HeadModel, objective: FaceObjective, size: int) -> None:
        self.head, self.objective, self.size = head, objective, size
        layout = objective.layout
        self.mean = head.mean_parameters(1, layout.neck, layout.eyes).to_vector()  # (1, N)

    def __call__(
        self, vectors: Tensor, targets: FaceTargets | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """d(sum of losses)/d(vectors) (R,N), loss per face (F,), its unweighted parts, each (F,).

        vectors (R,N), R >= F: parameter vectors; rows beyond the targets are dummies and get a zero gradient.
        The gradient is taken here and now, so the images' graph is freed before the language model's backward
        pass needs the memory, and that pass looks the same on every rank, with faces or without.

        A face that cannot be drawn has a loss and a gradient of NaN. It is no exception, because the other
        ranks, whose faces can be drawn, would wait for this one: `optimize` stops them all together.
        """
        gradient = torch.zeros_like(vectors)
        if targets is None or len(targets) == 0:
            return gradient, None, {}
        given = vectors[: len(targets)].detach().float()
        drawable = given.isfinite().all(dim=1)  # (F,)
        try:
            rows, losses, parts = self._compare(given, drawable, targets)
        except RenderingError:  # finite, but too large
            rows, losses, parts = self._compare(given, torch.zeros_like(drawable), targets)
        gradient[: len(targets)] = rows
        return gradient, losses, parts

    def _compare(
        self, given: Tensor, drawable: Tensor, targets: FaceTargets
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Gradient (F,N), losses (F,), parts; where not drawable (F,) the mean is drawn and NaN returned."""
        leaf = torch.where(drawable[:, None], given, self.mean).requires_grad_()
        parameters = FaceParameters.from_vector(leaf, self.objective.layout)
        with torch.enable_grad():
            losses, parts = self.objective(render(self.head, parameters, self.size), parameters, targets)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        lost = ~drawable
        gradient = gradient.masked_fill(lost[:, None], torch.nan)
        losses = losses.detach().masked_fill(lost, torch.nan)
        return gradient, losses, {name: part.detach() for name, part in parts.items()}


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

    Raises TrainingError on every rank when the loss is not finite anywhere (the model has diverged, or a
    sample is broken); the weights are then untouched.
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
    healthy: list[Tensor] = []  # per micro-batch
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
            # The loss itself and what stands for it: a finite gradient may belong to an infinite loss.
            face = torch.zeros_like(loss) if faces is None else faces.sum() / faces_everywhere
            healthy.append((loss.detach().abs() + weights.face * face) < LARGEST_LOSS)
            engine.backward(loss * ranks.world, scale_wrt_gas=False)  # DeepSpeed averages over the ranks
        meter.add(batch.sources, text, label_rows, faces, face_rows, parts)
        with clock("optimizer"):
            if number == len(micro_batches):
                ensure_finite(torch.stack(healthy), ranks, step, micro_batches)
            rates = engine.get_lr()
            engine.step()
    meter.add_step(engine.get_global_grad_norm(), settings.optimization.clip)
    return {f"lr/{name}": rate for name, rate in zip(group_names(engine), rates, strict=True)}


def ensure_finite(healthy: Tensor, ranks: Ranks, step: int, micro_batches: list[Batch]) -> None:
    """Stop before a loss or a gradient of the faces that is not finite reaches the weights.

    healthy (M,): whether the loss of each micro-batch of this rank is.
    Raises TrainingError on every rank, naming the samples of the micro-batches that are not, of all ranks.
    """
    batches = zip(micro_batches, healthy.tolist(), strict=True)
    suspects = [sample for batch, good in batches if not good for sample in batch.ids]
    found = ranks.complaints(", ".join(suspects[:32]))
    if found:
        raise TrainingError(
            f"the loss of step {step} is not finite, or above {LARGEST_LOSS:g}; it comes from one of the "
            f"samples {', '.join(found)}, or the model has diverged: look at them, or lower optimization.lr"
        )


def next_batches(batches: Iterator[list[Batch]], ranks: Ranks) -> list[Batch]:
    """The micro-batches of the next step on this rank's device. Every rank must call it.

    Raises TrainingError on every rank when a sample cannot be used on any, with the sentence that names it.
    """
    found, complaint = [], ""
    try:
        found = [batch.to(ranks.device) for batch in next(batches)]
    except (FaceGPTError, OSError) as error:
        complaint = str(error) or type(error).__name__
    raise_together(ranks, complaint)
    return found

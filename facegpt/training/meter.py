"""What is measured between two lines of the metrics: losses per part and source, speed, where time goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from facegpt.training.engine import Ranks
from facegpt.training.settings import ObjectiveSettings


class MetricMeter:
    """Sums on the device, so that keeping books needs no synchronisation; read and emptied by `report`.

    Losses are means per supervised token and per face over all ranks, as in the objective.
    """

    def __init__(self, sources: list[str], objective: ObjectiveSettings, ranks: Ranks) -> None:
        self.sources, self.objective, self.ranks = sources, objective, ranks
        self.parts = [name for name in ("pixel", "perceptual", "landmark", "regularization", "parameters")
                      if getattr(objective, name) > 0]  # fmt: skip
        # columns: text loss, tokens, face loss, faces, conversations; float64 because the sums grow long
        self.by_source = torch.zeros(len(sources), 5, dtype=torch.float64, device=ranks.device)
        self.by_part = torch.zeros(len(self.parts), dtype=torch.float64, device=ranks.device)
        self.clipped = torch.zeros(2, dtype=torch.float64, device=ranks.device)  # clipped steps, all steps
        self.started = time.perf_counter()

    def add(
        self,
        sources: list[str],
        tokens: Tensor,
        token_rows: Tensor,
        faces: Tensor | None,
        face_rows: Tensor,
        parts: dict[str, Tensor],
    ) -> None:
        """Book one micro-batch of N conversations.

        sources: the source of each conversation. tokens (K,): text loss per supervised token; token_rows
        (K,): its conversation. faces (F,) or None, face_rows (F,): likewise. parts: name -> (F,).
        """
        place = torch.tensor([self.sources.index(name) for name in sources], device=self.by_source.device)
        book = self.by_source
        book[:, 0].index_add_(0, place[token_rows], tokens.detach().double())
        book[:, 1].index_add_(0, place[token_rows], torch.ones_like(token_rows, dtype=torch.float64))
        book[:, 4].index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
        if faces is not None:
            book[:, 2].index_add_(0, place[face_rows], faces.double())
            book[:, 3].index_add_(0, place[face_rows], torch.ones_like(face_rows, dtype=torch.float64))
            self.by_part += torch.stack([parts[name].double().sum() for name in self.parts])

    def add_step(self, grad_norm: Tensor | float | None, clip: float) -> None:
        """Book whether the gradient of a step was longer than `clip` (0: nothing is clipped)."""
        if clip > 0 and grad_norm is not None:  # DeepSpeed has none without ZeRO
            self.clipped[0] += torch.as_tensor(grad_norm, device=self.clipped.device) > clip
            self.clipped[1] += 1

    def report(self) -> dict[str, float]:
        """Means over all ranks since the last report, share of clipped steps, speed; empties the books.

        Every rank must call it. What did not occur is left out: there is no mean of nothing.
        """
        sums = self.ranks.sum(torch.cat([self.by_source.flatten(), self.by_part])).cpu()
        by_source = sums[: self.by_source.numel()].view_as(self.by_source)
        text, tokens, face, faces, conversations = by_source.sum(0).tolist()
        seconds = time.perf_counter() - self.started
        row = {
            "loss": self.objective.text * text / max(tokens, 1) + self.objective.face * face / max(faces, 1)
        }
        row["loss/text"] = text / max(tokens, 1)
        if faces:
            row["loss/face"] = face / faces
            parts = sums[self.by_source.numel() :].tolist()
            row |= {f"face/{name}": part / faces for name, part in zip(self.parts, parts, strict=True)}
        for name, (text, count, face, number, _) in zip(self.sources, by_source.tolist(), strict=True):
            if count:
                row[f"source/{name}/text"] = text / count
            if number:
                row[f"source/{name}/face"] = face / number
        clipped, steps = self.clipped.tolist()  # the same on every rank
        if steps:
            row["clipped"] = clipped / steps
        for word, count in (("faces", faces), ("samples", conversations), ("tokens", tokens)):
            row[f"speed/{word}_per_second"] = count / seconds
        self.by_source.zero_()
        self.by_part.zero_()
        self.clipped.zero_()
        self.started = time.perf_counter()
        return row

    def state(self) -> dict[str, Any]:
        """This rank's sums since the last report, for a checkpoint between two lines of metrics."""
        return {
            "by_source": self.by_source,
            "by_part": self.by_part,
            "clipped": self.clipped,
            "seconds": time.perf_counter() - self.started,
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Go on from `state`, so that the next line is a mean over the same steps as without the stop."""
        if state is not None:
            self.by_source.copy_(state["by_source"])
            self.by_part.copy_(state["by_part"])
            self.clipped.copy_(state["clipped"])
            self.started = time.perf_counter() - state["seconds"]


class Clock:
    """Seconds spent per section of a step.

    On a GPU the sections end with a synchronisation, so only steps for which `on` is set are timed there.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.on = not self.cuda
        self.steps = 0
        self.seconds: dict[str, float] = defaultdict(float)

    def begin_step(self, logged: bool) -> None:
        """Say whether the coming step is one whose times will be reported."""
        self.on = logged or not self.cuda
        self.steps += self.on

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[section] += self._now() - start

    def report(self) -> dict[str, float]:
        """Mean seconds per timed step; starts anew."""
        row = {f"time/{name}": total / max(self.steps, 1) for name, total in self.seconds.items()}
        self.seconds.clear()
        self.steps = 0
        return row

    def _now(self) -> float:
        if not self.on:
            return 0.0
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

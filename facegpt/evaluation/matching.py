"""Is the generated face nearer to its own truth than to fifteen others? Expression and pose, never identity.

Shape legend: N faces, K candidates, V vertices of the face region.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.identity import matching_accuracy

CANDIDATES = 16
ASPECTS = ("both", "expression", "pose")


def posed_faces(head: HeadModel, parameters: FaceParameters, aspect: str, chunk: int = 64) -> Tensor:
    """Vertices (N,V,3) in metres of the face region with zero identity.

    aspect: "both" keeps expression, jaw and head rotation; "expression" only expression and jaw; "pose" only
    the head rotation. Neck and eyes stay at rest.
    """
    if aspect not in ASPECTS:
        raise ValueError(f"aspect must be one of {', '.join(ASPECTS)}, got {aspect!r}")
    region = head.regions.get("face")
    pose = parameters.pose.clone()
    if aspect == "expression":
        pose[:, :3] = 0
    if aspect == "pose":
        pose[:, 3:] = 0
    expression = torch.zeros_like(parameters.expression) if aspect == "pose" else parameters.expression
    faces = head.mean_parameters(len(parameters)).replace(expression=expression, pose=pose)
    parts = []
    with torch.no_grad():
        for start in range(0, len(faces), chunk):
            vertices = head(faces[slice(start, start + chunk)]).vertices
            parts.append(vertices if region is None else vertices[:, region])
    return torch.cat(parts)


def distances(predicted: Tensor, candidates: Tensor) -> Tensor:
    """RMS vertex distance in mm from every prediction (N,V,3) to every candidate (M,V,3), as (N,M)."""
    flat, others = predicted.flatten(1).double(), candidates.flatten(1).double()
    # Differences one row at a time: the expanded square would lose the small distances that decide.
    squared = torch.stack([(row - others).square().sum(1) for row in flat])
    return 1000 * (squared / predicted.shape[1]).sqrt()


def draw_candidates(count: int, seed: int, size: int = CANDIDATES) -> Tensor:
    """(N, size) indices: column 0 is the face itself, the rest are other faces drawn without repetition.

    Raises ValueError when there are fewer than `size` faces.
    """
    if count < size:
        raise ValueError(f"matching among {size} needs at least {size} faces, got {count}")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for face in range(count):
        others = torch.randperm(count - 1, generator=generator)[: size - 1]
        rows.append(torch.cat([torch.tensor([face]), others + (others >= face)]))
    return torch.stack(rows)


def ranks(table: Tensor, candidates: Tensor) -> Tensor:
    """Place (N,) of each face's own truth among its candidates, 1 = nearest; a tie counts against it.

    table (N,M): distances; candidates (N,K): columns to choose from, the right one first.
    """
    chosen = table.gather(1, candidates)
    return (chosen[:, 1:] <= chosen[:, :1]).sum(dim=1) + 1


def derangement(count: int, seed: int) -> Tensor:
    """A random permutation (N,) without fixed points: i gets the text of derangement[i] and never its own.

    Sattolo's algorithm: one random cycle through all. Raises ValueError for fewer than two.
    """
    if count < 2:
        raise ValueError("texts can only be shuffled among two or more")
    generator = torch.Generator().manual_seed(seed)
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(torch.randint(last, (1,), generator=generator))
        order[last], order[other] = order[other], order[last]
    return torch.tensor(order)


@dataclass
class Matching:
    """Shares of faces nearest to their own truth, given their own text and given another one's.

    ranks (N,): see `ranks`, of the faces given their own text. distances (N,N): see `distances`. others (N):
    the face whose text each one is given instead.
    """

    model: float
    shuffled_text: float
    ranks: Tensor
    distances: Tensor
    others: Tensor

    def as_json(self) -> dict[str, Any]:
        """The shares beside chance, with their standard errors."""
        count = len(self.ranks)
        spread = {name: math.sqrt(p * (1 - p) / count) for name, p in self._shares().items()}
        return {
            "model": self.model,
            "chance": 1 / CANDIDATES,
            "shuffled_text": self.shuffled_text,
            "standard_error": spread,
        }

    def _shares(self) -> dict[str, float]:
        return {"model": self.model, "shuffled_text": self.shuffled_text}


def match(
    head: HeadModel, predicted: FaceParameters, truth: FaceParameters, seed: int
) -> dict[str, Matching]:
    """Match N generated faces with N true ones, by every aspect of `ASPECTS`.

    With greedy decoding the face depends on nothing but its text, so giving the texts to other faces is the
    same as giving the faces away; no second generation is needed.
    Raises ValueError when there are fewer than sixteen.
    """
    candidates = draw_candidates(len(truth), seed)
    others = derangement(len(truth), seed)
    first = torch.zeros(len(truth), dtype=torch.int64)  # the column of the right candidate
    found = {}
    for aspect in ASPECTS:
        table = distances(posed_faces(head, predicted, aspect), posed_faces(head, truth, aspect)).cpu()
        found[aspect] = Matching(
            model=matching_accuracy(table.gather(1, candidates), first) / 100,
            shuffled_text=matching_accuracy(table[others].gather(1, candidates), first) / 100,
            ranks=ranks(table, candidates),
            distances=table,
            others=others,
        )
    return found

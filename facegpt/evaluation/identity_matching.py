"""Is it the same person? A recogniser between predicted and true identities, all in one pose and light."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from facegpt.evaluation.candidate_draws import share_of_wins
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.identity import recognition_rate
from facegpt.perception.align import align_face
from facegpt.perception.recognizer import Recognizer
from facegpt.render.lighting import directional
from facegpt.render.renderer import render

CANDIDATES = 64
SIZE = 224
TOWARD_LIGHT, STRENGTH, AMBIENT = (-0.5, 0.5, 0.7), 0.7, 0.55
DEFINITION = (
    "share of the predicted identities (shape and albedo, without expression, frontal, in one light from the "
    "upper left, with the head's default camera) whose own true identity, rendered in the same way, is the "
    "most similar of 64 to the recogniser; recognition_rate: 100 x the cosine to the own one"
)


@torch.no_grad()
def identity_features(
    head: HeadModel, faces: FaceParameters, recognizer: Recognizer, size: int = SIZE, chunk: int = 16
) -> Tensor:
    """The recogniser's unit features (N,D) of the identities of N faces, on the CPU.

    Pose, light and camera are the same for all: in its own pose a face would be told by its pose.
    """
    lamp = torch.tensor([TOWARD_LIGHT]), torch.full((1, 3), STRENGTH), torch.full((1, 3), AMBIENT)
    light = directional(*lamp)
    parts = []
    for start in range(0, len(faces), chunk):
        group = faces[slice(start, start + chunk)]
        neutral = head.mean_parameters(len(group))
        neutral = neutral.replace(
            shape=group.shape, albedo=group.albedo, lighting=light.to(group.shape).expand(len(group), -1)
        )
        shown = render(head, neutral, size)
        parts.append(recognizer(align_face(shown.image.clamp(0, 1), shown.landmarks)).float().cpu())
    return torch.cat(parts)


def identity_rank_1(predicted: Tensor, truth: Tensor, seed: int) -> dict[str, Any]:
    """`share_of_wins` among 64 by the cosine of features (N,D), and the mean recognition rate in percent."""
    table = 1 - predicted.double() @ truth.double().T
    found = share_of_wins(table, CANDIDATES, seed)
    return {**found, "recognition_rate": float(recognition_rate(predicted, truth).mean())}

"""Does a generated face move what the true one moves? The angle between expressions, hits of action units.

Shape legend: N faces, U action units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from facegpt.evaluation.action_units import unit_strengths
from facegpt.evaluation.summary import summary
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters

ACTIVE = 0.2  # FACS intensity B and above
DEFINITIONS = {
    "cosine": "between the expression coefficients of the face and the truth; 0 where a face has none",
    "unit_hits": f"share of the truth's action units of {ACTIVE} or more that the face has at {ACTIVE} or "
    "more too",
    "unit_false_alarms": "share of its other action units that the face has at that strength",
}


def unit_table(head: HeadModel, faces: FaceParameters) -> np.ndarray:
    """Strengths (N,U) of all action units."""
    names, pose = head.expression_names, faces.pose.cpu().tolist()
    rows = zip(faces.expression.cpu().tolist(), pose, strict=True)
    return np.stack(
        [unit_strengths(dict(zip(names, row, strict=False)), angles[3], angles[0]) for row, angles in rows]
    )


def expression_table(
    head: HeadModel, found: Mapping[str, FaceParameters], truth: FaceParameters, seed: int
) -> dict[str, Any]:
    """Name -> cosine, unit hits and false alarms, each a `summary` over N faces; see `DEFINITIONS`."""
    active = unit_table(head, truth) >= ACTIVE
    table = {}
    for name, faces in found.items():
        moved = unit_table(head, faces) >= ACTIVE
        cosine = torch.nn.functional.cosine_similarity(faces.expression.cpu(), truth.expression.cpu(), dim=1)
        rows = {
            "cosine": cosine.double().numpy(),
            "unit_hits": _share(moved & active, active),
            "unit_false_alarms": _share(moved & ~active, ~active),
        }
        table[name] = {metric: summary(values, seed) for metric, values in rows.items()}
    return table


def _share(hits: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Row by row (N,U) -> (N,); NaN where nothing counts."""
    count = counted.sum(axis=1)
    return np.where(count > 0, hits.sum(axis=1) / np.maximum(count, 1), np.nan)

"""How far the vertices of spoken faces lie from those of the true ones, which have the same vertices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.agreement import bootstrap
from facegpt.metrics.procrustes import aligned

REGIONS = ("face", "eye_region", "forehead", "nose", "lips")  # those of them that the head has
ALIGNMENTS = ("not_aligned", "aligned", "identity")
MILLIMETERS = 1000
DEFINITION = (
    "mean distance of matching vertices in mm, per region of the head; not_aligned: posed heads in their "
    "own frame, where the camera's shift and scale do not count; aligned: after the rigid motion that brings "
    "the face region nearest, without scale; identity: shapes alone, without expression and pose, aligned so"
)


def head_regions(head: HeadModel) -> dict[str, Tensor]:
    """Region -> bool (V,); a head without a face region counts whole, as "head"."""
    found = {name: head.regions[name] for name in REGIONS if name in head.regions}
    return found if "face" in found else {"head": torch.ones_like(head.v_template[:, 0], dtype=torch.bool)}


@torch.no_grad()
def vertex_errors(
    head: HeadModel, faces: FaceParameters, truth: FaceParameters, chunk: int = 32
) -> dict[str, dict[str, Tensor]]:
    """Alignment -> region -> mean vertex distance (N,) in mm on the CPU; see `DEFINITION`.

    faces: N, or one that is compared with all. truth: N.
    """
    regions = head_regions(head)
    parts = []
    for start in range(0, len(truth), chunk):
        rows = slice(start, start + chunk)
        some = faces if len(faces) == 1 else faces[rows]
        posed, shaped = _vertices(head, some), _vertices(head, _shape_alone(head, some))
        true_posed = _vertices(head, truth[rows])
        true_shaped = _vertices(head, _shape_alone(head, truth[rows]))
        parts.append(mesh_errors(posed, shaped, true_posed, true_shaped, regions))
    return {
        alignment: {name: torch.cat([part[alignment][name] for part in parts]) for name in regions}
        for alignment in ALIGNMENTS
    }


def mesh_errors(
    posed: Tensor, shaped: Tensor, true_posed: Tensor, true_shaped: Tensor, regions: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """`vertex_errors` of vertices in metres: posed and shape alone, (B,V,3) and true ones; B or one face."""
    by = next(iter(regions.values()))
    posed, shaped = posed.expand_as(true_posed), shaped.expand_as(true_shaped)
    pairs = {
        "not_aligned": (posed, true_posed),
        "aligned": (aligned(posed, true_posed, by), true_posed),
        "identity": (aligned(shaped, true_shaped, by), true_shaped),
    }
    found: dict[str, dict[str, Tensor]] = {}
    for alignment, (one, other) in pairs.items():
        distance = MILLIMETERS * (one - other).norm(dim=2).cpu()  # (B, V)
        found[alignment] = {name: distance[:, region.cpu()].mean(dim=1) for name, region in regions.items()}
    return found


def vertex_table(errors: Mapping[str, dict[str, dict[str, Tensor]]], seed: int) -> dict[str, Any]:
    """Alignment -> region -> name -> mean, median and the mean's 95 % interval; errors: by name."""
    first = next(iter(errors.values()))
    table: dict[str, Any] = {}
    for alignment, regions in first.items():
        for region in regions:
            rows = torch.stack([found[alignment][region].double() for found in errors.values()])
            ends = bootstrap(lambda faces, rows=rows: rows[:, faces].mean(dim=1), rows.shape[1], seed)  # type: ignore[misc]
            table.setdefault(alignment, {})[region] = {
                name: {
                    "mean": end.value,
                    "interval_95": [end.low, end.high],
                    "median": float(row.quantile(0.5)),
                }
                for name, row, end in zip(errors, rows, ends, strict=True)
            }
    return table


def _vertices(head: HeadModel, faces: FaceParameters) -> Tensor:
    """(B,V,3) float64: alignment by float32 leaves a micrometre."""
    return head(faces).vertices.double()


def _shape_alone(head: HeadModel, faces: FaceParameters) -> FaceParameters:
    return head.mean_parameters(len(faces)).replace(shape=faces.shape)

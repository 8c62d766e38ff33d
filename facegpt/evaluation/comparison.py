"""Several methods on the same faces: the numbers of each face, their tables, and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from facegpt.data.held_out import target_groups
from facegpt.evaluation.identity_matching import identity_features
from facegpt.evaluation.predictions import Predictions
from facegpt.evaluation.vertex_errors import head_regions, mesh_errors, vertex_errors
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.agreement import bootstrap
from facegpt.metrics.identity import recognition_rate
from facegpt.metrics.image_errors import image_errors
from facegpt.metrics.paired import holm, paired_test
from facegpt.perception.recognizer import Recognizer
from facegpt.sample import FaceRecord

LARGER_IS_BETTER = ("identity",)
DEFINITIONS = {
    "landmark_error_px": "mean distance of the 68 projected landmarks, in pixels of a 224 crop",
    "photometric_error": "mean L2 distance in RGB, [0,1], over the true skin",
    "vertices_REGION": "mean distance of matching vertices in mm, posed heads, not aligned",
    "vertices_REGION_aligned": "the same after the rigid motion that brings the face region nearest",
    "shape_REGION": "the same of the shapes alone, without expression and pose",
    "identity": "100 x cosine of a recogniser's features of both identities in one pose and light",
    "paired": (
        "first less second on the same faces: difference of the means with its 95 % interval (1,000 "
        "resamplings of the faces), Wilcoxon's signed-rank test, two-sided, adjusted for all tests of the "
        "table by Holm's method, and the share of faces on which the first is better"
    ),
}


@torch.no_grad()
def numbers_of(
    predicted: Predictions,
    records: Sequence[FaceRecord],
    truth: FaceParameters | None,
    head: HeadModel,
    recognizer: Recognizer,
    size: int,
) -> dict[str, Tensor]:
    """Metric -> numbers (N,) float64 of one method; predicted, records and truth are of the same N faces.

    Meshes have no camera, light or shape of their own: only their posed vertices are compared.
    """
    found: dict[str, Tensor] = {}
    errors: dict[str, dict[str, Tensor]] = {}
    if predicted.faces is not None:
        faces = predicted.faces.to(head.v_template)
        names = [record.id for record in records]
        one = image_errors(names, target_groups(records, size), {"": faces}, head, truth)[""]
        found = {"landmark_error_px": one.landmark, "photometric_error": one.photometric}
        if truth is not None:
            errors = vertex_errors(head, faces, truth)
            ours, theirs = (identity_features(head, some, recognizer) for some in (faces, truth))
            found["identity"] = recognition_rate(ours, theirs)
    elif truth is not None and predicted.vertices is not None:
        posed, true = predicted.vertices.to(head.v_template).double(), head(truth).vertices.double()
        errors = mesh_errors(posed, posed, true, posed, head_regions(head))
        del errors["identity"]
    titles = {"not_aligned": "vertices_{}", "aligned": "vertices_{}_aligned", "identity": "shape_{}"}
    for alignment, regions in errors.items():
        found |= {titles[alignment].format(region): values for region, values in regions.items()}
    return {metric: values.double().cpu() for metric, values in found.items()}


def metric_table(numbers: Mapping[str, Mapping[str, Tensor]], seed: int) -> dict[str, Any]:
    """Metric -> method -> mean, its 95 % interval, and median; numbers: method -> metric -> (N,)."""
    table: dict[str, Any] = {}
    for method, metrics in numbers.items():
        for metric, values in metrics.items():
            mean = bootstrap(lambda faces, values=values: values[faces].mean()[None], len(values), seed)[0]  # type: ignore[misc]
            table.setdefault(metric, {})[method] = {
                "mean": mean.value,
                "interval_95": [mean.low, mean.high],
                "median": float(values.quantile(0.5)),
            }
    return table


def paired_table(numbers: Mapping[str, Mapping[str, Tensor]], seed: int) -> list[dict[str, Any]]:
    """One row per metric and pair of methods that both have it; see `DEFINITIONS`."""
    rows: list[dict[str, Any]] = []
    for first, second in combinations(numbers, 2):
        for metric in (metric for metric in numbers[first] if metric in numbers[second]):
            test = paired_test(numbers[first][metric], numbers[second][metric], seed)
            better = 1 - test.smaller if metric in LARGER_IS_BETTER else test.smaller
            rows.append(
                {
                    "metric": metric,
                    "first": first,
                    "second": second,
                    "difference": test.difference.value,
                    "interval_95": [test.difference.low, test.difference.high],
                    "p": test.p,
                    "first_better": better,
                }
            )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
    return rows

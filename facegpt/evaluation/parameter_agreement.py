"""Do the spoken faces' parameters follow the true ones? Correlation and slope, by group and by component."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.metrics.agreement import bootstrap, correlation, slope, varying

LEAST_SPREAD = 0.01  # standard deviation of the truth: components below it do not vary
SHAPES, ALBEDOS = 20, 5  # the first components, which move most
ANGLES = ("pitch", "yaw", "roll", "jaw")
DEFINITION = (
    "Pearson's r of predicted and true parameter over the faces, mean over the components of a row; slope: "
    "regression of the predicted on the true number, so the share of a true deviation from the mean that "
    "survives (0 for the mean face, 1 for the truth). Of expression and lighting the components count whose "
    f"true standard deviation is above {LEAST_SPREAD}; pitch, yaw and roll are the three numbers of the "
    "head's axis-angle rotation, jaw is its opening. Intervals: 95 %, 1,000 resamplings of the faces"
)


def component_names(head: HeadModel, layout: ParameterLayout) -> list[str]:
    """What the numbers of a parameter vector are called, in its order."""
    pose = [*ANGLES, "jaw sideways", "jaw roll"]
    named = {
        **{
            group: [name if name.startswith(group) else f"{group} {name}" for name in names]
            for group, names in (("shape", head.shape_names), ("albedo", head.albedo_names))
        },
        "expression": head.expression_names,
        "pose": pose,
        "camera": ["camera scale", "camera tx", "camera ty"],
        "lighting": [f"light band {band} {color}" for band in range(9) for color in ("red", "green", "blue")],
    }
    return [
        named[group][number] if group in named else f"{group} {number}"
        for group, size in layout.sizes.items()
        for number in range(size)
    ]


def group_columns(layout: ParameterLayout) -> dict[str, slice]:
    """Parameter group -> its columns in the vector."""
    columns, start = {}, 0
    for name, size in layout.sizes.items():
        columns[name] = slice(start, start + size)
        start += size
    return columns


def rows_of(truth: FaceParameters) -> dict[str, Tensor]:
    """Row of the table -> indices of its components in the parameter vector; rows without any are missing."""
    layout, columns = truth.layout, group_columns(truth.layout)

    def components(group: str, first: int, last: int) -> Tensor:
        return columns[group].start + torch.arange(first, last)

    def that_vary(group: str) -> Tensor:
        return columns[group].start + torch.nonzero(varying(getattr(truth, group).cpu(), LEAST_SPREAD))[:, 0]

    rows = {
        "expression": that_vary("expression"),
        "shape_first_20": components("shape", 0, min(SHAPES, layout.shape)),
        "albedo_first_5": components("albedo", 0, min(ALBEDOS, layout.albedo)),
        **{name: components("pose", place, place + 1) for place, name in enumerate(ANGLES)},
        "camera": components("camera", 0, 3),
        "camera_scale": components("camera", 0, 1),
        "camera_tx": components("camera", 1, 2),
        "camera_ty": components("camera", 2, 3),
        "lighting": that_vary("lighting"),
    }
    rows["identity"] = torch.cat([rows["shape_first_20"], rows["albedo_first_5"]])
    return {name: components for name, components in rows.items() if len(components)}


def agreement(predicted: FaceParameters, truth: FaceParameters, seed: int) -> dict[str, Any]:
    """Row -> components, correlation and slope with their 95 % intervals; see `DEFINITION`.

    predicted, truth: N faces each. Numbers are None where nothing varies, as with a single face.
    """
    p, t = _vectors(predicted, truth)
    rows = rows_of(truth)

    def statistic(faces: Tensor) -> Tensor:
        r, s = correlation(p[faces], t[faces]), slope(p[faces], t[faces])
        return torch.stack([values[columns].nanmean() for columns in rows.values() for values in (r, s)])

    found = bootstrap(statistic, len(t), seed)
    table: dict[str, Any] = {}
    for place, (name, columns) in enumerate(rows.items()):
        table[name] = {"components": len(columns)}
        for key, estimate in zip(("correlation", "slope"), found[2 * place : 2 * place + 2], strict=True):
            numbers = {end: finite(number) for end, number in asdict(estimate).items()}
            table[name][key] = numbers["value"]
            table[name][f"{key}_95"] = [numbers["low"], numbers["high"]]
    return table


def component_agreement(
    head: HeadModel, predicted: FaceParameters, truth: FaceParameters, seed: int
) -> dict[str, dict[str, float | None]]:
    """Component -> correlation and slope with their 95 % intervals' ends, standard deviation of both sides.

    Only the components whose truth varies (`LEAST_SPREAD`).
    """
    p, t = _vectors(predicted, truth)
    ends = bootstrap(
        lambda faces: torch.cat([correlation(p[faces], t[faces]), slope(p[faces], t[faces])]), len(t), seed
    )
    low, high = (torch.tensor([getattr(e, end) for e in ends]).view(2, -1) for end in ("low", "high"))
    columns = {
        "correlation": correlation(p, t),
        "correlation_low": low[0],
        "correlation_high": high[0],
        "slope": slope(p, t),
        "slope_low": low[1],
        "slope_high": high[1],
        "true_deviation": t.double().std(dim=0, unbiased=False),
        "predicted_deviation": p.double().std(dim=0, unbiased=False),
    }
    vary = varying(t, LEAST_SPREAD).tolist()
    names = component_names(head, truth.layout)
    return {
        name: {key: finite(float(values[place])) for key, values in columns.items()}
        for place, name in enumerate(names)
        if vary[place]
    }


def _vectors(predicted: FaceParameters, truth: FaceParameters) -> tuple[Tensor, Tensor]:
    """Both as vectors on the CPU; neck and eyes, which come last and synthetic faces lack, are cut off."""
    t = truth.to_vector().cpu()
    return predicted.to_vector().cpu()[:, : t.shape[1]], t


def finite(value: float) -> float | None:
    """The number for a JSON file, None for NaN."""
    return value if value == value else None

"""Expressions in ARKit's units: what MediaPipe's blendshape network sees in photographs and in renderings.

The network is calibrated first: renderings of a head with known coefficients show which of its 52 values mean
something on that head. Shape legend: N faces, 52 units in the order of `face_points.BLENDSHAPES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from facegpt.errors import HeadMismatchError
from facegpt.evaluation.parameter_agreement import finite
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.agreement import bootstrap, correlation, slope, varying
from facegpt.perception.face_landmarker import FaceLandmarker
from facegpt.perception.face_points import BLENDSHAPES
from facegpt.render.renderer import render
from facegpt.standins.synthetic import sample_parameters
from facegpt.visualize import to_pil

FULL_JAW = 0.4  # radians that count as 1
FULL_GAZE = 0.35  # radians that an eyeball turns with its lids at 1
CLOSED_JAW = 0.15  # radians: the opening that the built-in head's mouthClose closes the lips of
LEAST_SPREAD = 0.02  # standard deviation of a unit over the photographs: below it there is nothing to follow
SEEN, LEAST_SLOPE = 0.5, 0.05  # correlation with the known coefficient and slope from which a unit is seen

# What is moved together: both sides of a movement, and both eyes by the direction of the gaze.
_GAZES = {
    "gazeLeft": ("eyeLookOutLeft", "eyeLookInRight"),
    "gazeRight": ("eyeLookInLeft", "eyeLookOutRight"),
}
_DIRECTIONS = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
# Eye -> unit -> column of `FaceParameters.eyes` and sign: x turns down, y to the subject's left.
_TURNS = {
    f"eyeLook{way}{side}": (3 * eye + axis, sign)
    for eye, side in enumerate(("Left", "Right"))
    for way, axis, sign in (
        ("Down", 0, 1), ("Up", 0, -1), ("Out", 1, 1 if eye == 0 else -1), ("In", 1, -1 if eye == 0 else 1),
    )
}  # fmt: skip


def movements() -> dict[str, tuple[str, ...]]:
    """Movement -> the units that it moves together; every unit but `_neutral` is in one."""
    table: dict[str, tuple[str, ...]] = dict(_GAZES)
    for unit in BLENDSHAPES[1:]:
        if unit.startswith(("eyeLookIn", "eyeLookOut")):
            continue
        stem = unit if unit in _DIRECTIONS else unit.removesuffix("Left").removesuffix("Right")
        table[stem] = (*table.get(stem, ()), unit)
    return table


def calibration_faces(
    head: HeadModel, each: int, generator: torch.Generator, strength: float = 1.0
) -> tuple[FaceParameters, list[str], Tensor]:
    """`each` random faces for every movement, at rest but for it.

    Returns the faces, the movement of each, and its coefficient (N,), even in [0, strength]. Identity, light
    and camera are those of synthetic faces, the turn of the head half of theirs.
    Raises HeadMismatchError for a head whose components are not named as ARKit's are.
    """
    table, columns = movements(), {name: index for index, name in enumerate(head.expression_names)}
    if "mouthSmileLeft" not in columns:
        raise HeadMismatchError("the head's expression components have not ARKit's names; use one that has")
    names = [name for name in table for _ in range(each)]
    faces = sample_parameters(head, len(names), generator)
    amounts = strength * torch.rand(len(names), generator=generator)
    pose = faces.pose.clone()
    pose[:, :3] /= 2
    pose[:, 3:] = 0
    expression, eyes = torch.zeros_like(faces.expression), torch.zeros(len(names), 6)
    for row, (name, amount) in enumerate(zip(names, amounts.tolist(), strict=True)):
        for unit in table[name]:
            if unit == "jawOpen":
                pose[row, 3] = amount * FULL_JAW
            elif unit in columns:
                expression[row, columns[unit]] = amount
            if unit == "mouthClose":
                pose[row, 3] = amount * CLOSED_JAW
            if unit in _TURNS:
                column, sign = _TURNS[unit]
                eyes[row, column] = sign * amount * FULL_GAZE
    return faces.replace(pose=pose, expression=expression, eyes=eyes.to(pose)), names, amounts


def seen_units(landmarker: FaceLandmarker, images: Sequence[Image.Image]) -> Tensor:
    """The 52 values (N,52) of the largest face of each picture; NaN where no face is found."""
    rows = torch.full((len(images), len(BLENDSHAPES)), torch.nan)
    for number, image in enumerate(images):
        found = landmarker.find(image)
        if found:
            with torch.no_grad():
                rows[number] = landmarker.blendshapes(found[0].points[None].to(_device(landmarker)))[0].cpu()
    return rows


def _device(landmarker: FaceLandmarker) -> torch.device:
    return next(landmarker.mixer.parameters()).device


@torch.no_grad()
def portrait(head: HeadModel, face: FaceParameters, size: int, gray: float = 0.5) -> Image.Image:
    """The rendering of one face on gray, as the network is shown it."""
    behind = face.shape.new_full((1, 3, size, size), gray)
    return to_pil(render(head, face, size, background=behind, supersample=2).image[0])


def calibrate(names: Sequence[str], amounts: Tensor, seen: Tensor, seed: int) -> dict[str, Any]:
    """Unit -> how its value (N,52) follows the known coefficient (N,) over the faces of its movement.

    names, amounts: as `calibration_faces` gives them. Numbers: n, correlation and slope with 95 % intervals,
    the movement, `seen`: the correlation is at least `SEEN`, the slope `LEAST_SLOPE`, its interval above 0.
    """
    result: dict[str, Any] = {}
    for movement, units in movements().items():
        mine = torch.tensor([name == movement for name in names]) & seen.isfinite().all(dim=1)
        values = seen[mine][:, [BLENDSHAPES.index(unit) for unit in units]].double()
        truth = amounts[mine].double()[:, None].expand_as(values)
        for unit, row in zip(units, _follow(values, truth, seed), strict=True):
            row["seen"] = (
                row["correlation"] is not None
                and row["correlation"] >= SEEN
                and row["correlation_95"][0] > 0
                and row["slope"] >= LEAST_SLOPE
            )
            result[unit] = {"movement": movement, **row}
    return {unit: result[unit] for unit in BLENDSHAPES[1:]}


def compare(photograph: Tensor, rendering: Tensor, seed: int) -> dict[str, Any]:
    """Unit -> how its value in the renderings (N,52) follows that in the photographs (N,52).

    Faces that were not found in either are left out. Numbers: n, correlation and slope with 95 % intervals,
    deviations of both; `varies` is whether the photographs' is above `LEAST_SPREAD`.
    """
    both = photograph.isfinite().all(dim=1) & rendering.isfinite().all(dim=1)
    truth, values = photograph[both].double(), rendering[both].double()
    if len(truth) < 2:
        return {}
    vary = varying(truth, LEAST_SPREAD).tolist()
    rows = _follow(values[:, 1:], truth[:, 1:], seed)
    return {
        unit: {**row, "varies": varies}
        for unit, row, varies in zip(BLENDSHAPES[1:], rows, vary[1:], strict=True)
    }


def mean_correlation(table: dict[str, Any], key: str) -> tuple[int, float | None]:
    """How many units of `calibrate` or `compare` have `key` and a correlation, and its mean over them."""
    found = [row["correlation"] for row in table.values() if row[key] and row["correlation"] is not None]
    return len(found), sum(found) / len(found) if found else None


def _follow(values: Tensor, truth: Tensor, seed: int) -> list[dict[str, Any]]:
    """How P units' values (N,P) follow others (N,P), a row for each; all resample the same faces."""
    count, size = truth.shape
    if count < 2:
        return [{"n": count, "correlation": None, "slope": None} for _ in range(size)]

    def statistic(rows: Tensor) -> Tensor:
        return torch.cat([correlation(values[rows], truth[rows]), slope(values[rows], truth[rows])])

    found, table = bootstrap(statistic, count, seed), []
    for k in range(size):
        row: dict[str, Any] = {"n": count}
        for key, estimate in (("correlation", found[k]), ("slope", found[size + k])):
            row[key] = finite(estimate.value)
            row[f"{key}_95"] = [finite(estimate.low), finite(estimate.high)]
        row["deviation"] = float(truth[:, k].std(unbiased=False))
        row["seen_deviation"] = float(values[:, k].std(unbiased=False))
        table.append(row)
    return table

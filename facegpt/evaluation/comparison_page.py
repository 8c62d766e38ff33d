"""The page of `eval/compare.py`: means, paired tests, cumulative curves, and the faces that differ most."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from facegpt.evaluation.predictions import Predictions
from facegpt.evaluation.report_page import definitions, number, page, strip, table
from facegpt.evaluation.report_sections import Painter, cumulative
from facegpt.sample import FaceRecord

TITLES = {
    "landmark_error_px": "landmark error, px at 224",
    "photometric_error": "photometric error",
    "identity": "identity, 100 x cosine (larger is better)",
}
IN_CURVES = {"landmark_error_px": "px", "vertices_face_aligned": "mm", "shape_face": "mm"}
CLEAR = 0.05  # of adjusted p-values


def comparison_page(
    result: Mapping[str, Any],
    numbers: Mapping[str, Mapping[str, Tensor]],
    records: Sequence[FaceRecord],
    methods: Mapping[str, Predictions],
    painter: Painter,
    count: int,
) -> str:
    """A whole HTML document; result: of the recipe, numbers: method -> metric -> (N,)."""
    names = list(numbers)
    body = f"<h1>{html.escape(', '.join(names[:-1]))}</h1>"
    body += f"<p>{result['n']} faces that all methods have, of <code>{html.escape(result['data'])}</code>."
    lacks = {name: found["missing"] for name, found in result["methods"].items() if found["missing"]}
    missing = ", ".join(f"{name} lacks {lacking}" for name, lacking in lacks.items())
    body += f" Others are left out: {html.escape(missing)}.</p>" if missing else "</p>"
    rows = [
        [title(metric), *(_mean(found.get(name), metric) for name in names)]
        for metric, found in result["metrics"].items()
    ]
    body += "<h2>Means</h2>" + table(["", *names], rows, main=None)
    body += "<h2>Pairs</h2><p>First less second, on the same faces. In bold: what Holm's adjustment for all "
    body += f"{len(result['paired'])} tests leaves below {CLEAR}.</p>"
    for pair in dict.fromkeys((row["first"], row["second"]) for row in result["paired"]):
        rows = [_paired_row(row) for row in result["paired"] if (row["first"], row["second"]) == pair]
        header = [f"{pair[0]} less {pair[1]}", "difference, 95 %", "p, adjusted", f"{pair[0]} is better"]
        body += table(header, rows, main=None)
    curves = [
        cumulative(title(metric), {n: found[metric] for n, found in numbers.items() if metric in found}, unit)
        for metric, unit in IN_CURVES.items()
        if metric in result["metrics"]
    ]
    body += f'<h2>How many faces are how good</h2><div class="charts">{"".join(curves)}</div>'
    body += differences(numbers, records, methods, painter, count)
    body += f"<h2>What the words mean</h2>{definitions(result['definitions'])}"
    made = {"command": result["command"], "head": result["head_id"]}
    body += f"<h2>How it was made</h2>{definitions(made)}"
    return page("Comparison", body)


def title(metric: str) -> str:
    """What a metric is called in a table."""
    return TITLES.get(metric) or f"{metric.replace('_', ' ')}, mm"


def differences(
    numbers: Mapping[str, Mapping[str, Tensor]],
    records: Sequence[FaceRecord],
    methods: Mapping[str, Predictions],
    painter: Painter,
    count: int,
) -> str:
    """The faces whose landmark errors by the first two methods differ most, half of them for each method."""
    drawn = {name: found.faces for name, found in methods.items() if found.faces is not None}
    first, second = list(numbers)[:2]
    metric = "landmark_error_px"
    if not count or metric not in numbers[first] or metric not in numbers[second]:
        return ""
    order = (numbers[first][metric] - numbers[second][metric]).argsort().tolist()
    half = -(-count // 2)
    chosen = list(dict.fromkeys([*order[:half], *order[::-1][: count - half]]))
    body = f"<h2>Where {html.escape(first)} and {html.escape(second)} differ most</h2>"
    for index in chosen:
        pictures: list[tuple[Image.Image, str]] = [(painter.photo(records[index]), records[index].id)]
        for name, faces in drawn.items():
            face = faces[index].to(painter.head.v_template)
            error = float(numbers[name][metric][index])
            pictures.append((painter.overlaid(records[index], face), f"{name}, {error:.1f} px"))
            pictures.append((painter.head_only(face, clay=True), f"{name}, mesh"))
        body += f'<div class="face">{strip(pictures)}</div>'
    return body


def _paired_row(row: Mapping[str, Any]) -> list[str]:
    digits = _digits(row["metric"])
    low, high = (f"{end:+.{digits}f}" for end in row["interval_95"])
    p = f"{row['p_adjusted']:.2g}"
    return [
        title(row["metric"]),
        f"{row['difference']:+.{digits}f} <small>{low} to {high}</small>",
        f"<strong>{p}</strong>" if row["p_adjusted"] < CLEAR else p,
        f"{100 * row['first_better']:.0f} %",
    ]


def _mean(found: Mapping[str, Any] | None, metric: str) -> str:
    if found is None:
        return number(None)
    low, high = found["interval_95"]
    digits = _digits(metric)
    return f"{found['mean']:.{digits}f} <small>{low:.{digits}f} to {high:.{digits}f}</small>"


def _digits(metric: str) -> int:
    return 3 if metric == "photometric_error" else 1 if metric == "identity" else 2

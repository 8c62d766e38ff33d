"""The page that `data_gen/prepare.py` writes: what was found in photographs, what was refused, and why."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegpt.data.prepared_faces import Filters
from facegpt.data.records import read_records
from facegpt.evaluation.report_page import page, strip, table
from facegpt.visualize import draw_landmarks

BARS = 32
SAMPLES = 8  # pictures in a row
SIZE = 160  # pixels a side of a picture
# Measure -> what its histogram is called, and its axis; None: logarithmic, as far as the values go.
MEASURES: dict[str, tuple[str, tuple[float, float] | None]] = {
    "size": ("size of the face, pixels of the photograph", None),
    "sharpness": ("sharpness", None),
    "confidence": ("confidence of the detector", (0.0, 1.0)),
    "yaw": ("yaw, degrees to its left", (-90.0, 90.0)),
    "pitch": ("pitch, degrees down", (-90.0, 90.0)),
    "roll": ("roll, degrees to its right shoulder", (-90.0, 90.0)),
}
KINDS = {
    "unreadable": "no picture, or a broken or enormous one",
    "no face": "the detector found no face",
    "landmarks": "no landmarks, or none of a face",
    "unsure": "the detector's confidence is low",
    "small": "too few pixels",
    "cut off": "the face leaves the photograph",
    "blurred": "not sharp",
    "turned": "turned too far",
    "duplicate": "the same picture was taken already",
    "unknown": "nobody says who it is",
    "failed": "the work on it failed",
}


def preparation_page(lines: Iterable[dict[str, Any]], filters: Filters, taken: Path | None) -> str:
    """A self-contained HTML page about the lines of a preparation's log; they are gone through once.

    taken: a folder of face records to show some of, None when nothing was taken.
    """
    measures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in MEASURES}
    kinds: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    samples: dict[str, list[tuple[Image.Image, str]]] = defaultdict(list)
    read = 0
    for line in lines:
        read += line.get("photographs", 0)
        kind = line.get("kind", "")
        kinds[kind] += bool(kind)
        splits[line.get("split", "")] += "split" in line
        for name, value in line.get("measures", {}).items():
            if name in measures:
                measures[name][bool(kind)].append(value)
        if "thumbnail" in line and len(samples[kind]) < SAMPLES:
            samples[kind].append((_image(line["thumbnail"]), line["reason"]))
    found = len(measures["size"][0]) + len(measures["size"][1])
    body = [
        "<h1>Photographs, prepared</h1>",
        f"<p>{read} photographs, {found} faces found, {sum(splits.values())} taken: "
        + (", ".join(f"{number} {split}" for split, number in splits.items() if number) or "none")
        + ".</p>",
    ]
    if taken is not None:
        body += ["<h2>Taken</h2>", _taken(taken)]
    body += ["<h2>Refused</h2>", _table(kinds)]
    for kind in KINDS:
        if samples[kind]:
            body.append(f"<div class='face'><p><strong>{kind}</strong></p>{_row(samples[kind])}</div>")
    charts = [histogram(*MEASURES[name], *measures[name], _limits(name, filters)) for name in MEASURES]
    body += ["<h2>All faces that were found</h2>", f'<div class="charts">{"".join(charts)}</div>']
    return page("Photographs, prepared", "\n".join(body))


def histogram(
    title: str,
    axis: tuple[float, float] | None,
    taken: Sequence[float],
    refused: Sequence[float],
    limits: Sequence[float],
) -> str:
    """Taken and refused values, stacked, as inline SVG; limits are dashed lines.

    axis: its ends, values beyond count there; None: logarithmic, from the least to the largest value.
    """
    heading = f"<figcaption><strong>{html.escape(title)}</strong></figcaption>"
    every = np.array([*taken, *refused], dtype=np.float64)
    every = every[np.isfinite(every) & ((every > 0) | (axis is not None))]
    if not len(every):
        return f'<figure>{heading}<p class="soft">nothing was measured</p></figure>'
    low, high = axis or (0.95 * float(every.min()), 1.05 * float(every.max()))
    edges = np.linspace(low, high, BARS + 1) if axis else np.geomspace(low, high, BARS + 1)
    counts = [np.histogram(np.clip(values, low, high), edges)[0] for values in (refused, taken)]
    most = int((counts[0] + counts[1]).max()) or 1
    left, right, top, bottom = 30.0, 352.0, 10.0, 160.0
    width = (right - left) / BARS

    def across(value: float) -> float:
        place = (value - low) / (high - low) if axis else np.log(value / low) / np.log(high / low)
        return left + float(place) * (right - left)

    parts = [f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="var(--line)"/>']
    below = np.zeros(BARS)
    for values, color in zip(counts, ("var(--second)", "var(--accent)"), strict=True):
        for number in np.flatnonzero(values):
            height = values[number] / most * (bottom - top)
            y = bottom - below[number] / most * (bottom - top) - height
            parts.append(
                f'<rect x="{left + number * width + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
                f'height="{height:.1f}" fill="{color}"/>'
            )
        below += values
    for limit in limits:
        if low <= limit <= high:
            x = across(limit)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="var(--ink)" '
                'stroke-dasharray="4 3"/>'
            )
    middle = (low + high) / 2 if axis else float(np.sqrt(low * high))
    for value, anchor in ((low, "start"), (middle, "middle"), (high, "end")):
        parts.append(f'<text x="{across(value):.1f}" y="178" text-anchor="{anchor}">{value:.3g}</text>')
    parts.append(f'<text x="{left - 5}" y="{top + 8}" text-anchor="end">{most}</text>')
    name = html.escape(title, quote=True)
    drawing = f'<svg viewBox="0 0 360 186" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    legend = (
        '<i style="background:var(--accent)"></i>taken</span><span><i style="background:var(--second)"></i>'
    )
    return f'<figure>{heading}{drawing}<div class="legend"><span>{legend}refused</span></div></figure>'


def thumbnail_text(jpeg: bytes) -> str:
    """A small JPEG as text for a log."""
    return base64.b64encode(jpeg).decode("ascii")


def _image(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB").resize((SIZE, SIZE))


def _row(pictures: list[tuple[Image.Image, str]]) -> str:
    """A strip as wide as its pictures ask for, so that few of them are not drawn larger than many."""
    width = 100 * len(pictures) // SAMPLES
    return f'<div style="max-width:{width}%;overflow-wrap:anywhere">{strip(pictures)}</div>'


def _limits(name: str, filters: Filters) -> list[float]:
    least = {"size": filters.smallest, "sharpness": filters.sharpness, "confidence": filters.confidence}
    if name in least:
        return [least[name]]
    most = float(getattr(filters, name))
    return [-most, most]


def _table(kinds: Counter[str]) -> str:
    if not sum(kinds.values()):
        return "<p>Nothing.</p>"
    rows = [
        [f"<strong>{kind}</strong>: {html.escape(words)}", str(kinds[kind])]
        for kind, words in KINDS.items()
        if kinds[kind]
    ]
    return table(["", "faces or photographs"], rows)


def _taken(folder: Path) -> str:
    """Crops with their landmarks, and below them what the vision tower is shown."""
    records = read_records(folder)[:SAMPLES]
    crops = [(_small(draw_landmarks(r.image, r.landmarks, (80, 220, 120))), r.id) for r in records]
    views = [(_small(r.shown), "") for r in records]
    said = "<p class='soft'>Face crops with their landmarks; below, what the vision tower is shown.</p>"
    return f'<div class="face">{said}{_row(crops)}{_row(views)}</div>'


def _small(image: Image.Image) -> Image.Image:
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)

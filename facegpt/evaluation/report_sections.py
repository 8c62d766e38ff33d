"""The sections of the evaluation report: tables of numbers, rows of pictures, what the words mean."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from facegpt.data.records import FaceRecords
from facegpt.data.targets import to_tensor
from facegpt.evaluation.report_numbers import (
    NAMES,
    agreement_table,
    component_table,
    fit_table,
    group_table,
    main_table,
    matching_table,
    vertex_table,
)
from facegpt.evaluation.report_page import Curve, chart, definitions, strip, table
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.renderer import render
from facegpt.sample import IMAGE_TOKEN, FaceRecord
from facegpt.visualize import head_picture, overlay, to_pil

KINDS = {
    "image": "face from a photograph",
    "image_held_out_wording": "the same, words not in training",
    "text": "face from a description",
    "text_held_out_wording": "the same, words not in training",
    "question_about_image": "question about a photograph",
    "question": "question without a photograph",
}
POINTS, SHOWN = 60, 0.98  # of a cumulative curve: how many, and up to which quantile of the worst method
STAND_INS = (
    "The numbers below are of the built-in stand-ins: {parts}. They show that the method runs end to end and "
    "learns; they are not comparable with the published ones."
)


@dataclass
class Result:
    """A result file, the single answers beside it, and the records they are about."""

    values: dict[str, Any]
    rows: list[dict[str, Any]]
    records: FaceRecords

    def record(self, name: str) -> FaceRecord:
        """The record of that id; ValueError when the folder has none any more."""
        found: FaceRecord = self.records[self.records.ids.index(name)]
        return found


@dataclass
class Painter:
    """Pictures of faces at one size."""

    head: HeadModel
    size: int

    def parameters(self, row: dict[str, Any]) -> FaceParameters:
        """The face of a row of answers; neck and eyes are told by the length of its vector."""
        vector = torch.tensor([row["parameters"]])
        neck_and_eyes = vector.shape[1] - self.head.layout.total
        layout = self.head.mean_parameters(1, neck_and_eyes in (3, 9), neck_and_eyes in (6, 9)).layout
        return FaceParameters.from_vector(vector, layout)

    def photo(self, record: FaceRecord) -> Image.Image:
        """The photograph at the painter's size."""
        return record.image.resize((self.size, self.size), Image.Resampling.BICUBIC)

    @torch.no_grad()
    def rendering(self, face: FaceParameters) -> Image.Image:
        """The face under its own camera and light, on black."""
        return to_pil(render(self.head, face, self.size).image[0])

    @torch.no_grad()
    def overlaid(self, record: FaceRecord, face: FaceParameters) -> Image.Image:
        """The face rendered over the photograph."""
        shown = render(self.head, face, self.size)
        return overlay(to_tensor(self.photo(record)), shown.image[0], shown.mask[0])

    def head_only(self, face: FaceParameters, clay: bool) -> Image.Image:
        """The head from the front in studio light, with its albedo or as clay."""
        return head_picture(self.head, face, self.size, clay=clay)


def opening(values: dict[str, Any]) -> str:
    """Title, checkpoint and, where stand-ins were used, what that means; values: of a result file."""
    step = values.get("training", {}).get("step")
    text = "<h1>FaceGPT: faces from photographs and from words</h1>"
    text += f"<p>Checkpoint <code>{_text(values['checkpoint'])}</code>"
    text += "" if step is None else f", {step} training steps"
    text += (
        ", measured on faces that training never saw. Every answer is generated token by token; where a "
        "request for a face brings none, the mean face is scored in its place.</p>"
    )
    parts = []
    if values["backbone"] == "tiny":
        parts.append("a tiny LLaVA of a few million parameters")
    if values["settings"]["head"] == "builtin":
        parts.append("a head model made by code")
    if parts:
        parts.append("rendered faces in place of photographs")
        text += f'<p class="soft">{STAND_INS.format(parts=", ".join(parts))}</p>'
    return text


def number_tables(faces: Result | None, texts: Result | None) -> str:
    """All tables of `eval/reconstruct.py` (faces) and `eval/text_to_face.py` (texts), as far as they ran."""
    body = "<h2>Numbers</h2>"
    if faces is not None:
        values = faces.values
        body += main_table(values) + vertex_table(values) + agreement_table(values)
        body += component_table(values) + group_table(values) + fit_table(values)
        body += emission_table(values["emission"])
    if texts is not None:
        body += matching_table(texts.values)
    return body


def error_curves(rows: Sequence[dict[str, Any]]) -> str:
    """How many faces are up to how far off, for the model and its yardsticks; rows: of answers."""
    faces = [row["landmark_error_px"] for row in rows if row["kind"] == "image"]
    names = [name for name in NAMES if faces and name in faces[0]]
    errors = {NAMES[name]: torch.tensor([face[name] for face in faces]) for name in names}
    return f'<div class="charts">{cumulative("landmark error", errors, "px")}</div>' if names else ""


def cumulative(title: str, errors: Mapping[str, Tensor], unit: str) -> str:
    """A chart of the share of faces up to each error; errors: name -> (N,), one curve each."""
    last = float(f"{max(float(values.quantile(SHOWN)) for values in errors.values()):.2g}")
    places = [last * k / POINTS for k in range(POINTS + 1)]
    curves = [
        Curve(name, [(x, 100 * float((values <= x).double().mean())) for x in places])
        for name, values in errors.items()
    ]
    return chart(f"{title}: % of the faces up to it", curves, unit=unit)


def emission_table(rates: dict[str, Any]) -> str:
    """How often `<FACE>` came, by the kind of prompt; rates: `emission` of a result file, shares in [0,1]."""
    rows = [
        [KINDS.get(kind, kind), f"{100 * found['share_with_face']:.1f} %", str(found["n"])]
        for kind, found in rates["kinds"].items()
    ]
    return (
        f"<p>Does <code>&lt;FACE&gt;</code> come when it should? Recall {100 * rates['recall']:.1f} % over "
        f"{rates['requests']} requests; {100 * rates['false_positive_rate']:.1f} % false positives over "
        f"{rates['questions']} questions that want words.</p>"
        + table(["prompt", "answers with a face", "prompts"], rows)
    )


def reconstructions(result: Result, painter: Painter, count: int) -> str:
    """The first `count` faces from photographs, and the worst two of the others."""
    rows = [row for row in result.rows if row["kind"] == "image"]
    worst = sorted(rows[count:], key=lambda row: -row["landmark_error_px"]["model"])[:2]
    body = (
        f"<h2>Photograph to face</h2><p>The first {min(count, len(rows))} held-out faces, not selected.</p>"
    )
    body += "".join(reconstruction(result, row, painter) for row in rows[:count])
    if worst:
        body += "<p>And the worst of the others by landmark error.</p>"
        body += "".join(reconstruction(result, row, painter) for row in worst)
    return body


def reconstruction(result: Result, row: dict[str, Any], painter: Painter) -> str:
    """One face from a photograph: what was said, and five pictures."""
    record, face = result.record(row["id"]), painter.parameters(row)
    mean = painter.head.mean_parameters()
    pixels = row["landmark_error_px"]
    note = "" if row["faces"] else " No &lt;FACE&gt; came; this is the mean face."
    pictures = [
        (painter.photo(record), "input"),
        (painter.rendering(face), "rendering"),
        (painter.overlaid(record, face), f"overlay, {pixels['model']:.1f} px"),
        (painter.head_only(face, clay=True), "mesh"),
        (painter.overlaid(record, mean), f"mean face, {pixels['mean_face']:.1f} px"),
    ]
    dialogue = f'<p class="soft">{_asked(row["prompt"])} → {_text(row["reply"]) or "(nothing)"}{note}</p>'
    return f'<div class="face">{dialogue}{strip(pictures)}</div>'


def generated(result: Result, painter: Painter, count: int) -> str:
    """The first `count` faces from descriptions, beside the true ones."""
    rows = result.rows[:count]
    body = (
        f"<h2>Description to face</h2><p>The first {len(rows)} held-out descriptions. No image goes in; the "
        "identity is only as far determined as the words go.</p>"
    )
    for row in rows:
        record, face = result.record(row["id"]), painter.parameters(row)
        place = row["place_among_16"]["both"]
        pictures = [
            (painter.head_only(face, clay=False), f"generated, place {place} of 16"),
            (painter.head_only(face, clay=True), "generated, mesh"),
        ]
        if record.parameters is not None:
            truth = painter.parameters({"parameters": record.parameters.tolist()})
            pictures.append((painter.head_only(truth, clay=True), "truth, mesh"))
        pictures.append((painter.photo(record), "the photograph described"))
        note = "" if row["faces"] else " (no &lt;FACE&gt; came; this is the mean face)"
        quote = f"<blockquote>{_text(row['description'])}</blockquote>"
        body += (
            f'<div class="face">{quote}{strip(pictures)}<p class="soft">{_text(row["reply"])}{note}</p></div>'
        )
    return body


def conversations(rows: Sequence[dict[str, Any]], each: int = 4) -> str:
    """The first answers to different questions that want words."""
    body = ""
    for kind in ("question_about_image", "question"):
        different = {row["prompt"]: row for row in reversed(rows) if row["kind"] == kind}
        for row in list(reversed(different.values()))[:each]:
            body += f'<tr><td>{_asked(row["prompt"])}</td><td style="text-align:left;white-space:normal">'
            body += f"{_text(row['reply']) or '(nothing)'}</td></tr>"
    if not body:
        return ""
    return f'<h2>Questions that want words</h2><div class="scroll"><table>{body}</table></div>'


def closing(results: Sequence[dict[str, Any]]) -> str:
    """What the terms mean, and the commands, seed, head and versions that made the numbers."""
    terms: dict[str, str] = {}
    for values in results:
        for term, meaning in values["definitions"].items():
            terms |= meaning if isinstance(meaning, dict) else {term: meaning}
    facts: dict[str, str] = {}
    for values in results:
        command = values["command"].split("/")[-1].split(" ")[0]
        facts[command] = values["command"]
    first = results[0]
    facts |= {
        "seed": str(first["seed"]),
        "head": f"{first['head'] or 'unnamed'}, id {first['head_id']}",
        "versions": ", ".join(f"{name} {value}" for name, value in first["versions"].items()),
    }
    return f"<h2>What the words mean</h2>{definitions(terms)}<h2>How it was made</h2>{definitions(facts)}"


def _asked(prompt: str) -> str:
    return _text(prompt.removeprefix(f"{IMAGE_TOKEN}\n"))


def _text(value: str) -> str:
    return html.escape(value)

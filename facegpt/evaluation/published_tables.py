"""The tables of the method's own evaluation, our numbers beside the published ones, which are of other data.

Published numbers are those of FaceGPT and of the methods that it compares itself with.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facegpt.evaluation.report_page import number, table

Row = tuple[str, tuple[float | None, ...]]
OURS = "ours: other data, other head"
PHOTOGRAPHS: Sequence[Row] = (
    ("DECA", (0.216, 5.2)),
    ("Deep3D", (0.073, 3.2)),
    ("FOCUS", (0.077, 2.2)),
    ("LLaVA-Key", (0.110, 14.0)),
    ("FaceGPT", (0.103, 3.0)),
)
ABLATIONS: Sequence[Row] = (
    ("FaceGPT", (0.103, 3.0)),
    ("frozen CLIP ViT and MLP, without a language model", (0.133, 7.6)),
    ("FaceGPT with supervised parameters", (0.092, 2.1)),
)
EXPLICIT: Sequence[Row] = (
    ("Describe3D", (96.88, 29.3, 16.27)),
    ("LLaVA-Key", (16.89, 71.8, 42.38)),
    ("FaceGPT", (7.28, 91.7, 64.88)),
)
SPECULATIVE: Sequence[Row] = (
    ("Describe3D", (153.1, 25.6, 14.0)),
    ("LLaVA-Key", (38.5, 68.1, 40.0)),
    ("FaceGPT", (11.5, 83.6, 64.0)),
)
PREFERENCE: Sequence[Row] = (("Describe3D", (11.2,)), ("LLaVA-Key", (31.5,)), ("FaceGPT", (57.2,)))
CHAT: Sequence[Row] = (
    ("LLaVA-1.5-7B", (83.4,)),
    ("FaceGPT without face conversations", (82.7,)),
    ("FaceGPT", (84.6,)),
)
SURFACE = ("Chamfer", "complete, %", "recognition, %")


@dataclass
class OwnResults:
    """The results of our recipes that there are, each as its JSON file has it."""

    reconstruct: Mapping[str, Any] | None = None
    text_to_face: Mapping[str, Any] | None = None
    instruct: Mapping[str, Any] | None = None
    user_study: Mapping[str, Any] | None = None


def published_tables(own: OwnResults) -> str:
    """All tables, with rows of ours where the result is there and a dash where it is not."""
    parts = [
        ("Photograph to face", ("photometric", "landmarks, px"), PHOTOGRAPHS, _images(own, _PHOTOGRAPH_ROWS)),
        ("The same, ablations", ("photometric", "landmarks, px"), ABLATIONS, _images(own, _ABLATION_ROWS)),
        ("Explicit description to face", SURFACE, EXPLICIT, _surfaces(own)),
        ("Speculative description to face", SURFACE, SPECULATIVE, []),
        ("Preferred by people, %", ("chosen",), PREFERENCE, _preferred(own)),
        ("Chat, LLaVA-Bench", ("relative score",), CHAT, _chat(own)),
    ]
    body = (
        "<h2>Beside the published numbers</h2><p>Rows named <em>ours</em> were measured on other faces, "
        "those of this report, with another head, another recogniser and, for the chat, whatever judge was "
        "given. The others are the numbers that FaceGPT publishes, on CelebA-HQ and with its Basel head. "
        "<strong>They cannot be compared line by line</strong>: the tables show what was measured. The "
        "published Chamfer distances have no unit and no stated alignment; ours are mm, after a rigid "
        "alignment.</p>"
    )
    for title, columns, published, ours in parts:
        rows = [[name, *(number(value, _digits(value)) for value in values)] for name, values in published]
        for name, values in ours or [("model", (None,) * len(columns))]:
            cells = [f"<strong>{number(value, _digits(value))}</strong>" for value in values]
            rows.append([f"<em>{OURS}</em>: {html.escape(name)}", *cells])
        body += f"<p>{title}</p>{table(['', *columns], rows, main=None)}"
    return body


_PHOTOGRAPH_ROWS = {
    "model": "model",
    "mean_face": "mean face",
    "nearest_training_face": "nearest training face",
}
_ABLATION_ROWS = {"model": "model", "linear_readout": "linear read-out of its frozen image tokens (labels)"}


def _images(own: OwnResults, names: Mapping[str, str]) -> list[Row]:
    if own.reconstruct is None:
        return []
    photometric, landmarks = own.reconstruct["photometric_error"], own.reconstruct["landmark_error_px"]
    return [
        (title, (photometric[name], landmarks[name])) for name, title in names.items() if name in photometric
    ]


def _surfaces(own: OwnResults) -> list[Row]:
    found = own.text_to_face or {}
    identity = found.get("identity", {})
    return [
        (
            name.replace("_", " "),
            (
                row["chamfer_mm"]["mean"],
                row["complete_rate"]["mean"],
                identity.get(name, {}).get("recognition_rate"),
            ),
        )
        for name, row in found.get("surface", {}).items()
    ]


def _preferred(own: OwnResults) -> list[Row]:
    scale = (own.user_study or {}).get("strengths", {})
    return [(name, (100 * row["probability"],)) for name, row in scale.items()]


def _chat(own: OwnResults) -> list[Row]:
    if own.instruct is None:
        return []
    return [(f"model, judge {own.instruct['judge']}", (own.instruct["scores"]["all"]["relative"],))]


def _digits(value: float | None) -> int:
    """As many as the published tables have: three below 1, else one."""
    return 3 if value is not None and abs(value) < 1 else 1

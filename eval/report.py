"""python eval/report.py --run RUN --out outputs/demo/report.html [key=value ...]

Joins the results of reconstruct.py and text_to_face.py and the training curves of the run into one HTML file
that needs nothing beside it: tables with their baselines, the tables of the published method with our numbers
beside its own, and pictures of input, rendering, overlay, mesh and mean face. Nothing is computed again but
the pictures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegpt.config import at_least, parse_config, run
from facegpt.data.records import read_records
from facegpt.errors import ConfigError, HeadMismatchError, SampleError
from facegpt.evaluation.evaluated_model import samples_path
from facegpt.evaluation.published_tables import OwnResults, published_tables
from facegpt.evaluation.report_page import Curve, chart, page
from facegpt.evaluation.report_sections import (
    Painter,
    Result,
    closing,
    conversations,
    error_curves,
    generated,
    number_tables,
    opening,
    reconstructions,
)
from facegpt.evaluation.report_words import free_wording, language_kept
from facegpt.files import atomic_path, read_json, read_jsonl
from facegpt.head.model import HeadModel

LARGEST_RESULT = 100_000_000  # bytes; a thousand replies have one million


@dataclass
class ReportSettings:
    """reconstruct, text_to_face: the results to show; empty leaves one out. free_wording, language: results
    that are added where they are given. instruct, user_study: results (of the study: its `..._answers.json`)
    for the published method's tables. run: the training run, for its curves (empty: none). faces: how many
    faces of each kind, the first of the held-out set. out: page to write. head: "builtin" or the head file of
    the evaluation. size: side of the pictures in pixels.
    """

    reconstruct: str | None = "outputs/demo/reconstruct.json"
    text_to_face: str | None = "outputs/demo/text_to_face.json"
    free_wording: str | None = None
    language: str | None = None
    instruct: str | None = None
    user_study: str | None = None
    run: str | None = None
    out: str = "outputs/demo/report.html"
    head: str = "builtin"
    faces: int = 8
    size: int = 224

    def __post_init__(self) -> None:
        at_least(0, self, "faces")
        at_least(1, self, "size")


def main(argv: list[str]) -> None:
    settings = parse_config(ReportSettings, argv, __doc__)
    faces = open_result(settings.reconstruct) if settings.reconstruct else None
    texts = open_result(settings.text_to_face) if settings.text_to_face else None
    results = [result for result in (faces, texts) if result is not None]
    if not results:
        raise ConfigError("there is nothing to report; give reconstruct or text_to_face a result file")
    words = open_values(settings.free_wording) if settings.free_wording else None
    language = open_values(settings.language) if settings.language else None
    others = {
        name: open_values(getattr(settings, name), keys) if getattr(settings, name) else None
        for name, keys in (("instruct", {"judge", "scores"}), ("user_study", {"strengths", "answers"}))
    }
    curves = training_curves(Path(settings.run)) if settings.run else ""
    head = HeadModel.open(settings.head)
    for result in results:
        if not head.has_id(result.values["head_id"]):
            raise HeadMismatchError(
                f"the results were made with head model {result.values['head_id']}, but {head.id} is loaded; "
                "give the head of the evaluation"
            )
    painter = Painter(head, settings.size)
    body = [opening(results[0].values)]
    body.append(number_tables(faces, texts))
    body.append(error_curves(faces.rows) if faces else "")
    own = OwnResults(faces.values if faces else None, texts.values if texts else None, **others)
    body.append(published_tables(own))
    try:
        body += [free_wording(words)] if words else []
        body += [language_kept(language)] if language else []
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"free_wording or language is not a result of its recipe ({error}); run it again"
        ) from None
    body.append(curves)
    if faces is not None:
        body.append(reconstructions(faces, painter, settings.faces))
        body.append(conversations(faces.rows))
    if texts is not None:
        body.append(generated(texts, painter, settings.faces))
    body.append(closing([*(result.values for result in results), *filter(None, (words, language))]))
    with atomic_path(settings.out) as temporary:
        temporary.write_text(page("FaceGPT evaluation", "\n".join(filter(None, body))), encoding="utf-8")
    print(f"wrote {settings.out}")


def open_result(path: str) -> Result:
    """Raises ConfigError, naming the file, when it is missing or not a result."""
    file = Path(path)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        rows = read_jsonl(samples_path(file))
        return Result(values, rows, read_records(values["data"]))
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename} is missing; run the evaluation first, or leave it out") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a result of the evaluation recipes ({error}); run them again"
        ) from None


def open_values(path: str, keys: Set[str] = frozenset({"command", "replies"})) -> dict[str, Any]:
    """A result file that needs nothing beside it. Raises ConfigError, naming it, when it lacks its keys."""
    try:
        values = read_json(path, LARGEST_RESULT)
        if {"definitions", *keys} <= values.keys():
            return dict(values)
    except SampleError as error:
        raise ConfigError(f"{error}; run the evaluation first, or leave it out") from None
    except AttributeError:
        pass
    raise ConfigError(f"{path} is not a result of the evaluation recipes; run them again")


def training_curves(run: Path) -> str:
    """Charts of metrics.jsonl. Raises ConfigError when the run has none."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        raise ConfigError(
            f"{run} has no metrics.jsonl; give the folder of a training run, or leave run empty"
        )
    rows = read_jsonl(file)

    def curve(kind: str, key: str, name: str) -> Curve:
        return Curve(name, [(r["step"], r[key]) for r in rows if r["kind"] == kind and key in r])

    charts = [
        chart("text loss", [curve("train", "loss/text", "per token")]),
        chart("face loss, logarithmic", [curve("train", "loss/face", "per face")], logarithmic=True),
        chart("landmark error on held-out faces, px", [
            curve("validation", "image/landmark_error", "from image"),
            curve("validation", "text/landmark_error", "from text"),
        ]),
        chart("held-out prompts answered with a face, %", [
            curve("validation", "image/emission_recall", "face requested, by image"),
            curve("validation", "text/emission_recall", "face requested, by text"),
            curve("validation", "chat/false_positive_rate", "words requested"),
        ]),
    ]  # fmt: skip
    return f'<h2>Training</h2><div class="charts">{"".join(charts)}</div>'


if __name__ == "__main__":
    sys.exit(run(main))

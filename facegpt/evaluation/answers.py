"""The answers to several kinds of prompts: how often a face came, and the rows of a results file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facegpt.evaluation.evaluated_model import face_counts, mean_and_error
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.face_token_rates import face_token_rates
from facegpt.metrics.image_errors import ImageErrors
from facegpt.model.generation import Reply
from facegpt.sample import FaceRecord, Sample


@dataclass
class Answers:
    """The replies to one kind of prompt."""

    samples: list[Sample]
    replies: list[Reply]
    wants_face: bool

    def rate(self) -> dict[str, float]:
        """n, the share with a <FACE>, and its standard error."""
        share, error = mean_and_error([float(count > 0) for count in face_counts(self.replies)])
        return {"n": len(self.replies), "share_with_face": share, "standard_error": error}


def emission_rates(answers: dict[str, Answers]) -> dict[str, Any]:
    wanted, emitted = [], []
    for kind in answers.values():
        wanted += [int(kind.wants_face)] * len(kind.replies)
        emitted += face_counts(kind.replies)
    rates = face_token_rates(wanted, emitted)
    return {
        "recall": rates.recall / 100,
        "false_positive_rate": rates.false_positive_rate / 100,
        "requests": sum(wanted),
        "questions": len(wanted) - sum(wanted),
        "kinds": {name: kind.rate() for name, kind in answers.items()},
    }


def sample_rows(
    records: Sequence[FaceRecord], answers: Answers, errors: dict[str, ImageErrors], faces: FaceParameters
) -> list[dict[str, Any]]:
    """One row per photograph: what was asked, answered and measured, and the parameters."""
    vectors = faces.to_vector().tolist()
    rows = []
    for number, (record, sample, reply) in enumerate(
        zip(records, answers.samples, answers.replies, strict=True)
    ):
        rows.append(
            {
                "kind": "image",
                "id": record.id,
                "prompt": sample.messages[0].text,
                "reply": reply.text,
                "faces": face_counts([reply])[0],
                "landmark_error_px": {name: float(e.landmark[number]) for name, e in errors.items()},
                "photometric_error": {name: float(e.photometric[number]) for name, e in errors.items()},
                "parameters": vectors[number],
            }
        )
    return rows


def other_rows(answers: dict[str, Answers]) -> list[dict[str, Any]]:
    """Prompts and replies of the other kinds, to read."""
    return [
        {
            "kind": kind,
            "id": s.id,
            "prompt": s.messages[0].text,
            "reply": r.text,
            "faces": face_counts([r])[0],
        }
        for kind, found in answers.items()
        if kind != "image"
        for s, r in zip(found.samples, found.replies, strict=True)
    ]

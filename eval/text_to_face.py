"""python eval/text_to_face.py --checkpoint RUN --data FACES --out FILE.json [key=value ...]

Gives a trained model the descriptions of held-out faces, without any image, and asks for the faces. Each
generated face is compared with sixteen and 64 true ones by expression and pose: is its own the nearest? And
with its own as a surface (Chamfer distance, complete rate), as an expression and as a person. How far does
counting words come, the nearest training text, and another face's text? Writes OUT and, beside it, every
single answer in `..._samples.jsonl`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.held_out import true_parameters
from facegpt.data.records import read_records
from facegpt.errors import SampleError
from facegpt.evaluation import candidate_draws, expression_agreement, identity_matching, surface_agreement
from facegpt.evaluation.candidate_draws import share_of_wins
from facegpt.evaluation.evaluated_model import (
    WHEN_NO_FACE,
    EvaluatedModel,
    face_counts,
    first_faces,
    open_evaluated_model,
    provenance,
    replies_to,
    samples_path,
    write_rows,
)
from facegpt.evaluation.expression_agreement import expression_table
from facegpt.evaluation.identity_matching import identity_features, identity_rank_1
from facegpt.evaluation.matching import ASPECTS, CANDIDATES, Matching, match
from facegpt.evaluation.ngram_ridge import ngram_faces
from facegpt.evaluation.prompts import described, description_of, face_requests
from facegpt.evaluation.surface_agreement import face_surfaces, surface_table
from facegpt.files import write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.face_token_rates import face_token_rates
from facegpt.model.generation import Reply
from facegpt.perception.recognizer import load_recognizer
from facegpt.sample import FaceRecord, Sample

MORE_CANDIDATES = 64
DEFINITIONS = {
    "matching_16": (
        "share of the generated faces whose own true face is the nearest of 16 (it and 15 others drawn by "
        "seed): RMS vertex distance of the face region between heads with the predicted and the candidate's "
        "expression, jaw and head rotation, and zero identity; a tie is a miss"
    ),
    "chance": "1/16",
    "shuffled_text": "the same when every face gets the text of another face (no text stays in place)",
    "expression": "matching by expression and jaw alone, heads frontal",
    "matching_draws": f"matching_16 and its aspects; {candidate_draws.DEFINITION}",
    "ngram_ridge": (
        "ridge regression from the words and pairs of words of training descriptions to the true parameters "
        "of those faces, penalty per group of like parameters by 5-fold cross-validation"
    ),
    "nearest_text": (
        "the true face of the training description whose words and pairs of words are most similar, by the "
        "cosine of their tf-idf"
    ),
    "matching_draws_64": "the same among 64, or all faces where there are fewer",
    "surface": surface_agreement.DEFINITIONS,
    "expression_agreement": expression_agreement.DEFINITIONS,
    "identity": identity_matching.DEFINITION,
    "pose": "matching by head rotation alone, faces neutral",
    "held_out_wording": "the same descriptions in requests that training never used",
    "text": (
        "the description of the face, true by what is known of it where there is such a one, else what the "
        "pretrained vision-language model said about the photograph; no image is given"
    ),
    "generation": WHEN_NO_FACE,
}


@dataclass
class TextToFaceSettings:
    """checkpoint: a run or one of its checkpoints. data: held-out face records with known parameters and
    `descriptions.jsonl`. training_data: described training faces, for the baselines of words (empty: none).
    readout_faces: how many of them these use at most. surfaces: how many faces are compared as surfaces (0:
    all). free_scale: frees the scale in their alignment. recognizer: "tiny" or the file of an ArcFace
    network. n: how many descriptions (0: all). out: file for the results. head: "builtin" or the head file
    used in training. backbone: where it lies, if it has moved. device: auto is the GPU where there is one.
    batch: conversations at once. max_new_tokens: the longest answer. seed: of what is drawn.
    """

    checkpoint: str = MISSING
    data: str = "outputs/demo/data/test"
    training_data: str | None = None
    readout_faces: int = 2000
    surfaces: int = 0
    free_scale: bool = False
    recognizer: str = "tiny"
    out: str = "outputs/demo/text_to_face.json"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    n: int = 0
    batch: int = 16
    max_new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens", "readout_faces")
        at_least(0, self, "n", "surfaces")


def main(argv: list[str]) -> None:
    settings = parse_config(TextToFaceSettings, argv, __doc__)
    start = time.time()
    data = read_records(settings.data)
    records = described(data, settings.n)
    if len(records) < CANDIDATES:
        raise SampleError(
            f"{settings.data} has {len(records)} described faces, matching among {CANDIDATES} needs as many; "
            "synthesize and describe more, or raise n"
        )
    evaluated = open_evaluated_model(settings.checkpoint, settings.head, settings.backbone, settings.device)
    truth = true_parameters(records, data, evaluated.head)
    if truth is None:
        raise SampleError(
            f"{settings.data} has faces without known parameters to match with; use synthetic faces"
        )

    words: dict[str, FaceParameters] = {}
    if settings.training_data:
        training = read_records(settings.training_data)
        words = ngram_faces(training, records, evaluated.head, settings.readout_faces, settings.seed)
    counted = {name: match(evaluated.head, faces, truth, settings.seed) for name, faces in words.items()}
    usual = ask(evaluated, records, settings, held_out=False)
    unknown = ask(evaluated, records, settings, held_out=True)
    tables = match(evaluated.head, usual.faces, truth, settings.seed)
    other_tables = match(evaluated.head, unknown.faces, truth, settings.seed)
    others = tables["both"].others
    mean_face = evaluated.head.mean_parameters(len(records))
    faces = {"model": usual.faces, "mean_face": mean_face, "shuffled_text": usual.faces[others], **words}
    result: dict[str, Any] = {
        "n": len(records),
        "matching_16": tables["both"].as_json(),
        "by_aspect": {aspect: tables[aspect].as_json() for aspect in ASPECTS if aspect != "both"},
        "matching_draws": draws(tables, counted, CANDIDATES, settings.seed),
        "matching_draws_64": draws(tables, counted, MORE_CANDIDATES, settings.seed),
        **agreement(evaluated.head, faces, truth, settings),
        "emission": {"recall": usual.recall(), "recall_held_out_wording": unknown.recall()},
        "held_out_wording": {aspect: table.as_json() for aspect, table in other_tables.items()},
        "definitions": DEFINITIONS,
        "data": settings.data,
        **provenance(evaluated, settings),
        "seconds": round(time.time() - start, 1),
    }
    out = Path(settings.out)
    write_rows(samples_path(out), sample_rows(records, usual, tables))
    write_json(out, result)
    for aspect, table in tables.items():
        drawn = result["matching_draws"][aspect]
        rows = [f"{name} {found['share']:.3f}" for name, found in drawn.items()]
        print(
            f"matching by {aspect}: {table.model:.3f}; over {candidate_draws.DRAWS} draws {', '.join(rows)}, "
            f"{drawn['model']['factor_over_chance']:.1f} times chance"
        )
    for name, found in result["surface"].items():
        rows = [f"{metric} {row['mean']:.2f} {_ends(row)}" for metric, row in found.items()]
        print(f"{name}: {', '.join(rows)}")
    print(f"wrote {out} ({len(records)} descriptions, {result['seconds']} s)")


def draws(
    tables: dict[str, Matching], counted: dict[str, dict[str, Matching]], candidates: int, seed: int
) -> dict[str, Any]:
    """Aspect -> model, shuffled text and the baselines of words: `share_of_wins` over draws of candidates."""
    found = {}
    for aspect, table in tables.items():
        rows = {"model": table.distances, "shuffled_text": table.distances[table.others]}
        rows |= {name: matched[aspect].distances for name, matched in counted.items()}
        found[aspect] = {name: share_of_wins(row, candidates, seed) for name, row in rows.items()}
    return found


def agreement(
    head: HeadModel, faces: dict[str, FaceParameters], truth: FaceParameters, settings: TextToFaceSettings
) -> dict[str, Any]:
    """Of every set of N faces: how far its surfaces, expressions and identities are from the true ones."""
    some = slice(0, settings.surfaces or len(truth))
    surfaces = {name: face_surfaces(head, found[some]) for name, found in faces.items()}
    true_surfaces = face_surfaces(head, truth[some])
    recognizer = load_recognizer(settings.recognizer).to(truth.shape.device)
    own = identity_features(head, truth, recognizer)
    return {
        "surface": surface_table(surfaces, true_surfaces, settings.seed, settings.free_scale),
        "expression_agreement": expression_table(head, faces, truth, settings.seed),
        "identity": {
            name: identity_rank_1(identity_features(head, found, recognizer), own, settings.seed)
            for name, found in faces.items()
        },
    }


def _ends(row: dict[str, Any]) -> str:
    low, high = row["interval_95"]
    return f"[{low:.2f}, {high:.2f}]"


@dataclass
class DescribedAnswers:
    """The replies to all descriptions in one kind of wording; faces (N) has the mean face where none came."""

    samples: list[Sample]
    replies: list[Reply]
    faces: FaceParameters

    def recall(self) -> float:
        return face_token_rates([1] * len(self.replies), face_counts(self.replies)).recall / 100


def ask(
    evaluated: EvaluatedModel, records: Sequence[FaceRecord], settings: TextToFaceSettings, held_out: bool
) -> DescribedAnswers:
    samples = face_requests(records, held_out, settings.seed, text=True)
    label = "text_held_out_wording" if held_out else "text"
    replies = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, label)
    return DescribedAnswers(samples, replies, first_faces(replies, evaluated))


def sample_rows(
    records: Sequence[FaceRecord], answers: DescribedAnswers, tables: dict[str, Matching]
) -> list[dict[str, Any]]:
    """One row per description: what was asked and answered, the places among sixteen, and the parameters."""
    vectors = answers.faces.to_vector().tolist()
    return [
        {
            "kind": "text",
            "id": record.id,
            "description": description_of(record),
            "prompt": answers.samples[number].messages[0].text,
            "reply": answers.replies[number].text,
            "faces": face_counts(answers.replies)[number],
            "place_among_16": {aspect: int(table.ranks[number]) for aspect, table in tables.items()},
            "parameters": vectors[number],
        }
        for number, record in enumerate(records)
    ]


if __name__ == "__main__":
    sys.exit(run(main))

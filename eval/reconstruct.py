"""python eval/reconstruct.py --checkpoint RUN --data FACES --out FILE.json [key=value ...]

Asks a trained model for the faces in held-out photographs, by real generation, and compares them with the
photographs: landmark and photometric error beside those of the mean face, and how often `<FACE>` came when it
should and when it should not. Where the true parameters are known: how many millimetres the vertices are
off, whether the spoken parameters follow the true ones, whether it is the same person, and how all that
depends on pose, light and skin. Beside the model: mean faces, a linear read-out of its own image tokens, the
nearest training face, and fits by optimisation. Writes OUT and, beside it, every single answer in
`..._samples.jsonl`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.held_out import target_groups, true_parameters
from facegpt.data.records import FaceRecords, read_records
from facegpt.evaluation import (
    candidate_draws,
    face_groups,
    fitted_faces,
    identity_matching,
    parameter_agreement,
    vertex_errors,
)
from facegpt.evaluation.answers import Answers, emission_rates, other_rows, sample_rows
from facegpt.evaluation.evaluated_model import (
    WHEN_NO_FACE,
    EvaluatedModel,
    first_faces,
    open_evaluated_model,
    provenance,
    replies_to,
    samples_path,
    write_rows,
)
from facegpt.evaluation.face_measures import (
    group_measures,
    mean_face_in_place,
    shares_of_mean_face,
    summarize,
    training_yardsticks,
    truth_measures,
)
from facegpt.evaluation.prompts import described, face_requests, image_questions, instruct_questions
from facegpt.files import write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.image_errors import MASK, ImageErrors, image_errors
from facegpt.perception.recognizer import Recognizer, load_recognizer
from facegpt.sample import FaceRecord, Sample

DEFINITIONS = {
    "landmark_error_px": "mean distance of the 68 projected landmarks, in pixels of a 224 crop",
    "photometric_error": f"mean L2 distance in RGB, [0,1], over the {MASK}",
    "mean_face": "the head's mean: average identity, no expression, frontal, white ambient light",
    "mean_face_best_place": (
        "the mean face, moved and scaled in the image so that its landmarks are nearest to the true ones, "
        "but not turned: what is left when misplacement alone is gone"
    ),
    "mean_face_training": "the mean of the parameters of the training faces, which the model never saw",
    "linear_readout": (
        "ridge regression from the model's own frozen image tokens to the true parameters of training faces, "
        "penalty per group of like parameters by 5-fold cross-validation; it is given labels"
    ),
    "nearest_training_face": (
        "the true parameters of the training face whose image tokens have the largest cosine to the "
        "photograph's, about the mean of all; it is given labels"
    ),
    "fit": fitted_faces.DEFINITION,
    "vertex_error_mm": vertex_errors.DEFINITION,
    "by_group": face_groups.DEFINITION,
    "of_mean_face": "mean error over the mean face's mean error",
    "interval_95": "95 % bootstrap interval: 1,000 resamplings of the faces",
    "agreement": parameter_agreement.DEFINITION,
    "identity_rank_1": f"{identity_matching.DEFINITION}; {candidate_draws.DEFINITION}",
    "emission.recall": "share of the requests for a face, by image and by text, that got a <FACE>",
    "emission.false_positive_rate": "share of the questions that want words, and got a <FACE>",
    "held_out_wording": (
        "the same requests in a short list of other words; the grammar of the training requests can make "
        "some of them, eval/free_wording.py has requests that are surely new"
    ),
    "generation": WHEN_NO_FACE,
}


@dataclass
class ReconstructSettings:
    """checkpoint: a run or one of its checkpoints. data: held-out face records. training_data: the records of
    training, for three more baselines, their mean, the linear read-out and the nearest of them (empty: none).
    readout_faces: how many of them the latter two use at most (0: neither). fits: how many of the photographs
    are also fitted by optimisation, half a minute each (0: none). recognizer: "tiny", "sface" or the file of
    a recogniser, which compares identities. instruct: questions that want no face, a LLaVA JSON list,
    and the folder of its images. n: how many photographs (0: all). questions: how many requests and questions
    of each kind for the emission rates. size: side of the comparison in pixels.
    instruct_images: folder of the images of instruct. out: file for the results. head: "builtin" or the head
    file used in training. backbone: where it lies, if it has moved. device: auto is the GPU where there is
    one. batch: conversations at once. max_new_tokens: the longest answer. seed: of the wordings.
    """

    checkpoint: str = MISSING
    data: str = "outputs/demo/data/test"
    training_data: str | None = None
    instruct: str | None = None
    instruct_images: str | None = None
    out: str = "outputs/demo/reconstruct.json"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    n: int = 0
    questions: int = 100
    readout_faces: int = 2000
    fits: int = 0
    recognizer: str = "tiny"
    size: int = 224
    batch: int = 16
    max_new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "questions", "size", "batch", "max_new_tokens")
        at_least(0, self, "readout_faces", "fits")
        if self.n < 0:
            raise ValueError(f"n must be 0 (all) or more, it is {self.n}")


def main(argv: list[str]) -> None:
    settings = parse_config(ReconstructSettings, argv, __doc__)
    start = time.time()
    data = read_records(settings.data)
    records = list(data[: settings.n or None])
    questions = {"question_about_image": image_questions(records, settings.questions, settings.seed)}
    if settings.instruct:
        questions["question"] = instruct_questions(
            settings.instruct, settings.instruct_images, settings.questions, settings.seed
        )
    evaluated = open_evaluated_model(settings.checkpoint, settings.head, settings.backbone, settings.device)
    recognizer = load_recognizer(settings.recognizer).to(evaluated.model.device)
    truth = true_parameters(records, data, evaluated.head)

    baselines = {
        "mean_face": evaluated.head.mean_parameters(),
        "mean_face_best_place": mean_face_in_place(records, evaluated.head, settings.size),
    }
    if settings.training_data:
        training = read_records(settings.training_data)
        baselines |= training_yardsticks(training, records, evaluated, settings.readout_faces, settings.seed)
    answers = ask(evaluated, data, records, questions, settings)
    known, unknown = answers["image"], answers["image_held_out_wording"]
    predicted = first_faces(known.replies, evaluated)
    faces = {"model": predicted, **baselines}
    errors = errors_of(records, faces, evaluated.head, truth, settings.size)
    few, again = records[: settings.questions], {"model": first_faces(unknown.replies, evaluated)}
    held_out = errors_of(few, again, evaluated.head, truth, settings.size)

    measured: dict[str, Any] = {}
    if truth is not None:
        del faces["mean_face_best_place"]  # in space it is the mean face
        measured = truth_measures(faces, truth, evaluated.head, recognizer, settings.seed)
        groups = face_groups.face_groups(truth, evaluated.head)
        measured["by_group"] = group_measures(groups, errors, settings.seed)
    if settings.fits:
        measured["fit"] = fits(records[: settings.fits], faces, truth, evaluated.head, recognizer, settings)
    everyone = torch.ones(len(records), dtype=torch.bool)
    result: dict[str, Any] = {
        "n": len(records),
        **summarize(errors, everyone, settings.seed),
        "of_mean_face": shares_of_mean_face(errors, settings.seed),
        **measured,
        "emission": emission_rates(answers),
        "held_out_wording": {"n": len(few), **summarize(held_out, everyone[: len(few)], settings.seed)},
        "definitions": DEFINITIONS,
        "data": settings.data,
        **provenance(evaluated, settings),
        "seconds": round(time.time() - start, 1),
    }
    out = Path(settings.out)
    write_rows(samples_path(out), sample_rows(records, known, errors, predicted) + other_rows(answers))
    write_json(out, result)
    report(result, out)


def ask(
    evaluated: EvaluatedModel,
    data: FaceRecords,
    records: Sequence[FaceRecord],
    questions: dict[str, list[Sample]],
    settings: ReconstructSettings,
) -> dict[str, Answers]:
    """All answers, by the kind of prompt. Every photograph is asked for once in the words of training."""
    few, seed = records[: settings.questions], settings.seed
    prompts = {
        "image": face_requests(records, False, seed),
        "image_held_out_wording": face_requests(few, True, seed),
    }
    if data.described:
        texts = described(data, settings.questions)
        prompts["text"] = face_requests(texts, False, seed, text=True)
        prompts["text_held_out_wording"] = face_requests(texts, True, seed, text=True)
    found = {}
    for kind, samples in {**prompts, **questions}.items():
        replies = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, kind)
        found[kind] = Answers(samples, replies, kind in prompts)
    return found


def errors_of(
    records: Sequence[FaceRecord],
    faces: dict[str, FaceParameters],
    head: HeadModel,
    truth: FaceParameters | None,
    size: int,
) -> dict[str, ImageErrors]:
    """Errors in the image of faces, by name, of the first records; truth: of these or more."""
    known = None if truth is None else truth[: len(records)]
    return image_errors([record.id for record in records], target_groups(records, size), faces, head, known)


def fits(
    records: Sequence[FaceRecord],
    faces: dict[str, FaceParameters],
    truth: FaceParameters | None,
    head: HeadModel,
    recognizer: Recognizer,
    settings: ReconstructSettings,
) -> dict[str, Any]:
    """Errors of the fits to the first records, beside those of the other faces on the same records."""
    count, size = len(records), settings.size
    same = {name: found if len(found) == 1 else found[:count] for name, found in faces.items()}
    same["fit"] = fitted_faces.fitted_faces(records, head, recognizer, size)
    errors = errors_of(records, same, head, truth, size)
    measured = {"n": count, **summarize(errors, torch.ones(count, dtype=torch.bool), settings.seed)}
    if truth is not None:
        in_space = {name: vertex_errors.vertex_errors(head, f, truth[:count]) for name, f in same.items()}
        measured["vertex_error_mm"] = vertex_errors.vertex_table(in_space, settings.seed)
    return measured


def report(result: dict[str, Any], out: Path) -> None:
    for metric in ("landmark_error_px", "photometric_error"):
        values = {name: v for name, v in result[metric].items() if not isinstance(v, dict)}
        print(f"{metric}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
    for alignment, regions in result.get("vertex_error_mm", {}).items():
        region, found = next(iter(regions.items()))
        means = ", ".join(f"{name} {row['mean']:.2f}" for name, row in found.items())
        print(f"vertices of the {region}, {alignment}, mm: {means}")
    for name, rows in result.get("agreement", {}).items():
        print(f"correlation of {name}: " + ", ".join(f"{row} {in_words(v)}" for row, v in rows.items()))
    for name, found in result.get("identity_rank_1", {}).items():
        print(
            f"identity of {name}: first of {found['candidates']} in {found['share']:.3f}, "
            f"chance {found['chance']:.3f}"
        )
    rates = result["emission"]
    print(f"emission: recall {rates['recall']:.3f}, false positives {rates['false_positive_rate']:.3f}")
    print(f"wrote {out} ({result['n']} faces, {result['seconds']} s)")


def in_words(row: dict[str, Any]) -> str:
    return "none" if row["correlation"] is None else f"{row['correlation']:.2f}"


if __name__ == "__main__":
    sys.exit(run(main))

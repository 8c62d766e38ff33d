"""python eval/reconstruct.py --checkpoint RUN --data FACES --out FILE.json [key=value ...]

Asks a trained model for the faces in held-out photographs, by real generation, and compares them with the
photographs: landmark and photometric error beside those of the mean face, and how often `<FACE>` came when it
should and when it should not. Where the true parameters are known: whether the spoken ones follow them,
whether it is the same person, and what a straight line reads from the model's own image tokens. Writes OUT
and, beside it, every single answer in `..._samples.jsonl`.
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
from facegpt.evaluation import candidate_draws, identity_matching, parameter_agreement
from facegpt.evaluation.evaluated_model import (
    WHEN_NO_FACE,
    EvaluatedModel,
    face_counts,
    first_faces,
    mean_and_error,
    open_evaluated_model,
    provenance,
    replies_to,
    samples_path,
    write_rows,
)
from facegpt.evaluation.face_measures import (
    mean_face_in_place,
    shares_of_mean_face,
    summarize,
    training_yardsticks,
    truth_measures,
)
from facegpt.evaluation.prompts import described, face_requests, image_questions, instruct_questions
from facegpt.evaluation.yaw import yaw_groups
from facegpt.files import write_json
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.face_token_rates import face_token_rates
from facegpt.metrics.image_errors import MASK, ImageErrors, image_errors
from facegpt.model.generation import Reply
from facegpt.perception.recognizer import load_recognizer
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
    training, for two more baselines, their mean and the linear read-out (empty: none). readout_faces: how
    many of them the read-out is fitted to at most (0: no read-out). recognizer: "tiny", "sface" or the
    file of a recogniser, which compares identities. instruct: questions that want no face, a LLaVA JSON list,
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
    recognizer: str = "tiny"
    size: int = 224
    batch: int = 16
    max_new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "questions", "size", "batch", "max_new_tokens")
        at_least(0, self, "readout_faces")
        if self.n < 0:
            raise ValueError(f"n must be 0 (all) or more, it is {self.n}")


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
    names, few = [record.id for record in records], records[: settings.questions]
    targets = target_groups(records, settings.size)
    errors = image_errors(names, targets, {"model": predicted, **baselines}, evaluated.head, truth)
    again, targets = first_faces(unknown.replies, evaluated), target_groups(few, settings.size)
    known_few = None if truth is None else truth[: len(few)]
    held_out = image_errors(names[: len(few)], targets, {"model": again}, evaluated.head, known_few)

    measured: dict[str, Any] = {}
    if truth is not None:
        compared = {
            "model": predicted,
            **{name: baselines[name] for name in ("linear_readout",) if name in baselines},
        }
        measured = truth_measures(compared, truth, evaluated.head, recognizer, settings.seed)
    everyone = torch.ones(len(records), dtype=torch.bool)
    result: dict[str, Any] = {
        "n": len(records),
        **summarize(errors, everyone, settings.seed),
        "of_mean_face": shares_of_mean_face(errors, settings.seed),
        **measured,
        "emission": emission_rates(answers),
        "held_out_wording": {"n": len(again), **summarize(held_out, everyone[: len(again)], settings.seed)},
        "by_yaw_degrees": {
            label: {"n": int(members.sum()), **summarize(errors, members, settings.seed)}
            for label, members in ({} if truth is None else yaw_groups(truth)).items()
        },
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


def report(result: dict[str, Any], out: Path) -> None:
    for metric in ("landmark_error_px", "photometric_error"):
        values = {name: v for name, v in result[metric].items() if not isinstance(v, dict)}
        print(f"{metric}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
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

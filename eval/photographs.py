"""python eval/photographs.py --checkpoint RUN --photographs FOLDER --out FILE.json [key=value ...]

Asks a trained model for the faces in real photographs with 68 annotated points, and measures how far the
points of the spoken faces lie from them: every face cut out by its annotated points, and as it is found in
the photograph alone where the landmarker is given. FOLDER holds photographs with NAME.pts or NAME.npy beside
them, or an XML file of dlib's imglab. Writes OUT, beside it every single answer in `..._samples.jsonl`, and
pictures to look at: photograph, overlay and rendering of each face.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from facegpt.chat import question
from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.targets import to_tensor
from facegpt.evaluation.annotated_photographs import CutFace, FaceCrop, Finder, annotated_faces, cut_faces
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
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.agreement import bootstrap
from facegpt.metrics.placement import shift_and_scale
from facegpt.metrics.point_errors import point_error
from facegpt.model.generation import Reply
from facegpt.perception.face_landmarker import FaceLandmarker
from facegpt.render.camera import project
from facegpt.render.renderer import render
from facegpt.sample import Sample
from facegpt.visualize import contact_sheet, draw_landmarks, overlay

SIZE = 224  # of a crop
ROWS, ACROSS = 6, 2  # faces on a sheet of pictures
WAYS = ("annotated", "found")
DEFINITIONS = {
    "point_error": (
        "mean distance of 68 points (inner: 51, contour: 17) to the annotated ones, over the distance of the "
        "annotated outer eye corners, in the photograph; intervals: 95 %, 1,000 resamplings of the faces"
    ),
    "annotated": "the face was cut out by its annotated points",
    "found": (
        "the face was cut out where the landmarker found it in the photograph; missed ones are left out"
    ),
    "mean_face": "the head's mean with its own camera, in the same crop",
    "mean_face_best_place": "the head's mean, moved and scaled to be nearest to the annotated points",
    "landmarker": "the landmarker's own points, which no language model has seen",
    "generation": WHEN_NO_FACE,
}


@dataclass
class PhotographSettings:
    """checkpoint: a run or one of its checkpoints. photographs: a folder of them, or an imglab XML file.
    prompt: how every face is asked for. landmarker: what finds the faces, "auto" for the one that
    `facegpt fetch` got, or a `face_landmarker.task` (empty: only the annotated crops). n: how many faces (0:
    all). pictures: how many of them are drawn. out: file for the results. head: "builtin" or the head file
    used in training. backbone: where it lies, if it has moved. device: auto is the GPU where there is one.
    batch: conversations at once. max_new_tokens: the longest answer. seed: of the resampling.
    """

    checkpoint: str = MISSING
    photographs: str = MISSING
    prompt: str = "Could you make me a 3D model of this face?"
    landmarker: str | None = None
    out: str = "outputs/photographs.json"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    n: int = 0
    pictures: int = 24
    batch: int = 16
    max_new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens")
        at_least(0, self, "n", "pictures")


@dataclass
class Spoken:
    """The answers to N crops: replies, the faces (the mean face where none came), and their landmarks
    (N,68,2) in pixels of the photographs.
    """

    cut: list[CutFace]
    crops: list[FaceCrop]
    replies: list[Reply]
    faces: FaceParameters
    landmarks: Tensor


def main(argv: list[str]) -> None:
    settings = parse_config(PhotographSettings, argv, __doc__)
    start = time.time()
    faces = annotated_faces(settings.photographs)[: settings.n or None]
    finder = open_finder(settings.landmarker) if settings.landmarker else None
    evaluated = open_evaluated_model(settings.checkpoint, settings.head, settings.backbone, settings.device)
    cut = cut_faces(faces, finder, SIZE)
    spoken = {way: ask(evaluated, cut, way, settings) for way in WAYS}
    spoken = {way: answers for way, answers in spoken.items() if answers.crops}

    landmarks = torch.stack([face.landmarks for face in faces]).double()
    valid = torch.stack([face.valid for face in faces])
    placed = placed_mean(evaluated.head, landmarks, valid)
    seen = [one for one in cut if one.found_landmarks is not None]
    result: dict[str, Any] = {
        "n": len(faces),
        "photographs": len({face.photograph for face in faces}),
        **{way: summary(answers, evaluated.head, settings.seed) for way, answers in spoken.items()},
        "mean_face_best_place": statistics(point_error(placed, landmarks, valid), settings.seed),
        "landmarker": own_points(seen, settings.seed) if seen else None,
        "definitions": DEFINITIONS,
        **provenance(evaluated, settings),
        "seconds": round(time.time() - start, 1),
    }
    out = Path(settings.out)
    for way, answers in spoken.items():
        draw(evaluated, answers, out.with_name(f"{out.stem}_{way}"), settings.pictures)
    write_rows(
        samples_path(out), [row for way, answers in spoken.items() for row in sample_rows(way, answers)]
    )
    write_json(out, result)
    report(result, spoken, out)


def open_finder(name: str) -> Finder:
    """What finds the faces in a photograph: "auto" is the landmarker that was fetched, else its file."""
    finder: Finder = FaceLandmarker.open(None if name == "auto" else name)
    return finder


def ask(evaluated: EvaluatedModel, cut: Sequence[CutFace], way: str, settings: PhotographSettings) -> Spoken:
    """What the model says to the crops of one way; faces without such a crop are left out."""
    cut = [one for one in cut if getattr(one, way) is not None]
    crops: list[FaceCrop] = [getattr(one, way) for one in cut]
    samples: list[Sample] = [
        question(settings.prompt, crop.image, one.face.id) for one, crop in zip(cut, crops, strict=True)
    ]
    if not crops:
        return Spoken([], [], [], evaluated.mean_face(), torch.zeros(0, 68, 2))
    replies = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, way)
    faces = first_faces(replies, evaluated)
    with torch.no_grad():
        points = project(evaluated.head(faces).landmarks, faces.camera, SIZE, SIZE)[..., :2].cpu()
    landmarks = torch.stack([crop.to_photograph(own) for crop, own in zip(crops, points, strict=True)])
    return Spoken(cut, crops, replies, faces, landmarks)


def mean_points(head: HeadModel) -> Tensor:
    """The mean face's landmarks (68,2) in pixels of a crop, float64."""
    mean = head.mean_parameters()
    with torch.no_grad():
        return project(head(mean).landmarks, mean.camera, SIZE, SIZE)[0, :, :2].double().cpu()


def placed_mean(head: HeadModel, landmarks: Tensor, valid: Tensor) -> Tensor:
    """The mean face's landmarks (N,68,2) at their best place and size for landmarks (N,68,2)."""
    points = mean_points(head).expand(len(landmarks), -1, -1)
    scale, shift = shift_and_scale(points, landmarks, valid)
    return scale[:, None, None] * points + shift[:, None]


def errors_of(answers: Spoken, landmarks: Tensor) -> dict[str, Tensor]:
    """Point errors, region -> (N,), of landmarks (N,68,2) in pixels of the photographs."""
    truth = torch.stack([one.face.landmarks for one in answers.cut]).double()
    return point_error(landmarks, truth, torch.stack([one.face.valid for one in answers.cut]))


def own_points(seen: Sequence[CutFace], seed: int) -> dict[str, Any]:
    """How far the landmarker's own points are off."""
    found = torch.stack([one.found_landmarks for one in seen if one.found_landmarks is not None]).double()
    truth = torch.stack([one.face.landmarks for one in seen]).double()
    return statistics(point_error(found, truth, torch.stack([one.face.valid for one in seen])), seed)


def summary(answers: Spoken, head: HeadModel, seed: int) -> dict[str, Any]:
    mean = torch.stack([crop.to_photograph(mean_points(head)) for crop in answers.crops])
    share, error = mean_and_error([float(count > 0) for count in face_counts(answers.replies)])
    return {
        "n": len(answers.crops),
        "emission": {"share_with_face": share, "standard_error": error},
        "point_error": statistics(errors_of(answers, answers.landmarks), seed),
        "mean_face": statistics(errors_of(answers, mean), seed),
    }


def statistics(errors: dict[str, Tensor], seed: int) -> dict[str, Any]:
    """Region -> median and mean over the faces with 95 % intervals; regions without any are left out."""
    table: dict[str, Any] = {}
    for region, values in errors.items():
        known = values[values.isfinite()]
        if not len(known):
            continue
        median, mean = bootstrap(
            lambda rows, known=known: torch.stack([known[rows].quantile(0.5), known[rows].mean()]),  # type: ignore[misc]
            len(known),
            seed,
        )
        table[region] = {
            "median": median.value,
            "median_95": [median.low, median.high],
            "mean": mean.value,
            "mean_95": [mean.low, mean.high],
        }
    return table


def draw(evaluated: EvaluatedModel, answers: Spoken, stem: Path, count: int) -> None:
    """Sheets of the first `count` faces: the crop with the annotated points, overlay, rendering."""
    cells: list[list[Image.Image | Tensor | None]] = []
    for number in range(min(count, len(answers.crops))):
        with torch.no_grad():
            shown = render(evaluated.head, answers.faces[number], SIZE)
        crop, one = answers.crops[number], answers.cut[number]
        points = one.face.landmarks[one.face.valid].double() @ crop.matrix[:2, :2].T + crop.matrix[:2, 2]
        photo, image, mask = to_tensor(crop.image), shown.image[0].clamp(0, 1).cpu(), shown.mask[0].cpu()
        cells.append([draw_landmarks(crop.image, points), overlay(photo, image, mask), image])
    rows = [[*chain(*cells[start : start + ACROSS])] for start in range(0, len(cells), ACROSS)]
    titles = ["photograph, annotated points", "overlay", "rendering"]
    for page in range(0, len(rows), ROWS):
        some = rows[page : page + ROWS]
        with atomic_path(f"{stem}_{1 + page // ROWS:02d}.jpg") as temporary:
            contact_sheet(some, titles * (len(some[0]) // 3)).save(temporary, quality=90)


def sample_rows(way: str, answers: Spoken) -> list[dict[str, Any]]:
    """One row per face: what was said and measured."""
    errors, vectors = errors_of(answers, answers.landmarks), answers.faces.to_vector().tolist()
    return [
        {
            "kind": way,
            "id": one.face.id,
            "reply": reply.text,
            "faces": face_counts([reply])[0],
            "point_error": {
                region: float(values[number])
                for region, values in errors.items()
                if values[number].isfinite()
            },
            "parameters": vectors[number],
        }
        for number, (one, reply) in enumerate(zip(answers.cut, answers.replies, strict=True))
    ]


def report(result: dict[str, Any], spoken: dict[str, Spoken], out: Path) -> None:
    tables = {way: result[way]["point_error"] for way in spoken}
    tables |= {name: result[name] for name in ("mean_face_best_place", "landmarker") if result[name]}
    for name, table in tables.items():
        print(f"{name}: " + ", ".join(f"{region} median {v['median']:.3f}" for region, v in table.items()))
    for way in spoken:
        print(f"{way}: {result[way]['n']} of {result['n']} faces, "
              f"<FACE> in {result[way]['emission']['share_with_face']:.3f}")  # fmt: skip
    print(f"wrote {out} ({result['n']} faces, {result['seconds']} s)")


if __name__ == "__main__":
    sys.exit(run(main))

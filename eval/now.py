"""python eval/now.py --data NOW --predictions FOLDER --out FILE.json [key=value ...]

The NoW benchmark of neutral face shapes (Sanyal et al. 2019), computed by ourselves: distances from scans to
predicted meshes. NOW is the benchmark's folder with the list of images, scans/ and scans_lmks_onlypp/;
FOLDER holds SUBJECT/CHALLENGE/IMAGE.obj (or .ply) with seven landmarks in IMAGE.npy (or .txt). With
--checkpoint RUN the predictions are made first, from NOW/iphone_pictures/SUBJECT/CHALLENGE/IMAGE.jpg, in
the form that the benchmark's own tools take. Writes OUT and, beside it, a line per image in
`..._samples.jsonl`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from facegpt.chat import question
from facegpt.commands.chat_picture import read_picture
from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.errors import ConfigError, HeadFileError
from facegpt.evaluation.evaluated_model import (
    face_counts,
    first_faces,
    open_evaluated_model,
    provenance,
    replies_to,
    samples_path,
    write_rows,
)
from facegpt.evaluation.now_distances import now_distances, statistics
from facegpt.evaluation.now_folder import (
    LANDMARKS,
    NowImage,
    NowPrediction,
    NowScan,
    read_images,
    read_prediction,
    read_scan,
    write_prediction,
)
from facegpt.files import write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.machine import package_versions

PROMPT = "Could you make me a 3D model of this face?"
PHOTO_SUFFIXES = (".jpg", ".JPG", ".png", ".jpeg")
UNITS = {"m": 1000.0, "cm": 10.0, "mm": 1.0}
STATISTICS = ("median", "mean", "std")
# These in mm, non-metrical, test images (FLAME's mean: validation), as published
PUBLISHED = {
    "FOCUS": (1.04, 1.30, 1.10),
    "DECA": (1.09, 1.38, 1.18),
    "Deep3D (PyTorch)": (1.11, 1.41, 1.21),
    "RingNet": (1.21, 1.53, 1.31),
    "3DDFA-V2": (1.23, 1.57, 1.39),
    "FLAME 2020's mean face": (1.3554, None, None),
}
DEFINITIONS = {
    "median, mean, std": "over the distances of all images together, in mm, from the points of the scans",
    "alignment": (
        "seven landmarks by least squares, then the squared distances by Gauss-Newton; rotation, shift and, "
        "unless metrical, scale"
    ),
    "interval": "95 %, 1,000 resamplings of the subjects",
    "mean_face": "the head's mean shape as the prediction for every image",
    "published": "as published for the benchmark's own images; not comparable with other images",
}


@dataclass
class NowSettings:
    """data: the folder of the benchmark. predictions: folder of the predicted meshes. images: the list of
    images, a file in data or a path. challenge: only this one, such as multiview_neutral (empty: all).
    metrical: leave the scale alone. unit: of the predictions, m, cm or mm, for metrical. checkpoint: a run
    whose predictions are written first (empty: they are there). photographs: folder of the images, for that
    (empty: iphone_pictures in data). head: "builtin" or the head file, of the run and of the mean face.
    backbone: where it lies, if it has moved. device: auto is the GPU where there is one. batch: conversations
    at once. max_new_tokens: the longest answer. out: file for the results. seed: of the resampling.
    """

    data: str = MISSING
    predictions: str = MISSING
    images: str = "imagepathsvalidation.txt"
    challenge: str | None = None
    metrical: bool = False
    unit: str = "m"
    checkpoint: str | None = None
    photographs: str | None = None
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    batch: int = 16
    max_new_tokens: int = 96
    out: str = "outputs/now.json"
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens")
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, it is {self.unit!r}")


def main(argv: list[str]) -> None:
    settings = parse_config(NowSettings, argv, __doc__)
    start = time.time()
    data, folder = Path(settings.data), Path(settings.predictions)
    images = read_images(data / settings.images)  # an absolute path stays as it is
    images = [image for image in images if settings.challenge in (None, "", image.challenge)]
    if not images:
        raise ConfigError(f"{settings.images} has no image of the challenge {settings.challenge}")
    head = HeadModel.open(settings.head)
    mean = neutral(head, head.mean_parameters())[0]
    about = predict(images, settings) if settings.checkpoint else {"versions": package_versions()}

    millimeters = UNITS[settings.unit] if settings.metrical else None
    scan_of = lru_cache(maxsize=1)(lambda subject: read_scan(data, subject))  # lists go subject by subject
    mean_of = lru_cache(maxsize=1)(
        lambda subject: now_distances(scan_of(subject), mean, UNITS["m"] if settings.metrical else None)
    )
    found: dict[NowImage, tuple[np.ndarray, np.ndarray]] = {}
    for image in tqdm(images, desc="scans", unit="image"):
        prediction = read_prediction(folder, image)
        if prediction is not None:
            scan: NowScan = scan_of(image.subject)
            found[image] = now_distances(scan, prediction, millimeters), mean_of(image.subject)
    if not found:
        raise ConfigError(f"{folder} has no prediction for any of the {len(images)} images")
    result: dict[str, Any] = {
        "n": len(found),
        "missing": [f"{i.subject}/{i.challenge}/{i.name}" for i in images if i not in found],
        "protocol": "metrical" if settings.metrical else "non-metrical",
        **table(found, settings.seed),
        "by_challenge": {
            challenge: table({i: d for i, d in found.items() if i.challenge == challenge}, settings.seed)
            for challenge in dict.fromkeys(image.challenge for image in found)
        },
        "published": {
            name: dict(zip(("median", "mean", "std"), row, strict=True)) for name, row in PUBLISHED.items()
        },
        "definitions": DEFINITIONS,
        "settings": dict(vars(settings)),
        **about,
        "seconds": round(time.time() - start, 1),
    }
    out = Path(settings.out)
    write_rows(samples_path(out), [row(image, distances) for image, (distances, _) in found.items()])
    write_json(out, result)
    for name in ("predictions", "mean_face"):
        print(f"{name}: " + ", ".join(f"{key} {result[name][key]:.3f}" for key in STATISTICS))
    print(f"wrote {out} ({len(found)} images, {len(result['missing'])} missing, {result['seconds']} s)")


def table(found: dict[NowImage, tuple[np.ndarray, np.ndarray]], seed: int) -> dict[str, Any]:
    """Statistics of the predictions and, for the same images, of the mean face."""
    subjects = [image.subject for image in found]
    columns = zip(*found.values(), strict=True)
    return {
        name: statistics(column, subjects, seed)
        for name, column in zip(("predictions", "mean_face"), columns, strict=True)
    }


def row(image: NowImage, distances: np.ndarray) -> dict[str, Any]:
    median, mean = float(np.median(distances)), float(distances.mean())
    return {**vars(image), "points": len(distances), "median": median, "mean": mean}


def neutral(head: HeadModel, faces: FaceParameters) -> list[NowPrediction]:
    """The shapes of N faces without expression and pose, in metres, with the benchmark's landmarks."""
    if not head.has_landmarks:
        raise HeadFileError("the head has no landmarks, which the benchmark needs; give another head")
    with torch.no_grad():
        shown = head(head.mean_parameters(len(faces)).replace(shape=faces.shape))
    points, triangles = shown.landmarks[:, list(LANDMARKS)].cpu(), head.triangles.cpu().numpy()
    pairs = zip(shown.vertices.cpu().numpy(), points.numpy(), strict=True)
    return [NowPrediction(vertices, triangles, landmarks) for vertices, landmarks in pairs]


def predict(images: Sequence[NowImage], settings: NowSettings) -> dict[str, Any]:
    """Write the predictions of a run; what it says of itself, and how many images got a face."""
    assert settings.checkpoint is not None
    evaluated = open_evaluated_model(settings.checkpoint, settings.head, settings.backbone, settings.device)
    folder = Path(settings.photographs or Path(settings.data) / "iphone_pictures")
    with_face = 0
    for start in tqdm(range(0, len(images), settings.batch), desc="predictions", unit="batch"):
        some = images[start : start + settings.batch]
        samples = [question(PROMPT, read_picture(photograph(folder, i))[0], i.name) for i in some]
        replies = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, "images")
        with_face += sum(count > 0 for count in face_counts(replies))
        for image, prediction in zip(
            some, neutral(evaluated.head, first_faces(replies, evaluated)), strict=True
        ):
            write_prediction(Path(settings.predictions), image, prediction)
    return {"with_face": with_face, **provenance(evaluated, settings)}


def photograph(folder: Path, image: NowImage) -> Path:
    """Where an image lies; ImageError by the reader where it does not."""
    paths = [image.path(folder, suffix) for suffix in PHOTO_SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])


if __name__ == "__main__":
    sys.exit(run(main))

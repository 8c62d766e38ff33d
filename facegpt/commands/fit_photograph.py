"""The faces of a photograph that `facegpt fit` is to fit: found by a network, or named by a landmark file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from facegpt.data.targets import to_tensor
from facegpt.errors import LandmarkError
from facegpt.files import printable
from facegpt.fitting.blendshapes import Expected, expected_expression
from facegpt.fitting.evidence import evidence
from facegpt.head.model import HeadModel
from facegpt.perception.align import crop_face
from facegpt.perception.face_landmarker import FaceLandmarker
from facegpt.perception.images import read_image
from facegpt.perception.landmark_files import read_landmarks
from facegpt.sample import FaceTarget


@dataclass
class PhotographedFace:
    """A crop to fit: its target, which landmarks count, and where it lies in the photograph.

    valid (68,) bool. matrix (3,3): photo pixels to crop pixels. source: what the landmarks came from, for
    errors. blendshapes (52,): what a network says of the expression, where one was asked.
    """

    image: Path
    source: str
    crop: Image.Image
    target: FaceTarget
    valid: Tensor
    matrix: Tensor
    number: int = 1
    blendshapes: Tensor | None = None
    origin: dict[str, Any] = field(default_factory=dict)  # of the landmarks, for parameters.json

    def expected(self, head: HeadModel) -> Expected | None:
        """The expression to start from, in the components of `head`."""
        if self.blendshapes is None:
            return None
        return expected_expression(self.blendshapes, head.expression_names, head.layout.expression)


def read_face(image: Path, landmarks: Path, size: int) -> PhotographedFace:
    """The face of a landmark file; raises ImageError or LandmarkError that name the file."""
    photo = read_image(image)
    points, valid = read_landmarks(landmarks)
    origin = {"file": str(landmarks), "used": int(valid.sum())}
    try:
        return _cut(image, printable(landmarks), photo, points, size, valid=valid, origin=origin)
    except LandmarkError as error:
        raise LandmarkError(f"{printable(landmarks)}: {error}") from None


def find_faces(image: Path, size: int, number: int | None) -> list[PhotographedFace]:
    """The `number`-th largest face of a photograph, or with None all of them, largest first.

    Says on stderr how many there are where one of several is taken, and which cannot be cut out.
    Raises ImageError for files that cannot be read, MissingPartError when the landmarker was not fetched,
    LandmarkError when there is no such face.
    """
    name, photo = printable(image), read_image(image)
    landmarker = FaceLandmarker.open()
    found = landmarker.find(photo)
    if not found:
        raise LandmarkError(
            f"{name}: no face was found in it; try a larger or clearer one, or give its --landmarks"
        )
    if number is not None and number > len(found):
        raise LandmarkError(f"{name}: there is no face {number}, {len(found)} found; 1 is the largest")
    if number is not None and len(found) > 1:
        print(
            f"{name} has {len(found)} faces: number {number} by size is fitted; --face N or all for others",
            file=sys.stderr,
        )
    faces, problems = [], []
    for k, face in enumerate(found, 1):
        if number not in (None, k):
            continue
        source = f"{name}, face {k}"
        origin = {"found_by": "face_landmarker", "used": 68, "face": k, "of": len(found), "score": face.score}
        with torch.inference_mode():
            shapes = landmarker.blendshapes(face.points[None])[0]
        try:
            faces.append(_cut(image, source, photo, face.landmarks, size, k, shapes.clone(), origin=origin))
        except LandmarkError as error:  # a face of a few pixels, or mostly outside the picture
            problems.append(f"{source}: {error}")
    if not faces:
        raise LandmarkError(problems[0])
    for problem in problems:
        print(problem, file=sys.stderr)
    return faces


def _cut(
    image: Path,
    source: str,
    photo: Image.Image,
    landmarks: Tensor,
    size: int,
    number: int = 1,
    blendshapes: Tensor | None = None,
    valid: Tensor | None = None,
    origin: dict[str, Any] | None = None,
) -> PhotographedFace:
    crop, points, matrix = crop_face(photo, landmarks, size)
    pixels = to_tensor(crop)
    target = FaceTarget(pixels, points, evidence(pixels, points))
    valid = torch.ones(68, dtype=torch.bool) if valid is None else valid
    return PhotographedFace(image, source, crop, target, valid, matrix, number, blendshapes, origin or {})

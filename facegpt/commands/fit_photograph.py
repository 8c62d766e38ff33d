"""The faces of a photograph that `facegpt fit` is to fit: found by a network, or named by a landmark file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
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

    source: what the landmarks came from, for errors. valid (68,) bool. matrix (3,3): photo pixels to crop
    pixels. origin: of the landmarks, for parameters.json. number: of the face in the photograph.
    blendshapes (52,): what a network says of the expression, where one was asked.
    """

    image: Path
    source: str
    crop: Image.Image
    target: FaceTarget
    valid: Tensor
    matrix: Tensor
    origin: dict[str, Any]
    number: int = 1
    blendshapes: Tensor | None = None

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
        face = _cut(image, printable(landmarks), photo, points, size, origin)
    except LandmarkError as error:
        raise LandmarkError(f"{printable(landmarks)}: {error}") from None
    face.valid = valid
    return face


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
        try:
            cut = _cut(image, source, photo, face.landmarks, size, origin)
        except LandmarkError as error:  # a face of a few pixels, or mostly outside the picture
            problems.append(f"{source}: {error}")
            continue
        with torch.no_grad():
            cut.number, cut.blendshapes = k, landmarker.blendshapes(face.points[None])[0]
        faces.append(cut)
    if not faces:
        raise LandmarkError(problems[0])
    for problem in problems:
        print(problem, file=sys.stderr)
    return faces


def _cut(
    image: Path, source: str, photo: Image.Image, landmarks: Tensor, size: int, origin: dict[str, Any]
) -> PhotographedFace:
    crop, points, matrix = crop_face(photo, landmarks, size)
    pixels = to_tensor(crop)
    target = FaceTarget(pixels, points, evidence(pixels, points))
    return PhotographedFace(image, source, crop, target, torch.ones(68, dtype=torch.bool), matrix, origin)

"""Pictures for a chat: any photograph, cut around its largest face as in training where one is found."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from facegpt.errors import LandmarkError, MissingPartError
from facegpt.files import printable
from facegpt.parts import part_path
from facegpt.perception.align import crop_face
from facegpt.perception.images import read_image
from facegpt.perception.landmark_files import read_landmarks

if TYPE_CHECKING:
    from facegpt.perception.face_landmarker import FaceLandmarker

LANDMARKER = "face_landmarker"  # the part that finds faces


def read_picture(path: Path, landmarks: Path | None = None) -> tuple[Image.Image, str]:
    """The picture as the model gets it, and a sentence on how that came about, if there is one to say.

    Cropped by `landmarks`, or else by those of its largest face; whole where no face is found, or where the
    part that finds faces is missing.
    Raises ImageError or LandmarkError for files that cannot be read or do not fit each other.
    """
    image = read_image(path)
    if landmarks is not None:
        points, _ = read_landmarks(landmarks)
        try:
            return crop_face(image, points)[0], ""
        except LandmarkError as error:
            raise LandmarkError(f"{landmarks} does not fit {path}: {error}") from None
    return cut_out(image, printable(path))


def cut_out(image: Image.Image, name: str) -> tuple[Image.Image, str]:
    """The largest face of an upright picture, or all of it, and a sentence on it, with `name`, or ""."""
    if problem := missing_landmarker():
        return image, f"{name} goes in as it is: {problem}"
    from facegpt.perception.photo import crop_largest_face  # of no use to a chat without a picture

    try:
        if found := crop_largest_face(image, _landmarker()):
            crop, _, faces = found
            several = f"{name} has {len(faces)} faces: the largest is taken"
            return crop, several if len(faces) > 1 else ""
    except LandmarkError:  # a face of a few pixels, or mostly outside the picture
        pass
    return image, f"{name} goes in whole: no face was found in it"


@cache
def missing_landmarker() -> str:
    """Why faces cannot be found here, with what to do about it; "" where they can."""
    try:
        part_path(LANDMARKER)
    except MissingPartError as error:
        return str(error)
    return ""


@cache
def _landmarker() -> FaceLandmarker:
    from facegpt.perception.face_landmarker import FaceLandmarker

    return FaceLandmarker.open(part_path(LANDMARKER))

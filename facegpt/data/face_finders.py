"""Where the faces of a photograph are: by a detector that looks at it, or by landmarks that lie beside it.

A detector is a function: RGB picture, upright -> list of `FoundFace`, in any order. A finder is also told the
photograph's name and place, for landmarks that are in files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from facegpt.errors import ConfigError, LandmarkError
from facegpt.perception.face_landmarker import FaceLandmarker
from facegpt.perception.landmark_files import LANDMARK_SUFFIXES, read_landmarks
from facegpt.perception.landmark_lists import read_list


@dataclass
class FoundFace:
    """landmarks (68,2) in pixels of the picture; valid (68,) bool: those that were found, None for all.

    confidence in [0,1]; 1 for landmarks that somebody gave. blendshapes (52,) in [0,1], in the order of
    `facegpt.perception.face_points.BLENDSHAPES`, None where nothing tells them.
    """

    landmarks: Tensor
    valid: Tensor | None = None
    confidence: float = 1.0
    blendshapes: Tensor | None = None


Detector = Callable[[Image.Image], Sequence[FoundFace]]
Finder = Callable[[Image.Image, str, Path | None], Sequence[FoundFace]]


def open_finder(name: str, every: bool = True) -> Finder:
    """The finder of a name: "mediapipe" (fetched), "files" for NAME.npy, NAME.pts or NAME.mat beside each
    photograph, or a list of landmarks for all of them (CelebA's .txt, imglab's .xml).

    every: all faces are wanted, not just the largest. Raises ConfigError for another name, and
    MissingPartError or LandmarkError when what it stands for cannot be had.
    """
    if name == "mediapipe":
        return _look(mediapipe(every))
    if name == "files":
        return beside
    if Path(name).suffix in (".txt", ".xml"):
        faces_of = read_list(name)
        return lambda image, photograph, path: [FoundFace(*face) for face in faces_of(photograph)]
    raise ConfigError(
        f"detector={name} is none; give mediapipe, files, or a list of landmarks (CelebA's .txt, "
        "imglab's .xml)"
    )


def mediapipe(every: bool) -> Detector:
    """MediaPipe's landmarker and blendshapes; raises MissingPartError until they were fetched."""
    landmarker = FaceLandmarker.open()

    def detect(image: Image.Image) -> list[FoundFace]:
        # Beside a face that the whole picture shows, parts of it only show smaller ones.
        faces = (not every and landmarker.find(image, tiles=False)) or landmarker.find(image)
        if not faces:
            return []
        with torch.inference_mode():
            shapes = landmarker.blendshapes(torch.stack([face.points for face in faces]))
        return [
            FoundFace(face.landmarks, None, face.score, blendshapes)
            for face, blendshapes in zip(faces, shapes, strict=True)
        ]

    return detect


def beside(image: Image.Image, name: str, path: Path | None) -> list[FoundFace]:
    """The one face whose landmark file lies beside a photograph. Raises LandmarkError when there is none."""
    files = [] if path is None else [path.with_suffix(suffix) for suffix in LANDMARK_SUFFIXES]
    for file in files:
        if file.is_file():
            return [FoundFace(*read_landmarks(file))]
    where = "is in no folder" if path is None else f"has none of {', '.join(LANDMARK_SUFFIXES)} beside it"
    raise LandmarkError(f"{name} {where}; write its 68 landmarks there, or take another detector")


def _look(detector: Detector) -> Finder:
    return lambda image, name, path: detector(image)

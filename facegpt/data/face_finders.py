"""Where the faces of a photograph are: by a detector that looks at it, or by landmarks that lie beside it.

A finder is a detector (`facegpt.perception.detectors`) that is also told the photograph's name and place, for
landmarks that are in files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from facegpt.errors import ConfigError, LandmarkError
from facegpt.perception.detectors import (
    Detector,
    FoundFace,
    face_alignment_detector,
    insightface_detector,
    mediapipe_detector,
)
from facegpt.perception.landmark_files import LANDMARK_SUFFIXES, read_landmarks
from facegpt.perception.landmark_lists import read_list

Finder = Callable[[Image.Image, str, Path | None], Sequence[FoundFace]]


def open_finder(name: str, every: bool = True) -> Finder:
    """The finder of a name: "mediapipe" (fetched), "face-alignment" or "insightface" (where installed),
    "files" for NAME.npy, NAME.pts or NAME.mat beside each photograph, or a list of landmarks for all of them
    (CelebA's .txt, imglab's .xml).

    every: all faces are wanted, not just the largest. Raises ConfigError for another name, and
    MissingPartError or LandmarkError when what it stands for cannot be had.
    """
    if name == "mediapipe":
        return _look(mediapipe_detector(every))
    if name == "face-alignment":
        return _look(face_alignment_detector())
    if name == "insightface":
        return _look(insightface_detector())
    if name == "files":
        return beside
    if Path(name).suffix in (".txt", ".xml"):
        faces_of = read_list(name)
        return lambda image, photograph, path: [FoundFace(*face) for face in faces_of(photograph)]
    raise ConfigError(
        f"detector={name} is none; give mediapipe, face-alignment, insightface, files, or a list of "
        "landmarks (CelebA's .txt, imglab's .xml)"
    )


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

"""Real photographs with annotated faces: found on disk, cut out, and mapped back from the crop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from facegpt.data.records import PHOTO_SUFFIXES, path_within
from facegpt.errors import LandmarkError, SampleError
from facegpt.perception.align import apply_matrix, crop_face
from facegpt.perception.images import read_image
from facegpt.perception.imglab import read_imglab
from facegpt.perception.landmark_files import LANDMARK_SUFFIXES, read_landmarks

LEAST_OVERLAP = 0.4  # intersection over union of the boxes of 68 points, above which it is the same face


@dataclass
class AnnotatedFace:
    """A face of a photograph: landmarks (68,2) in its pixels, and which of them were given, (68,) bool."""

    id: str
    photograph: Path
    landmarks: Tensor
    valid: Tensor


@dataclass
class FaceCrop:
    """A square picture of a face, and the (3,3) matrix that takes pixels of the photograph to its pixels."""

    image: Image.Image
    matrix: Tensor

    def to_photograph(self, points: Tensor) -> Tensor:
        """Points (N,2) in pixels of the crop, in pixels of the photograph."""
        return apply_matrix(torch.linalg.inv(self.matrix)[None], points[None].double())[0]


@dataclass
class CutFace:
    """An annotated face and its crops: by the annotated landmarks, and by what was found in the photograph.

    found: None where nothing was looked for or the face was not found. found_landmarks (68,2): in pixels of
    the photograph, None likewise.
    """

    face: AnnotatedFace
    annotated: FaceCrop
    found: FaceCrop | None = None
    found_landmarks: Tensor | None = None


class FoundFace(Protocol):
    """What is used of a face that a finder finds: landmarks (68,2) in pixels of the photograph."""

    @property
    def landmarks(self) -> Tensor: ...


class Finder(Protocol):
    """What finds faces in a photograph, such as `facegpt.perception.face_landmarker.FaceLandmarker`."""

    def find(self, image: Image.Image) -> Sequence[FoundFace]: ...


def annotated_faces(path: str | Path) -> list[AnnotatedFace]:
    """The annotated faces of a folder, or of one XML file of dlib's imglab.

    In a folder (and its sub-folders) those photographs count that have NAME.pts or NAME.npy beside them, and
    all boxes with 68 parts of the imglab files that lie in it; other photographs are left out. Raises
    SampleError when there is nothing, LandmarkError for a broken annotation.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(path.rglob("*.xml"))
    faces = [face for file in files for face in _imglab_faces(file)]
    if path.is_dir():
        photos = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in PHOTO_SUFFIXES]
        for photo in photos:
            beside = [photo.with_suffix(suffix) for suffix in LANDMARK_SUFFIXES]
            for file in [file for file in beside if file.is_file()][:1]:
                name = photo.relative_to(path).with_suffix("").as_posix()
                faces.append(AnnotatedFace(name, photo, *read_landmarks(file)))
    if not faces:
        raise SampleError(
            f"{path} has no annotated faces; give a folder of photographs with 68 landmarks in NAME.pts or "
            "NAME.npy beside them, or an imglab XML file"
        )
    return faces


def _imglab_faces(file: Path) -> list[AnnotatedFace]:
    faces, counts = [], dict[str, int]()
    for found in read_imglab(file):
        photo = path_within(file.parent, found.image, str(file))
        number = counts[found.image] = counts.get(found.image, 0) + 1
        every = torch.ones(68, dtype=torch.bool)
        faces.append(AnnotatedFace(f"{found.image}#{number}", photo, found.landmarks, every))
    return faces


def cut_faces(faces: Sequence[AnnotatedFace], finder: Finder | None, size: int) -> list[CutFace]:
    """Crops of side `size` for every face; a photograph is read, and searched by `finder`, once.

    Raises ImageError or LandmarkError, naming the photograph, when it cannot be read or its landmarks do not
    fit.
    """
    cut = []
    for photograph, group in groupby(faces, key=lambda face: face.photograph):
        image = read_image(photograph)
        seen = [] if finder is None else [found.landmarks for found in finder.find(image)]
        for face in group:
            try:
                crop = _crop(image, face.landmarks, size)
            except LandmarkError as error:
                raise LandmarkError(f"{face.id} does not fit {photograph}: {error}") from None
            same = same_face(face.landmarks, seen)
            cut.append(CutFace(face, crop, None if same is None else _crop(image, same, size), same))
    return cut


def same_face(landmarks: Tensor, others: Sequence[Tensor]) -> Tensor | None:
    """Of several landmarks (68,2) those whose box overlaps most with that of `landmarks`, None below 0.4.

    Overlap is the intersection of both boxes over their union.
    """
    overlaps = [_overlap(landmarks, other) for other in others]
    best = max(range(len(others)), key=lambda k: overlaps[k], default=-1)
    return others[best] if best >= 0 and overlaps[best] >= LEAST_OVERLAP else None


def _overlap(a: Tensor, b: Tensor) -> float:
    boxes = torch.stack([torch.cat([points.amin(0), points.amax(0)]) for points in (a.double(), b.double())])
    size = (boxes[:, 2:].amin(0) - boxes[:, :2].amax(0)).clamp(min=0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return float(size.prod() / (areas.sum() - size.prod()).clamp(min=1e-12))


def _crop(image: Image.Image, landmarks: Tensor, size: int) -> FaceCrop:
    crop, _, matrix = crop_face(image, landmarks, size)
    return FaceCrop(crop, matrix)

"""Landmarks of many photographs in one file: CelebA's list of five points, or dlib's imglab XML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facegpt.errors import LandmarkError
from facegpt.files import file_size, printable
from facegpt.perception.head_pose import place_mean_head
from facegpt.perception.imglab import read_imglab

LARGEST_FILE = 64 << 20  # bytes; CelebA's 202,599 rows take 10 MB
GIVEN = (30, 48, 54)  # of the 68 landmarks, those that are among the five points

Landmarks = tuple[Tensor, Tensor]  # (68,2) in pixels and which of them were given, (68,) bool


def read_list(path: str | Path) -> Callable[[str], list[Landmarks]]:
    """The faces of photographs by their names in a list: an imglab `.xml`, or CelebA's `.txt`.

    A photograph that the list does not name has no face. Raises LandmarkError, naming the file, when it
    cannot be read.
    """
    path = Path(path)
    if path.suffix == ".xml":
        every = torch.ones(68, dtype=torch.bool)
        found: dict[str, list[Landmarks]] = {}
        for face in read_imglab(path):
            found.setdefault(face.image, []).append((face.landmarks, every))
        return lambda name: found.get(name, [])
    points = read_celeba(path)
    return lambda name: [landmarks_of_five(points[name], f"{name} in {path}")] if name in points else []


def read_celeba(path: str | Path) -> dict[str, np.ndarray]:
    """Name -> five points (5,2): eyes, nose tip, mouth corners, left in the image first.

    The file is CelebA's `list_landmarks_celeba.txt` or the one of the aligned photographs: a count, the names
    of the columns, then a name and ten whole numbers a line. They name pixels, so 0.5 is added to come to
    their centres. Raises LandmarkError, naming file and line, when it is of another form.
    """
    size = file_size(path)
    if size is None or size > LARGEST_FILE:
        fault = "no such landmark list" if size is None else f"{size} bytes, {LARGEST_FILE} is the limit"
        raise LandmarkError(f"{printable(path)}: {fault}; give CelebA's list of landmarks")
    names, rows = [], []
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            words = line.split()
            if number <= 2 or not words:  # the count and the names of the columns
                continue
            try:
                row = np.array([float(word) for word in words[1:]], dtype=np.float32)
            except ValueError:
                row = np.zeros(0, dtype=np.float32)
            if len(row) != 10 or not np.isfinite(row).all():
                raise LandmarkError(f"{path}:{number}: a name and ten numbers are needed; correct the line")
            names.append(words[0])
            rows.append(row)
    points = np.array(rows, dtype=np.float32).reshape(-1, 5, 2) + 0.5
    return dict(zip(names, points, strict=True))


def landmarks_of_five(points: np.ndarray, name: str) -> Landmarks:
    """68 landmarks of the mean head in the pose of five points (5,2), of which only `GIVEN` are valid.

    The eyes are means of their corners, which are no landmarks; the others serve to find the crop of a face.
    Raises LandmarkError, naming `name`, for points on a line.
    """
    rows = np.zeros((5, 68))
    rows[0, [36, 39]] = rows[1, [42, 45]] = 0.5
    rows[[2, 3, 4], GIVEN] = 1
    landmarks = place_mean_head(points.astype(np.float64), rows, name)
    landmarks[list(GIVEN)] = points[2:]
    valid = torch.zeros(68, dtype=torch.bool)
    valid[list(GIVEN)] = True
    return torch.from_numpy(landmarks).float(), valid

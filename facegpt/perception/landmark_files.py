"""Read the landmark files that lie beside photographs, and complete those without a face contour."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facegpt.errors import LandmarkError
from facegpt.files import file_size, printable
from facegpt.head.builtin.anatomy import landmark_table

LARGEST_FILE = 1 << 20  # bytes; 68 landmarks take less than 10,000 in any format
MEDIAPIPE_COUNTS = (468, 478)  # of MediaPipe's face mesh without and with irises


def read_landmarks(path: str | Path) -> tuple[Tensor, Tensor]:
    """68 landmarks (68,2) float32 in pixels with centres at half integers, x right, y down; valid (68,) bool.

    `.pts` (iBUG / 300-W text: version, n_points, coordinates in braces) counts pixel centres from 1, so 0.5
    is subtracted. `.npy` (68,2) is taken as it is: our own convention. Files of the 51 inner points without
    the contour (iBUG 17-67) are read too: `complete_landmarks` adds the contour, which is not valid then.
    Raises LandmarkError, naming the file, when it is missing, no regular file, broken, or larger than
    `LARGEST_FILE`, or has another count or a number that is not finite.
    """
    path = Path(path)
    size = file_size(path)
    if size is None:
        raise LandmarkError(
            f"{printable(path)}: no such landmark file; write 68 points there as .pts or .npy"
        )
    if path.suffix not in (".pts", ".npy"):
        mediapipe = "; MediaPipe's points are others than iBUG's" if path.suffix == ".npz" else ""
        raise LandmarkError(f"{path}: unknown landmark format {path.suffix!r}, use .pts or .npy{mediapipe}")
    if size > LARGEST_FILE:
        raise LandmarkError(f"{path}: {size} bytes are too many for 68 landmarks; is it another file?")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LandmarkError(f"{path}: cannot be read ({error.strerror})") from None
    points = _parse_pts(content, path) - 0.5 if path.suffix == ".pts" else _parse_npy(content, path)
    return complete_landmarks(points, str(path))


def complete_landmarks(points: np.ndarray, name: str) -> tuple[Tensor, Tensor]:
    """68 landmarks (68,2) float32 and which were given, valid (68,) bool, out of 68 or of the 51 inner ones.

    points (68,2) or (51,2), in pixels. The missing contour lies where the mean head has it under the scaled
    orthographic pose that the inner points fit best (POS, DeMenthon and Davis 1995). It serves to find the
    crop of a face and its outline; nothing may be compared with it.
    Raises LandmarkError, naming `name`, for another shape, numbers that are not finite in float32, or 51
    points on a line.
    """
    if points.shape not in ((68, 2), (51, 2)):
        mediapipe = points.ndim == 2 and len(points) in MEDIAPIPE_COUNTS
        others = "; MediaPipe's points are others than iBUG's" if mediapipe else ""
        raise LandmarkError(
            f"{name}: holds an array {points.shape}, 68 landmarks (68, 2) or the 51 without contour are "
            f"needed{others}"
        )
    with np.errstate(over="ignore"):
        points = points.astype(np.float32)
    if not np.isfinite(points).all():
        raise LandmarkError(f"{name}: a landmark is not finite; detect them again or drop the photograph")
    if len(points) == 51:
        points = np.concatenate([_contour(points.astype(np.float64), name), points])
        return torch.from_numpy(points.astype(np.float32)), torch.arange(68) >= 17
    return torch.from_numpy(points), torch.ones(68, dtype=torch.bool)


def _contour(inner: np.ndarray, name: str) -> np.ndarray:
    """The 17 contour points (17,2) that belong to 51 inner ones (51,2)."""
    mean = landmark_table() * (1, -1, 1)  # (68, 3), y down as in images
    center = mean[17:].mean(axis=0)
    affine = np.linalg.lstsq(mean[17:] - center, inner - inner.mean(axis=0), rcond=None)[0].T  # (2, 3)
    u, singular, v = np.linalg.svd(affine, full_matrices=False)
    if not singular[1] > 1e-3 * singular[0]:
        raise LandmarkError(f"{name}: the landmarks lie on a line or in one point; detect them again")
    # The nearest two orthogonal rows of equal length: a rotation and a scale.
    contour: np.ndarray = (mean[:17] - center) @ (singular.mean() * (u @ v)).T + inner.mean(axis=0)
    return contour


def _parse_pts(content: bytes, path: Path) -> np.ndarray:
    try:
        header, body = content.decode("utf-8").split("{", 1)
        rows = [
            [float(number) for number in line.split()]
            for line in body.split("}", 1)[0].splitlines()
            if line.strip()
        ]
        points = np.array(rows, dtype=np.float64)  # a ragged list raises ValueError
        fields = dict(line.split(":", 1) for line in header.splitlines() if ":" in line)
        declared = int(fields.get("n_points", len(rows)))
    except ValueError as error:  # UnicodeDecodeError is one
        raise LandmarkError(
            f"{path}: not a .pts file (version, n_points, then 'x y' lines in braces): {error}"
        ) from error
    if declared != len(points):
        raise LandmarkError(f"{path}: announces {declared} points and holds {len(points)}; write it again")
    return points


def _parse_npy(content: bytes, path: Path) -> np.ndarray:
    """The array, once its header promises no more than the file holds: numpy would allocate first."""
    file = BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        if dtype.kind not in "fiu":
            raise ValueError(f"it holds {dtype}")
        if int(np.prod(shape, dtype=object)) * dtype.itemsize > len(content):
            raise ValueError(f"an array {shape} is announced in {len(content)} bytes")
        file.seek(0)
        return np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
    except Exception as error:  # numpy parses the header as a Python literal, which fails in many ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LandmarkError(f"{path}: not a readable .npy array of numbers: {reason}") from error

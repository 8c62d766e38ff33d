"""Read the landmark files that lie beside photographs, and complete those without a face contour."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from facegpt.errors import LandmarkError
from facegpt.files import file_size, printable
from facegpt.perception.head_pose import INNER, place_mean_head

LARGEST_FILE = 1 << 20  # bytes; 68 landmarks take less than 10,000 in any format
LANDMARK_SUFFIXES = (".npy", ".pts", ".mat")
LARGEST_UNPACKED = 16 << 20  # bytes of a .mat; its own arrays take 20,000
MEDIAPIPE_COUNTS = (468, 478)  # of MediaPipe's face mesh without and with irises


def read_landmarks(path: str | Path) -> tuple[Tensor, Tensor]:
    """68 landmarks (68,2) float32 in pixels with centres at half integers, x right, y down; valid (68,) bool.

    `.pts` (iBUG / 300-W text: version, n_points, coordinates in braces) counts pixel centres from 1, so 0.5
    is subtracted. `.npy` (68,2) is taken as it is: our own convention. `.mat` is AFLW2000-3D's (Zhu et al.
    2016): x and y of its `pt3d_68` (3,68), which MATLAB counts from 1. Files of the 51 inner points without
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
    if path.suffix not in LANDMARK_SUFFIXES:
        mediapipe = "; MediaPipe's points are others than iBUG's" if path.suffix == ".npz" else ""
        raise LandmarkError(
            f"{path}: unknown landmark format {path.suffix!r}, use .pts, .npy or .mat{mediapipe}"
        )
    if size > LARGEST_FILE:
        raise LandmarkError(f"{path}: {size} bytes are too many for 68 landmarks; is it another file?")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LandmarkError(f"{path}: cannot be read ({error.strerror})") from None
    parse, first = {".npy": (_parse_npy, 0.0), ".pts": (_parse_pts, 0.5), ".mat": (_parse_mat, 0.5)}[
        path.suffix
    ]
    points = parse(content, path) - first
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
        contour = place_mean_head(points.astype(np.float64), np.eye(68)[INNER], name)[: INNER.start]
        points = np.concatenate([contour, points])
        return torch.from_numpy(points.astype(np.float32)), torch.arange(68) >= 17
    return torch.from_numpy(points), torch.ones(68, dtype=torch.bool)


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


def _parse_mat(content: bytes, path: Path) -> np.ndarray:
    """x and y of `pt3d_68`, after a look at what the file unpacks to: scipy would allocate first."""
    try:
        _check_mat(content)
        points = loadmat(BytesIO(content), variable_names=["pt3d_68"])["pt3d_68"]
        if points.dtype.kind not in "fiu" or points.ndim != 2 or len(points) not in (2, 3):
            raise ValueError(f"pt3d_68 is an array {points.shape} of {points.dtype}, (3, 68) is needed")
        return np.asarray(points[:2].T, dtype=np.float64)
    except Exception as error:  # scipy raises whatever its first surprise is
        reason = "no pt3d_68 in it" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise LandmarkError(f"{path}: not a readable .mat file of AFLW2000-3D: {reason}") from error


def _check_mat(content: bytes) -> None:
    """ValueError unless a MATLAB 5 file is whole and unpacks to at most `LARGEST_UNPACKED` bytes."""
    if len(content) < 128 or content[124:128] != b"\x00\x01IM":
        raise ValueError("it is no little-endian MATLAB 5 file")
    start, left = 128, LARGEST_UNPACKED
    while start + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, start)
        start += 8 + size
        if start > len(content):
            raise ValueError("it is cut off")
        if kind == 15:  # miCOMPRESSED
            left -= len(zlib.decompressobj().decompress(content[start - size : start], max(left, 1)))
            if left <= 0:
                raise ValueError(f"it unpacks to more than {LARGEST_UNPACKED} bytes")

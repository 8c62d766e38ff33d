"""Read the landmark files that lie beside photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facegpt.errors import LandmarkError


def read_landmarks(path: str | Path) -> Tensor:
    """68 landmarks (68,2) float32 in pixels with centres at half integers, x right, y down.

    `.pts` (iBUG / 300-W text: version, n_points, coordinates in braces) counts pixel centres from 1, so 0.5
    is subtracted. `.npy` (68,2) is taken as it is: our own convention.
    Raises LandmarkError, naming the file, when it is missing or broken, or has another count or a number
    that is not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise LandmarkError(f"{path}: no such landmark file; write 68 points there as .pts or .npy")
    if path.suffix == ".pts":
        points = _read_pts(path) - 0.5
    elif path.suffix == ".npy":
        points = _read_npy(path)
    else:
        raise LandmarkError(f"{path}: unknown landmark format {path.suffix!r}, use .pts or .npy")
    if points.shape != (68, 2):
        raise LandmarkError(f"{path}: holds an array {points.shape}, 68 landmarks (68, 2) are needed")
    if not np.isfinite(points).all():
        raise LandmarkError(f"{path}: a landmark is not finite; detect them again or drop the photograph")
    return torch.from_numpy(points.astype(np.float32))


def _read_pts(path: Path) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
        header, body = text.split("{", 1)
        rows = [
            [float(number) for number in line.split()]
            for line in body.split("}", 1)[0].splitlines()
            if line.strip()
        ]
        points = np.array(rows, dtype=np.float64)  # a ragged list raises ValueError
        fields = dict(line.split(":", 1) for line in header.splitlines() if ":" in line)
        declared = int(fields.get("n_points", len(rows)))
    except (ValueError, OSError) as error:  # UnicodeDecodeError is a ValueError
        raise LandmarkError(
            f"{path}: not a .pts file (version, n_points, then 'x y' lines in braces): {error}"
        ) from error
    if declared != len(points):
        raise LandmarkError(f"{path}: announces {declared} points and holds {len(points)}; write it again")
    return points


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise LandmarkError(f"{path}: not a readable .npy array of numbers: {error}") from error

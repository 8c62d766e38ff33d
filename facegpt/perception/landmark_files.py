"""Read photographs and the landmark files beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from facegpt.errors import ImageError, LandmarkError

LARGEST_IMAGE = 80_000_000  # pixels; below Pillow's own bomb limit, above any camera we know of at 224


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


def read_image(path: str | Path) -> Image.Image:
    """A photograph as RGB, turned upright by its EXIF orientation and fully decoded.

    Raises ImageError, naming the file, when it is missing, truncated, not an image, or larger than
    `LARGEST_IMAGE` pixels (refused before decoding).
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise ImageError(f"{path}: {image.width} x {image.height} pixels are too many; shrink it")
            return ImageOps.exif_transpose(image).convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for broken bytes; all mean the same here
        raise ImageError(f"{path}: cannot be decoded ({error}); export it again or drop it") from error

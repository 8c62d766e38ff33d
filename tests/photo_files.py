"""Photographs with landmark files, as people have them in folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from data_files import face_image
from PIL import Image

from facegpt.head.builtin.anatomy import landmark_table


def frontal_landmarks(size: float = 90, x: float = 120, y: float = 110) -> torch.Tensor:
    """The mean head's 68 landmarks (68,2) seen from the front, `size` pixels wide and high on average."""
    points = landmark_table()[:, :2] * (1, -1)
    points = points * size / np.ptp(points, axis=0).mean()
    middle = (points.max(axis=0) + points.min(axis=0)) / 2
    return torch.from_numpy(points - middle + (x, y)).float()


def photo(number: int, size: tuple[int, int] = (240, 200)) -> Image.Image:
    """A smooth random picture of its own."""
    return face_image(max(size), number).resize(size, Image.Resampling.BICUBIC)


def write_photo(path: Path, number: int, **saving: int) -> Path:
    """A photograph of a face, NAME.npy beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(number).save(path, **saving)
    np.save(path.with_suffix(".npy"), frontal_landmarks().numpy())
    return path

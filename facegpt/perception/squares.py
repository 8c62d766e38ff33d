"""Turned squares of a picture: what a network gets to see, and its points back in the picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Square:
    """A square in pixels of a picture, centres at half integers: its center, side, and turn in radians.

    A positive angle turns the square's own x axis toward y, which points down: clockwise to the eye.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points (...,2) in fractions of the square, (0,0) its first corner, as pixels of the picture."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turn = np.array([[cos, sin], [-sin, cos]])
        moved: np.ndarray = (points - 0.5) * self.side @ turn + (self.x, self.y)
        return moved


def cut_square(image: Image.Image, square: Square, size: int) -> Tensor:
    """The square at another size, (3,size,size) in [0,1]; what lies outside the RGB picture is black.

    Large squares are averaged over blocks of pixels before the bilinear sampling, so that they do not alias.
    """
    corners = square.to_picture(np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]))
    block = max(int(square.side / size), 1)
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 2 * block, 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2 * block, image.size)
    if (high <= low).any():
        return torch.zeros(3, size, size)
    part = image.reduce(block, (low[0], low[1], high[0], high[1]))
    # What the first corner and steps along the square's axes are in pixels of `part`.
    origin, right, down = (corners[0] - low) / block, corners[1] - corners[0], corners[2] - corners[0]
    right, down = right / (size * block), down / (size * block)
    affine = (right[0], down[0], origin[0], right[1], down[1], origin[1])
    view = part.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(view)).permute(2, 0, 1).float() / 255

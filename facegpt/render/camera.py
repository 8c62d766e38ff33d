"""DECA's scaled orthographic camera: metres of the world to pixels of an image."""

from __future__ import annotations

import torch
from torch import Tensor


def project(points: Tensor, camera: Tensor, height: int, width: int) -> Tensor:
    """Project world points into an image.

    points (B,N,3): metres, x to the subject's left, y up, z towards the viewer.
    camera (B,3): scale s (image half-widths per metre), tx, ty (metres).
    Returns (B,N,3): x right and y down in pixels (the first pixel's centre is at 0.5, 0.5), and depth,
    smaller is nearer, in the camera's unit (half-widths).

    DECA (Feng et al. 2021, section 3, camera model): X' = s(x+tx), Y' = s(y+ty), Z' = s z in [-1,1]; pixel =
    (X'+1) W/2, (1-Y') H/2, depth = -Z'. In an image that is not square both axes use the shorter side, around
    the image's centre, so that circles stay circles.
    """
    half = min(height, width) / 2
    x, y, z = points.permute(2, 0, 1).contiguous()  # apart, because rows of three are slow on a CPU
    scale, right, up = camera.t()[:, :, None]
    column = width / 2 + half * (scale * (x + right))
    row = height / 2 - half * (scale * (y + up))
    return torch.stack([column, row, -scale * z]).permute(1, 2, 0)

"""Similarity transforms from landmarks: alignment for the recogniser and the crop around a face.

All coordinates are pixels with centres at half integers, x right, y down. A similarity is a 3x3 matrix that
maps homogeneous source pixels to destination pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from facegpt.errors import ConfigError, LandmarkError

ALIGNED_SIZE = 112
# ArcFace's template, which SFace shares (left eye in the image, right eye, nose tip, mouth corners). It is
# published in OpenCV coordinates, where the first pixel's centre is (0, 0); ours is (0.5, 0.5), hence the
# shift in `align_face`.
_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
CROP_SCALE = 1.25 * 1.1  # DECA's test crop: landmark box x 1.1 x 1.25
LARGEST_CROP = 8192  # photo pixels a side: cutting it takes up to 1 GB
SMALLEST_SIZE = 16  # of a crop; a smaller one reads far beyond its square to average
MOST_SIDES = 4  # of the photo in a crop; landmarks that span more are broken


def five_points(landmarks: Tensor) -> Tensor:
    """Eyes, nose tip and mouth corners (B,5,2) from 68 landmarks (B,68,2), as Deep3D and FOCUS take them.

    An eye is the mean of its two corners (36, 39 and 42, 45), which unlike the mean of its six points does
    not move when it closes; 30 is the nose tip, 48 and 54 the mouth corners.
    """
    eyes = torch.stack([landmarks[:, [36, 39]].mean(dim=1), landmarks[:, [42, 45]].mean(dim=1)], dim=1)
    return torch.cat([eyes, landmarks[:, [30, 48, 54]]], dim=1)


def fit_similarity(source: Tensor, target: Tensor) -> Tensor:
    """Least-squares scale, rotation and translation (no reflection) that take source points to target points.

    source, target (B,N,2). Returns (B,3,3). In the plane Umeyama's solution (1991) has a closed form over
    complex numbers: the factor a = sum conj(s) t / sum |s|^2 of centred points. Coinciding source points give
    scale 0 rather than an error.
    """
    source_mean, target_mean = source.mean(dim=1), target.mean(dim=1)
    s, t = source - source_mean[:, None], target - target_mean[:, None]
    variance = s.square().sum(dim=(1, 2)).clamp(min=torch.finfo(s.dtype).tiny)
    a = (s * t).sum(dim=(1, 2)) / variance  # scale * cos
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(dim=1) / variance  # scale * sin
    linear = torch.stack([torch.stack([a, -b], dim=1), torch.stack([b, a], dim=1)], dim=1)  # (B, 2, 2)
    shift = target_mean - (linear @ source_mean[..., None])[..., 0]
    matrix = torch.zeros(len(source), 3, 3, dtype=source.dtype, device=source.device)
    matrix[:, :2, :2], matrix[:, :2, 2], matrix[:, 2, 2] = linear, shift, 1.0
    return matrix


def apply_matrix(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (B,N,2) through affine matrices (B,3,3)."""
    return points @ matrix[:, :2, :2].transpose(1, 2) + matrix[:, None, :2, 2]


def warp(image: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Resample images (B,C,H,W) into (B,C,size,size) by the similarities `matrix` (B,3,3), source to target.

    Bilinear, black outside the source. Differentiable in the image; the matrix is taken as a constant.
    """
    matrix = matrix.detach().to(image.dtype)
    height, width = image.shape[-2:]
    a, b = matrix[:, 0, 0], matrix[:, 1, 0]
    norm = (a * a + b * b).clamp(min=1e-12)  # scale^2; a collapsed face samples one far point, not NaN
    inverse = (
        torch.stack([torch.stack([a, b], dim=1), torch.stack([-b, a], dim=1)], dim=1) / norm[:, None, None]
    )
    centers = torch.arange(size, device=image.device, dtype=image.dtype) + 0.5
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    target = torch.stack([x, y], dim=-1).reshape(1, -1, 2)
    source = (target - matrix[:, None, :2, 2]) @ inverse.transpose(1, 2)  # (B, size * size, 2)
    grid = source * source.new_tensor((2 / width, 2 / height)) - 1
    # Far outside is black all the same, and safe as an index.
    grid = grid.clamp(-4, 4).reshape(-1, size, size, 2)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def align_face(image: Tensor, landmarks: Tensor) -> Tensor:
    """Warp faces (B,3,H,W) to ArcFace's 112 x 112 template by their 68 landmarks (B,68,2) in pixels.

    Differentiable in the image; no gradient reaches the landmarks.
    """
    # Under autocast the small matrix products would run in bfloat16: 3 digits are too few for pixels.
    with torch.autocast(image.device.type, enabled=False):
        points = five_points(landmarks.detach())
        template = (points.new_tensor(_TEMPLATE) + 0.5).expand(len(points), 5, 2)
        return warp(image, fit_similarity(points, template), ALIGNED_SIZE)


def check_crop(
    photo_size: tuple[int, int], landmarks: Tensor, scale: float = CROP_SCALE
) -> tuple[float, float, int]:
    """The square that `crop_face` would cut, computed from the photo's (width, height) alone.

    landmarks (68,2): pixels of the photo. Returns the square's center x, y and its side in photo pixels.
    Raises LandmarkError for landmarks that are not finite, that do not lie on the photo, or that ask for a
    crop of no pixel, of more than `MOST_SIDES` photo sides or of more than `LARGEST_CROP` pixels a side.
    """
    if tuple(landmarks.shape) != (68, 2):
        raise LandmarkError(f"a crop needs 68 landmarks (68, 2), got {tuple(landmarks.shape)}")
    if not bool(torch.isfinite(landmarks).all()):
        raise LandmarkError("a crop needs finite landmarks: detect them again")
    width, height = photo_size
    points = landmarks.to(torch.float64)
    low, high = points.amin(dim=0), points.amax(dim=0)
    side = int(float((high - low).mean()) * scale)
    cx, cy = ((low + high) / 2).tolist()
    photo = f"the photo of {width} x {height}: check them"
    if side < 1 or side > MOST_SIDES * max(width, height):
        raise LandmarkError(f"the landmarks ask for a crop of {side:.6g} pixels from {photo}")
    if side > LARGEST_CROP:
        raise LandmarkError(
            f"the landmarks ask for a crop of {side} pixels, {LARGEST_CROP} is the limit: "
            "check them or shrink the photo"
        )
    if not (0 <= cx <= width and 0 <= cy <= height):
        raise LandmarkError(f"the landmarks' center ({cx:.6g}, {cy:.6g}) is outside {photo}")
    return cx, cy, side


def crop_face(
    image: Image.Image, landmarks: Tensor, size: int = 224, scale: float = CROP_SCALE
) -> tuple[Image.Image, Tensor, Tensor]:
    """Cut a square around a face, as DECA does at test time.

    landmarks (68,2): pixels of `image`. The square is centered on the landmark box, its side
    int(mean(box width, box height) * scale) photo pixels; its corners land on the centers of the crop's
    corner pixels. What lies outside the photo repeats its edge. Unlike DECA, shrinking averages over the
    source pixels instead of skipping them.

    Returns the RGB crop of side `size`, the landmarks (68,2) in its pixels, and the (3,3) float64 matrix that
    takes photo pixels to crop pixels. Raises LandmarkError where `check_crop` does, and ConfigError for a
    `size` below `SMALLEST_SIZE` or above `LARGEST_CROP`.
    """
    if not SMALLEST_SIZE <= size <= LARGEST_CROP:
        raise ConfigError(
            f"a face crop of {size} pixels cannot be made: choose {SMALLEST_SIZE} to {LARGEST_CROP}"
        )
    cx, cy, side = check_crop(image.size, landmarks, scale)
    zoom = (size - 1) / side
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[0, 0] = matrix[1, 1] = zoom
    matrix[0, 2], matrix[1, 2] = 0.5 - zoom * (cx - side / 2), 0.5 - zoom * (cy - side / 2)
    corner = (cx - side / 2 - 0.5 / zoom, cy - side / 2 - 0.5 / zoom)
    crop = _resample(image, corner, size / zoom, size)
    points = apply_matrix(matrix[None], landmarks[None].to(torch.float64))[0]
    return crop, points.to(landmarks.dtype), matrix


def _resample(image: Image.Image, corner: tuple[float, float], side: float, size: int) -> Image.Image:
    """The square at `corner` of `side` photo pixels as RGB at another size, antialiased, edges repeated."""
    support = math.ceil(2 * max(side / size, 1.0)) + 1  # what the bicubic filter reads around the square
    left, top = math.floor(corner[0]) - support, math.floor(corner[1]) - support
    extent = math.ceil(side) + 2 * support + 1
    # Only what the photo has of it is converted; the rest repeats the edge.
    within = (
        max(left, 0), max(top, 0), min(left + extent, image.width), min(top + extent, image.height)
    )  # fmt: skip
    pixels = np.asarray(image.crop(within).convert("RGB"))
    columns, rows = (within[0] - left, left + extent - within[2]), (within[1] - top, top + extent - within[3])
    padded = Image.fromarray(np.pad(pixels, (rows, columns, (0, 0)), mode="edge"))
    x, y = corner[0] - left, corner[1] - top
    return padded.resize((size, size), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))

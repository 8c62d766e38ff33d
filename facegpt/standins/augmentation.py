"""Images moved and mirrored together with the facts that a vision probe learns from them."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from facegpt.standins.language import GRID, POINTS, Facts

POINT_WEIGHT = 12 / GRID  # of a grid cell in the probe's vector of facts
LARGEST_MOVE = 8  # pixels by which an image is moved at random, so that places are not learnt by heart


def fact_vector(f: Facts) -> list[float]:
    """All facts as numbers (facts,) for the vision probe: where things are and how they turn counts most."""
    points = [POINT_WEIGHT * (value - GRID / 2) for point in f.points.values() for value in point]
    angles = [f.yaw / 7, f.pitch / 4, f.roll / 4, f.jaw / 4]
    rest = [(f.size - 1) * 10, 3 * f.lids, *[2 * v for v in f.light], 4 * f.warmth]
    identity = [*f.shape.values(), *list(f.colors.values())[:12]]
    return [*points, *angles, *rest, *[4 * v for v in f.movements.values()], *[0.5 * v for v in identity]]


def mirror_facts(f: Facts) -> Facts:
    """The facts of the image flipped left to right."""

    def swap(name: str) -> str:
        return name.replace("left", "*").replace("right", "left").replace("*", "right")

    return replace(
        f,
        yaw=-f.yaw,
        roll=-f.roll,
        points={name: (GRID - 1 - f.points[swap(name)][0], f.points[swap(name)][1]) for name in f.points},
        movements={phrase: f.movements[swap(phrase)] for phrase in f.movements},
        light=(-f.light[0], *f.light[1:]),
    )


def move_images(pixels: Tensor, moves: Tensor) -> Tensor:
    """pixels (n,3,h,w) moved right and down by moves (n,2) pixels; the border is repeated."""
    height, width = pixels.shape[-2:]
    padded = F.pad(pixels, (LARGEST_MOVE,) * 4, mode="replicate")
    corners = (LARGEST_MOVE - moves).tolist()
    return torch.stack(
        [image[:, y : y + height, x : x + width] for image, (x, y) in zip(padded, corners, strict=True)]
    )


def move_facts(vectors: Tensor, moves: Tensor, size: int) -> Tensor:
    """Fact vectors (n,facts) of images of `size` pixels that were moved by moves (n,2): points move along."""
    moved = vectors.clone()
    points = moved[:, : 2 * len(POINTS)].unflatten(1, (-1, 2))
    points += (moves * GRID / size * POINT_WEIGHT)[:, None]
    return moved

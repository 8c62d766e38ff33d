"""What faces and light are like beyond the head's own statistics: priors for the fit of one photograph.

Each is a sum of squared standard deviations per face, (F,), as `losses.regularization` has them. The shape
legend: F faces, E expression components.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from facegpt.head.parameters import FaceParameters
from facegpt.render.lighting import BAND_CONSTANTS

JAW_SIDEWAYS = 0.03  # radians: a jaw mostly opens, crooked mouths are expressions
CROOKED = 0.15  # of a full movement: by how much the two sides of a face differ
MOVEMENT = 0.3  # of a full one: how far a named movement usually goes
COLORED_LIGHT = 0.1  # a coefficient of the light: by how much the three colors differ
BRIGHTNESS, EXPOSURE = 0.95, 0.25  # shading of what faces the camera: its mean over photographs, and spread
SIDEWAYS = ("mouthLeft", "mouthRight", "jawLeft", "jawRight")  # movements to a side, absent from most faces


def jaw_prior(parameters: FaceParameters) -> Tensor:
    """How far the jaw is turned or shifted to a side."""
    return (parameters.pose[:, 4:] / JAW_SIDEWAYS).square().sum(dim=1)


def crooked_prior(expression: Tensor, differences: Tensor) -> Tensor:
    """How far the sides of faces with expression (F,E) differ; differences (D,E) as `side_differences` gives.

    A shadow on one cheek is explained by a one-sided smile all too easily, and a wink by one bad landmark.
    """
    return (expression @ differences.T / CROOKED).square().sum(dim=1)


def movement_prior(expression: Tensor, named: Tensor) -> Tensor:
    """How large the movements `named` (E,) bool of faces with expression (F,E) are, in usual ones.

    Most movements are absent from any face. A standard deviation of 1, as for components of a statistical
    model, would let sums of half movements follow every error of the landmarks.
    """
    return (named * expression / MOVEMENT).square().sum(dim=1)


def named_movements(names: Sequence[str]) -> Tensor:
    """bool (E,): the expression components that are a movement of their own, from 0, absent, to 1, full.

    Those that are only numbered, as FLAME's are, are principal components, of either sign.
    """
    return torch.tensor([re.fullmatch(r"expression \d+", name) is None for name in names])


def side_differences(names: Sequence[str], size: int) -> Tensor:
    """Rows (D,size) that take what is crooked from expression coefficients of these component names.

    A row for every pair NAMELeft, NAMERight is their difference, and one for each movement to a side is the
    movement. No rows for components that are only numbered, as FLAME's are.
    """
    at = {name: index for index, name in enumerate(names[:size])}
    rows = [{at[name]: 1.0} for name in SIDEWAYS if name in at]
    for name, index in at.items():
        other = re.sub("Left$", "Right", name)
        if name not in SIDEWAYS and other != name and other in at:
            rows.append({index: 1.0, at[other]: -1.0})
    table = torch.zeros(len(rows), size)
    for k, row in enumerate(rows):
        for index, value in row.items():
            table[k, index] = value
    return table


def color_prior(lighting: Tensor) -> Tensor:
    """How far light (F,27) is from white.

    The squared deviation of each band from its mean over the three colors, as in DECA's code ("light_reg"):
    with free colors the light paints one side of a face green and the other purple.
    """
    bands = lighting.view(-1, 9, 3)
    return ((bands - bands.mean(dim=2, keepdim=True)) / COLORED_LIGHT).square().sum(dim=(1, 2))


def brightness(lighting: Tensor) -> Tensor:
    """Mean shading (F,) by light (F,27) of a sphere as the camera sees it, over its disk and the colors."""
    white = lighting.view(-1, 9, 3).mean(dim=2)
    # Over the disk z has the mean 2/3 and 3 z^2 - 1 the mean 1/2; that of the other bands is 0.
    means = white.new_tensor([1.0, 0, 0, 2 / 3, 0, 0, 0, 0, 1 / 2]) * white.new_tensor(BAND_CONSTANTS)
    return white @ means


def brightness_prior(lighting: Tensor) -> Tensor:
    """How far the brightness of light (F,27) is from that of photographs that are exposed as usual.

    Nothing else tells pale skin in dim light from dark skin in bright light.
    """
    return ((brightness(lighting) - BRIGHTNESS) / EXPOSURE).square()

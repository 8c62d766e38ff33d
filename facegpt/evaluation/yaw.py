"""Faces sorted by how far the head is turned."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from facegpt.head.lbs import rotation_matrices
from facegpt.head.parameters import FaceParameters

YAW_BINS = (0.0, 10.0, 20.0, 90.0)  # degrees to either side


def yaw_degrees(parameters: FaceParameters) -> Tensor:
    """How far each head (N,) is turned to its left, in degrees."""
    rotation = rotation_matrices(parameters.pose[:, :3])
    return torch.atan2(rotation[:, 0, 2], rotation[:, 2, 2]) * (180 / math.pi)


def yaw_groups(truth: FaceParameters) -> dict[str, Tensor]:
    """Label such as "10-20" (degrees to either side) -> bool (N,); empty groups are left out."""
    turned = yaw_degrees(truth).abs().cpu()
    groups = {f"{low:.0f}-{high:.0f}": (turned >= low) & (turned < high) for low, high in pairwise(YAW_BINS)}
    return {label: members for label, members in groups.items() if bool(members.any())}

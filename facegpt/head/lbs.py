"""Rotations and linear blend skinning.

Shape legend: B faces, V vertices, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SERIES_BELOW = 0.25  # squared angle; seven terms are exact to 1e-16 there


def rotation_matrices(axis_angle: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3) in radians, by Rodrigues' formula.

    R = I + a K + b K^2 with a = sin(t)/t, b = (1 - cos(t))/t^2. Both are even in t, hence smooth functions of
    t^2, and are computed as such: value and gradient are exact at zero, where the usual form with a guarded
    division gives NaN or no gradient at all.
    """
    squared = axis_angle.square().sum(-1)
    small = squared < _SERIES_BELOW
    t = torch.where(small, torch.ones_like(squared), squared).sqrt()  # no sqrt(0) on the path of the gradient
    half = torch.sin(t / 2) / t
    u = torch.where(small, squared, torch.zeros_like(squared))
    a = torch.where(small, _series(u, first=1), torch.sin(t) / t)
    b = torch.where(small, _series(u, first=2), 2 * half * half)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + a[..., None, None] * cross + b[..., None, None] * (cross @ cross)


def _series(u: Tensor, first: int) -> Tensor:
    """sum_k (-u)^k / (2k + first)!, u = t^2: sin(t)/t for first = 1, (1 - cos(t))/t^2 for first = 2."""
    value = torch.ones_like(u)
    for k in range(6, 0, -1):
        value = 1 - u / ((2 * k + first) * (2 * k + first - 1)) * value
    return value / first


def joint_transforms(
    rotations: Tensor, joints: Tensor, parents: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward kinematics along the joint tree.

    rotations (B,J,3,3): of each joint relative to its parent; joints (B,J,3): rest positions in metres;
    parents: -1 for the root, else an earlier joint.
    Returns the world rotations (B,J,3,3), the translations (B,J,3) that with them carry a rest point p to
    R p + t, and the posed joints (B,J,3).
    """
    world, posed = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(parents):
        if joint == 0:
            continue
        offset = (joints[:, joint] - joints[:, parent])[..., None]
        posed.append((world[parent] @ offset)[..., 0] + posed[parent])
        world.append(world[parent] @ rotations[:, joint])
    turned, moved = torch.stack(world, 1), torch.stack(posed, 1)
    return turned, moved - (turned @ joints[..., None])[..., 0], moved


def skin(vertices: Tensor, weights: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
    """Linear blend skinning: v' = sum_j w_vj (R_j v + t_j).

    vertices (B,V,3), weights (V,J), rotations (B,J,3,3), translations (B,J,3) -> (B,V,3).
    """
    transforms = torch.cat([rotations, translations[..., None]], -1).flatten(2)  # (B, J, 12)
    blended = (weights @ transforms).unflatten(-1, (3, 4))  # (B, V, 3, 4)
    return (blended[..., :3] * vertices[..., None, :]).sum(-1) + blended[..., 3]

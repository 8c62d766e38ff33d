"""Rotations and linear blend skinning.

Shape legend: B faces, V vertices, J joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

_SERIES_BELOW = 0.25  # squared angle; seven terms are exact to 1e-16 there


def joint_rotations(axis_angle: Tensor) -> Tensor:
    """`rotation_matrices` of (B,J,3) for the head, by compiled loops where they can be used."""
    if _compiled(axis_angle):
        from facegpt.head.lbs_numba import RotationsFunction

        matrices: Tensor = RotationsFunction.apply(axis_angle.flatten(0, 1))
        return matrices.unflatten(0, axis_angle.shape[:2])
    return rotation_matrices(axis_angle)


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


def blend(coefficients: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """mean + basis @ coefficients for coefficients (B,K), mean (N,), basis (N,K) -> (B,N).

    Differentiable in the coefficients. torch's own backward pass of the product walks along the basis' long
    side with a stride, three times slower on a CPU.
    """
    if _under_transform():
        return torch.addmm(mean, coefficients, basis.t())
    blended: Tensor = _Blend.apply(coefficients, mean, basis)
    return blended


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
        ctx.save_for_backward(basis)
        return blend_forward(coefficients, mean, basis)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (basis,) = ctx.saved_tensors
        return blend_backward(grad, basis), None, None


# On a CPU a product of few rows of coefficients with a long basis runs on one thread, or slower on two,
# unless the basis is divided into so many parts.
_PARTS = 8
_LONG = 4096


def _in_parts(basis: Tensor) -> tuple[int, tuple[int, int]]:
    """How many of the rows are taken in parts, and (parts, rows of each); 0 if the basis is taken whole."""
    size = 0 if basis.is_cuda or len(basis) < _LONG else len(basis) // _PARTS
    return size * _PARTS, (_PARTS, size)


def blend_forward(coefficients: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
    """`blend` for functions that write their gradient out."""
    end, shape = _in_parts(basis)
    if end == 0:
        return torch.addmm(mean, coefficients, basis.t())
    blended = coefficients.new_empty(len(coefficients), len(basis))
    parts = torch.bmm(coefficients.expand(_PARTS, -1, -1), basis[:end].unflatten(0, shape).mT)
    torch.add(parts.transpose(0, 1), mean[:end].view(shape), out=blended[:, :end].unflatten(1, shape))
    torch.addmm(mean[end:], coefficients, basis[end:].t(), out=blended[:, end:])
    return blended


def blend_backward(grad: Tensor, basis: Tensor) -> Tensor:
    """The gradient (B,K) of the coefficients from that of the blended (B,N)."""
    end, shape = _in_parts(basis)
    if end == 0:
        return grad @ basis
    parts = grad[:, :end].unflatten(1, shape).transpose(0, 1)
    return torch.bmm(parts, basis[:end].unflatten(0, shape)).sum(dim=0) + grad[:, end:] @ basis[end:]


def joint_transforms(
    rotations: Tensor, joints: Tensor, parents: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward kinematics along the joint tree.

    rotations (B,J,3,3): of each joint relative to its parent; joints (B,J,3): rest positions in metres;
    parents: -1 for the root, else an earlier joint.
    Returns the world rotations (B,J,3,3), the translations (B,J,3) that with them carry a rest point p to
    R p + t, and the posed joints (B,J,3).
    """
    if _compiled(rotations):
        from facegpt.head.lbs_numba import KinematicsFunction

        transforms: tuple[Tensor, Tensor, Tensor] = KinematicsFunction.apply(
            rotations, joints, tuple(parents)
        )
        return transforms
    world, posed = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(parents):
        if joint == 0:
            continue
        offset = (joints[:, joint] - joints[:, parent])[..., None]
        posed.append((world[parent] @ offset)[..., 0] + posed[parent])
        world.append(world[parent] @ rotations[:, joint])
    world_rotations, positions = torch.stack(world, 1), torch.stack(posed, 1)
    translations = positions - (world_rotations @ joints[..., None])[..., 0]
    return world_rotations, translations, positions


def linear_blend_skinning(rest: Tensor, weights: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
    """Linear blend skinning: v' = sum_j w_vj (R_j v + t_j).

    rest (B,3,V): x, y and z of the vertices apart, weights (J,V), rotations (B,J,3,3), translations (B,J,3)
    -> (B,V,3).
    """
    if _compiled(rest):
        from facegpt.head.lbs_numba import SkinningFunction

        posed: Tensor = SkinningFunction.apply(rest, weights, rotations, translations)
        return posed
    transforms = torch.cat([rotations, translations[..., None]], -1)  # (B, J, 3, 4)
    blended = (transforms.flatten(2).transpose(1, 2) @ weights).unflatten(1, (3, 4))  # (B, 3, 4, V)
    return ((blended[:, :, :3] * rest[:, None]).sum(2) + blended[:, :, 3]).transpose(1, 2)


def _compiled(tensor: Tensor) -> bool:
    """Whether the loops of `lbs_numba` do the work: on the CPU, where numba is installed.

    They know first derivatives only, and nothing of `torch.func`.
    """
    return tensor.is_cpu and _numba_works() and not _under_transform()


def _under_transform() -> bool:
    """Whether `torch.func` is at work (vmap, jvp ...), which functions with a written gradient do not know.

    torch has no public name for that; `tests/test_private_names.py` tells when this one goes.
    """
    active: bool = torch._C._are_functorch_transforms_active()
    return active


@cache
def _numba_works() -> bool:
    """Whether numba can be imported (it refuses numpy versions it does not know) and can cache its code."""
    try:
        import facegpt.head.lbs_numba  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True

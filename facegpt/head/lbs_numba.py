"""Rotations, forward kinematics and skinning as loops compiled by numba, for the CPU (optional).

The formulas of `lbs`, with the gradients written out. A joint tree is five tiny matrices per face: as tensor
operations they cost more than all vertices together. Vertices are passed over once each way instead of by a
chain of tensors of their size; at rest they come planar, (B,3,V), so that neighbours in a loop are
neighbours in memory, posed they leave as (B,V,3).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facegpt.head.compiled import as_array, loop, vector_loop


class SkinningFunction(torch.autograd.Function):
    """planar rest vertices (B,3,V), weights (J,V), rotations (B,J,3,3), translations (B,J,3) -> (B,V,3)."""

    @staticmethod
    def forward(ctx: Any, rest: Tensor, weights: Tensor, rotations: Tensor, translations: Tensor) -> Tensor:
        transforms = torch.cat([rotations, translations[..., None]], -1).flatten(2)  # (B, J, 12)
        posed = rest.new_empty(rest.shape[0], rest.shape[2], 3)
        _skin(*map(as_array, (rest, weights, transforms, posed)))
        ctx.save_for_backward(rest, weights, transforms)
        return posed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        rest, weights, transforms = ctx.saved_tensors
        grad_rest = torch.empty_like(rest, memory_format=torch.contiguous_format)
        grad_transforms = torch.zeros_like(transforms)
        _skin_backward(*map(as_array, (rest, weights, transforms, grad, grad_rest, grad_transforms)))
        matrices = grad_transforms.unflatten(2, (3, 4))
        return grad_rest, None, matrices[..., :3], matrices[..., 3]


class RotationsFunction(torch.autograd.Function):
    """axis-angle (N,3) in radians -> rotation matrices (N,3,3)."""

    @staticmethod
    def forward(ctx: Any, axis_angle: Tensor) -> Tensor:
        matrices = axis_angle.new_empty(len(axis_angle), 3, 3)
        _rotations(as_array(axis_angle), as_array(matrices))
        ctx.save_for_backward(axis_angle)
        return matrices

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (axis_angle,) = ctx.saved_tensors
        grad_axis_angle = torch.empty_like(axis_angle, memory_format=torch.contiguous_format)
        _rotations_backward(as_array(axis_angle), as_array(grad), as_array(grad_axis_angle))
        return grad_axis_angle


class KinematicsFunction(torch.autograd.Function):
    """rotations (B,J,3,3), rest joints (B,J,3), parents (J,) -> what `lbs.joint_transforms` returns."""

    @staticmethod
    def forward(
        ctx: Any, rotations: Tensor, joints: Tensor, parents: tuple[int, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        world_rotations = torch.empty_like(rotations, memory_format=torch.contiguous_format)
        translations, posed = torch.empty(2, *joints.shape, dtype=joints.dtype).unbind()
        tree = np.array(parents)
        _kinematics(tree, *map(as_array, (rotations, joints, world_rotations, translations, posed)))
        ctx.save_for_backward(rotations, joints, world_rotations)
        ctx.tree = tree
        return world_rotations, translations, posed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        rotations, joints, world_rotations = ctx.saved_tensors
        grad_world_rotations, grad_translations, grad_posed = (
            grad.clone(memory_format=torch.contiguous_format) for grad in grads
        )
        grad_rotations, grad_joints = torch.empty_like(world_rotations), torch.zeros_like(grad_translations)
        tensors = (
            rotations,
            joints,
            world_rotations,
            grad_world_rotations,
            grad_translations,
            grad_posed,
            grad_rotations,
            grad_joints,
        )
        _kinematics_backward(ctx.tree, *map(as_array, tensors))
        return grad_rotations, grad_joints, None


@loop
def _factors(squared):
    """sin(t)/t, (1 - cos(t))/t^2 and their derivatives by t^2, for t^2."""
    if squared > 0.25:
        t = math.sqrt(squared)
        a, half = math.sin(t) / t, math.sin(t / 2) / t
        b = 2 * half * half
        return a, b, (math.cos(t) - a) / (2 * squared), (a / 2 - b) / squared
    a = b = da = db = 0.0
    term = 1.0  # (-t^2)^k / (2k)!
    slope = 0.0  # its derivative
    for k in range(9):
        a += term / (2 * k + 1)
        b += term / ((2 * k + 1) * (2 * k + 2))
        da += slope / (2 * k + 1)
        db += slope / ((2 * k + 1) * (2 * k + 2))
        share = -1.0 / ((2 * k + 1) * (2 * k + 2))
        slope = (slope * squared + term) * share
        term = term * squared * share
    return a, b, da, db


@loop
def _rotations(axis_angle, matrices):
    for n in range(len(axis_angle)):
        x, y, z = np.float64(axis_angle[n, 0]), np.float64(axis_angle[n, 1]), np.float64(axis_angle[n, 2])
        a, b, _, _ = _factors(x * x + y * y + z * z)
        m = matrices[n]
        # I + a K + b K^2, where K^2 = v v^T - |v|^2 I
        m[0, 0], m[0, 1], m[0, 2] = 1 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y
        m[1, 0], m[1, 1], m[1, 2] = b * x * y + a * z, 1 - b * (x * x + z * z), b * y * z - a * x
        m[2, 0], m[2, 1], m[2, 2] = b * x * z - a * y, b * y * z + a * x, 1 - b * (x * x + y * y)


@loop
def _rotations_backward(axis_angle, grad, grad_axis_angle):
    for n in range(len(axis_angle)):
        x, y, z = np.float64(axis_angle[n, 0]), np.float64(axis_angle[n, 1]), np.float64(axis_angle[n, 2])
        squared = x * x + y * y + z * z
        a, b, da, db = _factors(squared)
        g = grad[n]
        kx, ky, kz = g[2, 1] - g[1, 2], g[0, 2] - g[2, 0], g[1, 0] - g[0, 1]
        trace = g[0, 0] + g[1, 1] + g[2, 2]
        # (G + G^T) v
        sx = 2 * g[0, 0] * x + (g[0, 1] + g[1, 0]) * y + (g[0, 2] + g[2, 0]) * z
        sy = (g[0, 1] + g[1, 0]) * x + 2 * g[1, 1] * y + (g[1, 2] + g[2, 1]) * z
        sz = (g[0, 2] + g[2, 0]) * x + (g[1, 2] + g[2, 1]) * y + 2 * g[2, 2] * z
        grad_a = kx * x + ky * y + kz * z
        grad_b = (sx * x + sy * y + sz * z) / 2 - squared * trace
        radial = 2 * (grad_a * da + grad_b * db) - 2 * b * trace
        grad_axis_angle[n, 0] = a * kx + b * sx + radial * x
        grad_axis_angle[n, 1] = a * ky + b * sy + radial * y
        grad_axis_angle[n, 2] = a * kz + b * sz + radial * z


@loop
def _kinematics(parents, rotations, joints, world_rotations, translations, posed):
    for n in range(joints.shape[0]):
        for j in range(joints.shape[1]):
            p = parents[j]
            for r in range(3):
                place = joints[n, j, r] if j == 0 else posed[n, p, r]
                for c in range(3):
                    value = rotations[n, j, r, c]
                    if j > 0:
                        value = 0.0
                        for k in range(3):
                            value += world_rotations[n, p, r, k] * rotations[n, j, k, c]
                        place += world_rotations[n, p, r, c] * (joints[n, j, c] - joints[n, p, c])
                    world_rotations[n, j, r, c] = value
                posed[n, j, r] = place
            for r in range(3):
                back = posed[n, j, r]
                for c in range(3):
                    back -= world_rotations[n, j, r, c] * joints[n, j, c]
                translations[n, j, r] = back


@loop
def _kinematics_backward(
    parents,
    rotations,
    joints,
    world_rotations,
    grad_world_rotations,
    grad_translations,
    grad_posed,
    grad_rotations,
    grad_joints,
):
    """grad_world_rotations and grad_posed collect on the way from the leaves to the root."""
    for n in range(joints.shape[0]):
        for j in range(joints.shape[1] - 1, -1, -1):
            p = parents[j]
            for r in range(3):
                g = grad_translations[n, j, r]
                grad_posed[n, j, r] += g
                for c in range(3):
                    grad_world_rotations[n, j, r, c] -= g * joints[n, j, c]
                    grad_joints[n, j, c] -= g * world_rotations[n, j, r, c]
            if j == 0:
                for r in range(3):
                    grad_joints[n, 0, r] += grad_posed[n, 0, r]
                    for c in range(3):
                        grad_rotations[n, 0, r, c] = grad_world_rotations[n, 0, r, c]
                continue
            for r in range(3):
                g = grad_posed[n, j, r]
                grad_posed[n, p, r] += g
                for c in range(3):
                    grad_world_rotations[n, p, r, c] += g * (joints[n, j, c] - joints[n, p, c])
                    grad_joints[n, j, c] += g * world_rotations[n, p, r, c]
                    grad_joints[n, p, c] -= g * world_rotations[n, p, r, c]
                    value = 0.0
                    for k in range(3):
                        value += world_rotations[n, p, k, r] * grad_world_rotations[n, j, k, c]
                        grad_world_rotations[n, p, r, c] += (
                            grad_world_rotations[n, j, r, k] * rotations[n, j, c, k]
                        )
                    grad_rotations[n, j, r, c] = value


@vector_loop
def _skin(rest, weights, transforms, posed):
    count = weights.shape[1]
    blended = np.empty((12, 512), rest.dtype)
    for b in range(rest.shape[0]):
        for start in range(0, count, 512):
            size = min(512, count - start)
            _blend(weights, transforms[b], start, size, blended)
            stop = start + size
            x, y, z = rest[b, 0, start:stop], rest[b, 1, start:stop], rest[b, 2, start:stop]
            out = posed[b, start:stop]
            for v in range(size):
                out[v, 0] = blended[0, v] * x[v] + blended[1, v] * y[v] + blended[2, v] * z[v] + blended[3, v]
                out[v, 1] = blended[4, v] * x[v] + blended[5, v] * y[v] + blended[6, v] * z[v] + blended[7, v]
                out[v, 2] = (
                    blended[8, v] * x[v] + blended[9, v] * y[v] + blended[10, v] * z[v] + blended[11, v]
                )


@vector_loop
def _blend(weights, transforms, start, size, blended):
    """The blended transforms (12,size) of a block of vertices."""
    for k in range(12):
        row = blended[k]
        w, t = weights[0, start : start + size], transforms[0, k]
        for v in range(size):
            row[v] = w[v] * t
        for j in range(1, weights.shape[0]):
            w, t = weights[j, start : start + size], transforms[j, k]
            for v in range(size):
                row[v] += w[v] * t


@vector_loop
def _skin_backward(rest, weights, transforms, grad, grad_rest, grad_transforms):
    joints, count = weights.shape
    blended = np.empty((12, 512), rest.dtype)
    g = np.empty((3, 512), rest.dtype)
    for b in range(rest.shape[0]):
        for start in range(0, count, 512):
            size = min(512, count - start)
            stop = start + size
            _blend(weights, transforms[b], start, size, blended)
            for v in range(size):
                g[0, v], g[1, v], g[2, v] = (
                    grad[b, start + v, 0],
                    grad[b, start + v, 1],
                    grad[b, start + v, 2],
                )
            for d in range(3):
                out = grad_rest[b, d, start:stop]
                for v in range(size):
                    out[v] = (
                        blended[d, v] * g[0, v] + blended[4 + d, v] * g[1, v] + blended[8 + d, v] * g[2, v]
                    )
            for j in range(joints):
                w = weights[j, start:stop]
                for c in range(3):
                    row = g[c]
                    x, y, z = rest[b, 0, start:stop], rest[b, 1, start:stop], rest[b, 2, start:stop]
                    sx = sy = sz = s1 = blended.dtype.type(0)
                    for v in range(size):
                        share = w[v] * row[v]
                        sx += share * x[v]
                        sy += share * y[v]
                        sz += share * z[v]
                        s1 += share
                    grad_transforms[b, j, 4 * c] += sx
                    grad_transforms[b, j, 4 * c + 1] += sy
                    grad_transforms[b, j, 4 * c + 2] += sz
                    grad_transforms[b, j, 4 * c + 3] += s1

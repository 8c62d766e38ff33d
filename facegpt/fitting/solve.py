"""Face parameters of given vertices, by damped Gauss-Newton.

Shape legend: B faces, V vertices, P unknowns of one face.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters, ParameterLayout

MILLIMETERS = 1000.0
STEPS = 100
ANGLE_STEP = 1e-5  # radians; central differences of rotations are then right to 1e-10
CHUNK = 24  # heads evaluated at once, to bound the memory
START_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e9
CONVERGED = 1e-7  # relative decrease of the objective at which a face is done
EXACT = 1e-12  # mm^2; or when it is as good as zero: a millionth of a millimetre
ANGLES = ("pose", "neck", "eyes")


@dataclass
class Solution:
    """parameters: of B faces in the head's dtype, albedo 0, the head's default camera, white light.

    residual (B,): root mean square distance of the vertices in mm, weighted as they were. distances (B,V): of
    each vertex in mm. translation (B,3) in metres: what the solved head must be moved by; zero unless it was
    asked for.
    """

    parameters: FaceParameters
    residual: Tensor
    distances: Tensor
    translation: Tensor


def solve(
    head: HeadModel,
    vertices: Tensor,
    neck: bool = False,
    eyes: bool = False,
    translation: bool = False,
    weights: Tensor | None = None,
    prior: float = 0.0,
) -> Solution:
    """The parameters whose head comes nearest to vertices (V,3) or (B,V,3) in metres, in the head's topology.

    Identity, expression, head and jaw rotation are unknown, and where asked for neck, eyes and a translation.
    Minimises the mean over vertices of w |distance in mm|^2 + prior^2 |coefficients|^2 by Levenberg and
    Marquardt (Nocedal and Wright 2006, section 10.3) in float64, one face after the other; weights (V,) are
    scaled to a mean of 1. prior is in mm: what a coefficient of one standard deviation may cost; 0.05 keeps
    coefficients plausible where vertices do not determine them. Not differentiable.

    Raises ValueError for another number of vertices than the head's, values that are not finite, or weights
    that are negative or all zero.

    Example:
        solution = solve(head, head(parameters).vertices)  # solution.residual is about 1e-4 mm
    """
    target = vertices.detach().to(head.v_template.device, torch.float64)
    target = target[None] if target.ndim == 2 else target
    count = len(head.v_template)
    if target.ndim != 3 or target.shape[1:] != (count, 3):
        raise ValueError(f"this head has {count} vertices; got an array of shape {tuple(vertices.shape)}")
    if not target.isfinite().all():
        raise ValueError("some vertices to solve for are not finite numbers")
    weight = _normalized(weights, target)
    layout = ParameterLayout(head.layout.shape, head.layout.expression, 0, neck, eyes)
    problem = _Problem(_in_double(head), layout, translation)
    found = [_descend(problem, face, weight, prior) for face in target]
    unknowns = torch.stack(found) if found else target.new_zeros(0, problem.size)
    offset = torch.cat([problem(u[None]) - t for u, t in zip(unknowns, target, strict=True)] or [target])
    parameters, moved = problem.split(unknowns)
    mean = head.mean_parameters(len(target), neck, eyes)
    groups = {name: getattr(parameters, name).to(head.v_template.dtype) for name in problem.groups}
    residual = (weight * offset.square().sum(-1)).mean(-1).sqrt() * MILLIMETERS
    return Solution(replace(mean, **groups), residual, offset.norm(dim=-1) * MILLIMETERS, moved)


class _Problem:
    """Vertices as a function of the unknowns (N,P): shape, expression, pose, neck, eyes, translation."""

    def __init__(
        self, head: Callable[[FaceParameters], Tensor], layout: ParameterLayout, moves: bool
    ) -> None:
        self._head, self.layout, self.moves = head, layout, moves
        self.groups = {
            name: size for name, size in layout.sizes.items() if name in ("shape", "expression", *ANGLES)
        }
        self.linear = layout.shape + layout.expression
        self.size = sum(self.groups.values()) + 3 * moves

    def split(self, unknowns: Tensor) -> tuple[FaceParameters, Tensor]:
        sizes = [*self.groups.values(), 3 * self.moves]
        *parts, moved = unknowns.split(sizes, 1)
        mean = FaceParameters.mean(self.layout, len(unknowns), device=unknowns.device, dtype=unknowns.dtype)
        parameters = mean.replace(**dict(zip(self.groups, parts, strict=True)))
        return parameters, moved if self.moves else unknowns.new_zeros(len(unknowns), 3)

    def __call__(self, unknowns: Tensor) -> Tensor:
        """Vertices (N,V,3) in metres."""
        parts = []
        for chunk in unknowns.split(CHUNK):
            parameters, moved = self.split(chunk)
            parts.append(self._head(parameters) + moved[:, None])
        return torch.cat(parts)

    def jacobian(self, unknowns: Tensor, here: Tensor) -> Tensor:
        """(P,V,3) at unknowns (P,) with vertices `here` (V,3).

        Vertices are affine in the coefficients, joints included, so their plain differences are exact.
        """
        step = torch.eye(self.size, dtype=unknowns.dtype, device=unknowns.device)
        angles = step[self.linear : self.size - 3 * self.moves] * ANGLE_STEP
        blocks = [self(unknowns + step[: self.linear]) - here] if self.linear else []
        blocks.append((self(unknowns + angles) - self(unknowns - angles)) / (2 * ANGLE_STEP))
        if self.moves:
            blocks.append(step[-3:, -3:][:, None].expand(3, len(here), 3))
        return torch.cat(blocks)


@torch.no_grad()
def _descend(problem: _Problem, target: Tensor, weight: Tensor, prior: float) -> Tensor:
    """The unknowns (P,) of one face: target (V,3) in metres, weight (V,) with mean 1."""
    scale = (weight / len(weight)).sqrt()[:, None] * MILLIMETERS
    penalty = target.new_zeros(problem.size)
    penalty[: problem.linear] = prior**2

    def evaluate(unknowns: Tensor) -> tuple[Tensor, Tensor, float]:
        here = problem(unknowns[None])[0]
        offset = (here - target) * scale
        return here, offset, float(offset.square().sum() + (penalty * unknowns.square()).sum())

    unknowns = _first_guess(problem, target, weight)
    here, offset, cost = evaluate(unknowns)
    damping = START_DAMPING
    for _ in range(STEPS):
        columns = (problem.jacobian(unknowns, here) * scale).flatten(1)  # (P, 3V)
        hessian = columns @ columns.T + torch.diag(penalty)
        slope = columns @ offset.flatten() + penalty * unknowns
        diagonal = hessian.diagonal()
        diagonal = diagonal + 1e-9 * diagonal.max() + 1e-30  # components that move nothing stay near zero
        before = cost
        while damping <= MOST_DAMPING:
            step = torch.linalg.solve(hessian + torch.diag(damping * diagonal), slope)
            candidate = unknowns - step
            new_here, new_offset, new_cost = evaluate(candidate)
            if new_cost <= cost:
                unknowns, here, offset, cost = candidate, new_here, new_offset, new_cost
                damping = max(damping / 10, LEAST_DAMPING)
                break
            damping *= 4
        if before - cost <= CONVERGED * before or cost < EXACT or damping > MOST_DAMPING:
            break
    return unknowns


def _first_guess(problem: _Problem, target: Tensor, weight: Tensor) -> Tensor:
    """Zero but for the head's rotation, and the translation where it is unknown: the mean's best fit."""
    unknowns = target.new_zeros(problem.size)
    mean = problem(unknowns[None])[0]
    total = weight.sum()
    centers = [(weight[:, None] * points).sum(0) / total for points in (mean, target)]
    u, _, vt = torch.linalg.svd((weight[:, None] * (mean - centers[0])).T @ (target - centers[1]))
    flip = torch.diag(torch.cat([u.new_ones(2), torch.det(u @ vt).sign()[None]]))
    start = list(problem.groups).index("pose")
    first = sum(list(problem.groups.values())[:start])
    unknowns[first : first + 3] = axis_angle((u @ flip @ vt).T)
    if problem.moves:
        unknowns[-3:] = ((target - problem(unknowns[None])[0]) * weight[:, None]).sum(0) / total
    return unknowns


def axis_angle(rotation: Tensor) -> Tensor:
    """Axis-angle (3,) in radians of a rotation (3,3), at most a half turn."""
    turn = Rotation.from_matrix(rotation.double().cpu().numpy()).as_rotvec()
    return torch.from_numpy(turn).to(rotation)


def _normalized(weights: Tensor | None, target: Tensor) -> Tensor:
    if weights is None:
        return target.new_ones(target.shape[1])
    weights = weights.detach().to(target)
    if weights.shape != target.shape[1:2] or not weights.isfinite().all() or weights.min() < 0:
        raise ValueError(f"weights must be {target.shape[1]} numbers of 0 or more")
    if weights.max() == 0:
        raise ValueError("all weights are zero, so nothing determines the parameters")
    return weights / weights.mean()


def _in_double(head: HeadModel) -> Callable[[FaceParameters], Tensor]:
    """Vertices (B,V,3) of the head in float64, albedo left out; the head itself stays as it is."""
    buffers = {
        name: buffer.double()
        for name, buffer in head.named_buffers()
        if buffer.is_floating_point() and not name.startswith("texture")
    }
    albedo = head.layout.albedo

    def vertices(parameters: FaceParameters) -> Tensor:
        full = parameters.replace(albedo=parameters.shape.new_zeros(len(parameters), albedo))
        output: Tensor = torch.func.functional_call(head, buffers, (full,)).vertices
        return output

    return vertices

"""Face parameters of one head as those of another.

Heads of one topology (the FLAME versions) are compared vertex by vertex. Others are laid over each other
once, mean on mean: a thin-plate spline carries the 68 landmarks onto each other, then every vertex of the
target's face takes the nearest point of the source's. That tells where the faces are, not what they mean:
it knows nothing of hair lines or lips beyond the landmarks, and only the face's skin counts.

Shape legend: B faces, V vertices of the target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from facegpt.errors import HeadMismatchError
from facegpt.fitting.solve import Solution, solve
from facegpt.head.landmarks import surface_points
from facegpt.head.model import HeadModel
from facegpt.head.nearest import nearest_points
from facegpt.head.parameters import FaceParameters
from facegpt.render.surface import vertex_normals

REACH = 0.006  # metres: nearest points further away do not correspond
AGREE = 0.5  # least cosine between the normals of corresponding points
SMOOTHING = 1e-5  # of the spline: landmarks of two heads are never quite the same points
PRIOR = 0.1  # mm per standard deviation, for corresponding points that are only about right


@dataclass(frozen=True)
class Correspondence:
    """A point of the source per target vertex: triangle (V,), barycentric (V,3); weight (V,), 0 = none."""

    triangle: Tensor
    barycentric: Tensor
    weight: Tensor


def same_topology(a: HeadModel, b: HeadModel) -> bool:
    """Whether both heads have the same triangles of as many vertices."""
    return len(a.v_template) == len(b.v_template) and torch.equal(a.triangles.cpu(), b.triangles.cpu())


def transfer(
    parameters: FaceParameters, source: HeadModel, target: HeadModel, prior: float | None = None
) -> Solution:
    """The target's parameters for faces of the source; residual in mm over what corresponds.

    Camera and lighting go over, the camera moved so that the face stays where it was in the picture; albedo
    goes over where both heads have one albedo model and is 0 (the mean) otherwise. With one topology neck and
    eyes are solved for where `parameters` have them. Otherwise the neck's turn becomes part of the head's
    rotation and the eyes keep their angles. prior: see `solve`; by default 0 for one topology, 0.1 mm else.

    Raises ValueError when `parameters` are not of the source's sizes, HeadMismatchError for heads of
    different topology without landmarks.
    """
    with torch.no_grad():
        vertices = source(parameters).vertices
    neck, eyes = parameters.neck is not None, parameters.eyes is not None
    if same_topology(source, target):
        solution = solve(target, vertices, neck, eyes, translation=True, prior=prior or 0.0)
    else:
        match = correspond(source, target)
        points = surface_points(vertices.cpu(), source.triangles.cpu(), match.triangle, match.barycentric)
        solution = solve(
            target,
            points,
            translation=True,
            weights=match.weight,
            prior=PRIOR if prior is None else prior,
        )
        if neck:
            solution.parameters.neck = torch.zeros_like(solution.parameters.pose[:, :3])
        if eyes:
            solution.parameters.eyes = parameters.eyes
    found = solution.parameters
    camera, shift = parameters.camera.clone(), solution.translation[:, :2]
    camera[:, 1:] += shift.to(camera)
    solution.parameters = found.replace(camera=camera, lighting=parameters.lighting)
    if same_albedo(source, target):
        solution.parameters.albedo = parameters.albedo
    return solution


def same_albedo(a: HeadModel, b: HeadModel) -> bool:
    """Whether albedo coefficients of one head mean the same for the other."""
    pairs = [(a.data.texture_mean, b.data.texture_mean), (a.data.texture_basis, b.data.texture_basis)]
    return all(x is not None and y is not None and np.array_equal(x, y) for x, y in pairs)


def correspond(source: HeadModel, target: HeadModel) -> Correspondence:
    """Points of the source's mean for the target's vertices; those without one get weight 0."""
    landmarks = [head().landmarks[0].double().cpu().numpy() for head in (target, source)]
    if not len(landmarks[0]) or not len(landmarks[1]):
        raise HeadMismatchError(
            "heads of different topology are compared through their 68 landmarks, and one of them has none"
        )
    spline = RBFInterpolator(*landmarks, smoothing=SMOOTHING, kernel="thin_plate_spline")
    mean = target.v_template.double().cpu().numpy()
    triangles = target.triangles.cpu().numpy()
    skin = np.unique(triangles[target.skin_triangles.cpu().numpy()])
    laid = spline(mean)  # the target's mean in the shape of the source's
    surface = source.v_template.double().cpu().numpy()
    rows = np.flatnonzero(source.skin_triangles.cpu().numpy())
    corners = surface[source.triangles.cpu().numpy()[rows]]
    index, weights, distance = nearest_points(corners, laid[skin])
    normals = vertex_normals(torch.from_numpy(laid)[None], target.triangles.cpu())[0].numpy()
    facing = (normals[skin] * _face_normals(corners)[index]).sum(1)
    triangle, barycentric = np.zeros(len(mean), np.int64), np.tile([1.0, 0, 0], (len(mean), 1))
    triangle[skin], barycentric[skin] = rows[index], weights
    weight = np.zeros(len(mean))
    weight[skin] = (distance < REACH) & (facing > AGREE)
    return Correspondence(
        torch.from_numpy(triangle), torch.from_numpy(barycentric).float(), torch.from_numpy(weight)
    )


def _face_normals(corners: np.ndarray) -> np.ndarray:
    """Unit normals (F,3) of triangles (F,3,3); zero for a triangle without area."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit: np.ndarray = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    return unit

"""Where the fit of a photograph begins, in closed form: the head's place by its landmarks, then the light."""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.errors import LandmarkError
from facegpt.fitting.solve import axis_angle
from facegpt.head.lbs import rotation_matrices
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.lighting import sh_basis
from facegpt.render.renderer import render
from facegpt.sample import FaceTarget

FARTHEST_LANDMARK = 1000.0  # half-widths of the image: beyond it, it is no pixel


def place_head(head: HeadModel, landmarks: Tensor, size: int, valid: Tensor | None = None) -> FaceParameters:
    """The mean face with the camera and head rotation that fit `landmarks` (68,2) best, in closed form.

    Scaled orthographic pose from points (POS, DeMenthon and Davis 1995): the least-squares affine map from 3D
    to 2D is brought to the nearest scaled rotation. Repeated until it stays, because the contour landmarks
    follow the pose.

    Raises LandmarkError when fewer than 6 landmarks are valid (the closed form needs them), when one of these
    is no number or far from the image, or when they lie on a line.
    """
    valid = torch.ones(68, dtype=torch.bool) if valid is None else valid
    if int(valid.sum()) < 6:
        raise LandmarkError(f"at least 6 valid landmarks are needed to place a head, got {int(valid.sum())}")
    target = _to_ndc(landmarks, size)[valid].double()  # (L, 2), y up
    if not bool((target.abs() < FARTHEST_LANDMARK).all()):
        raise LandmarkError("landmarks far from the image cannot place a head: detect them again")
    parameters = head.mean_parameters()
    for _ in range(20):
        before = parameters
        output = head(parameters)
        root = output.joints[0, 0].double()
        rotation = rotation_matrices(parameters.pose[:, :3].double())[0]
        # Undo the rotation about the root joint, so that the map is found from the unposed head.
        points = (output.landmarks[0, valid].double() - root) @ rotation + root
        scale, rotation = _scaled_rotation(points, target)
        center = rotation @ (points.mean(0) - root) + root
        shift = target.mean(0) / scale - center[:2]
        pose = parameters.pose.clone()
        pose[0, :3] = axis_angle(rotation).to(pose)
        camera = torch.stack([scale, shift[0], shift[1]])[None].to(parameters.camera)
        parameters = parameters.replace(pose=pose, camera=camera)
        if torch.allclose(parameters.pose, before.pose, atol=1e-5):
            break
    return parameters


def estimate_light(
    head: HeadModel, parameters: FaceParameters, target: FaceTarget, ridge: float = 0.02
) -> Tensor:
    """(1,27) white light that explains the photograph best under the current albedo, by least squares.

    Shading is linear in the nine bands, so no iteration is needed. One set of bands for all three colours:
    with free colours the light would explain the skin tone, which belongs to the albedo.
    """
    unlit = FaceParameters.mean(head.layout).lighting.to(parameters.lighting)
    rendering = render(head, parameters.replace(lighting=unlit), target.image.shape[-1])
    weight = (rendering.skin_mask * target.skin_mask)[0]  # (H, W)
    basis = sh_basis(rendering.normals[0].permute(1, 2, 0))  # (H, W, 9)
    design = rendering.image[0, :, :, :, None] * basis * weight[..., None]  # (3, H, W, 9)
    observed = target.image * weight
    amount = weight.sum() * 3
    if amount < 1:
        return unlit
    design, observed = design.reshape(-1, 9).double(), observed.reshape(-1).double()
    prior = unlit[0, ::3].double()
    normal = design.T @ design / amount + ridge * torch.eye(9, dtype=torch.float64)
    bands = prior + torch.linalg.solve(normal, design.T @ (observed - design @ prior) / amount)
    return bands.repeat_interleave(3)[None].to(parameters.lighting)


def _scaled_rotation(points: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and (3,3) rotation of the orthographic map from points (L,3) to target (L,2)."""
    centered = points - points.mean(0)
    affine = torch.linalg.lstsq(centered, target - target.mean(0)).solution.T  # (2, 3)
    u, singular, v = torch.linalg.svd(affine, full_matrices=False)
    if singular[1] < 1e-3 * singular[0] or not torch.isfinite(singular).all():
        raise LandmarkError("the landmarks lie on a line, so the head cannot be placed: detect them again")
    rows = u @ v  # nearest pair of orthonormal rows
    return singular.mean(), torch.cat([rows, torch.linalg.cross(rows[0], rows[1])[None]])


def _to_ndc(landmarks: Tensor, size: int) -> Tensor:
    """Pixels (y down) to the camera's [-1,1] square (y up)."""
    half = size / 2
    return torch.stack([landmarks[..., 0] / half - 1, 1 - landmarks[..., 1] / half], dim=-1)

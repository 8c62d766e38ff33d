"""Analysis by synthesis: the face parameters of one photograph by optimisation instead of by a network.

Stage 1 places the head (closed form), stage 2 follows the landmarks with shape, expression and jaw, stage 3
adds albedo and light and compares pixels through the same objective that trains the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facegpt.errors import ConfigError, LandmarkError
from facegpt.fitting.solve import axis_angle
from facegpt.head.lbs import rotation_matrices
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.losses.regularization import regularization
from facegpt.render.camera import project
from facegpt.render.lighting import sh_basis
from facegpt.render.renderer import render
from facegpt.sample import REFERENCE_SIZE, FaceTarget, FaceTargets

SMALLEST_SIZE, LARGEST_SIZE = 32, 2048  # pixels a side; a fit of the largest takes some 3 GB
CAMERA_UNITS = (100.0, 1.0, 1.0)  # about 9 per metre and two small lengths in metres: scaled to equal steps
FARTHEST_LANDMARK = 1000.0  # half-widths of the image: beyond it, it is no pixel
JAW_LIMITS = ((-0.05, 0.6), (-0.1, 0.1), (-0.1, 0.1))  # radians: the range of a living jaw
# Half the prior of training; the landmarks are weighed by `FitSettings` instead of the objective.
FIT_WEIGHTS = ObjectiveWeights(landmark=0.0, regularization=0.05)
JAW_SIDEWAYS = 0.03  # standard deviation in radians: a jaw mostly opens, crooked mouths are expressions

Progress = Callable[[str, int, int], None]  # stage name, steps done, steps of this stage


@dataclass(frozen=True)
class FitSettings:
    """landmark_steps, pixel_steps: of the two iterative stages. landmark_weight: of the mean squared landmark
    coordinate difference in pixels of a 224 crop. learning_rates: size of an Adam step, in each group's unit.
    """

    landmark_weight: float = 2e-3
    landmark_steps: int = 150
    pixel_steps: int = 120
    learning_rates: dict[str, float] = field(
        default_factory=lambda: {
            "shape": 0.05,
            "expression": 0.02,
            "pose": 0.005,
            "albedo": 0.05,
            "lighting": 0.02,
            "camera": 0.0005,
        }
    )


def check_fit_size(size: int) -> None:
    """Raise ConfigError unless a photograph can be fitted at `size` x `size` pixels."""
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ConfigError(
            f"a face cannot be fitted at {size} pixels: choose a size from {SMALLEST_SIZE} to {LARGEST_SIZE}"
        )


def fit_face(
    head: HeadModel,
    target: FaceTarget,
    objective: FaceObjective,
    settings: FitSettings | None = None,
    valid: Tensor | None = None,
    progress: Progress | None = None,
) -> FaceParameters:
    """Face parameters (batch of 1) that explain `target`.

    target: square crop with landmarks in its pixels. valid (68,) bool marks the landmarks that count; the
    others may hold anything finite. objective: pixel, perceptual and regularisation part. Its landmark weight
    should be 0: the weights inside that part (400 for inner lips and nose ridge) suit training over many
    photographs; on a single one they bend the mouth to follow every error of the detector, so here all
    landmarks count the same. progress is told after every step. The result carries no gradient.

    Raises ConfigError for a target of another size than `check_fit_size` allows, and LandmarkError where
    `place_head` does.
    """
    check_fit_size(target.image.shape[-1])
    settings = settings or FitSettings()
    valid = torch.ones(68, dtype=torch.bool) if valid is None else valid
    report = progress or (lambda stage, done, steps: None)
    size = target.image.shape[-1]
    parameters = place_head(head, target.landmarks, size, valid)
    report("place", 1, 1)

    weights = objective.weights

    def landmark_term(points: Tensor) -> Tensor:
        error = (points - target.landmarks)[:, valid] * (REFERENCE_SIZE / size)
        return settings.landmark_weight * error.square().mean(dim=(1, 2))

    def jaw_term(current: FaceParameters) -> Tensor:
        # In the scale of `regularization`, which leaves the pose free.
        return (current.pose[:, 4:] / JAW_SIDEWAYS).square().sum(dim=1) / 224

    def landmark_objective(current: FaceParameters) -> Tensor:
        points = project(head(current).landmarks, current.camera, size, size)[..., :2]
        return landmark_term(points) + weights.regularization * (regularization(current) + jaw_term(current))

    groups = ["pose", "camera", "shape", "expression"]
    limits = _limits(head)
    parameters = _descend(
        parameters, groups, landmark_objective, settings, settings.landmark_steps, limits, report, "landmarks"
    )
    parameters = parameters.replace(lighting=estimate_light(head, parameters, target))

    targets = FaceTargets(target.image[None], target.landmarks[None], target.skin_mask[None])

    def full_objective(current: FaceParameters) -> Tensor:
        rendering = render(head, current, size)
        face = objective(rendering, current, targets)[0]
        return face + landmark_term(rendering.landmarks) + weights.regularization * jaw_term(current)

    groups += ["albedo", "lighting"]
    return _descend(
        parameters, groups, full_objective, settings, settings.pixel_steps, limits, report, "pixels"
    )


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


def _limits(head: HeadModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Group -> lowest and highest values: the jaw's range, and 0 to 1 for expression components with a name.

    A named movement cannot be less than absent; without this limit, sums of negative movements explain
    landmark noise. Numbered components (FLAME's) are principal components and have no limit.
    """
    free = torch.full((3,), torch.inf)
    low, high = torch.tensor(JAW_LIMITS).T
    named = torch.tensor([re.fullmatch(r"expression \d+", name) is None for name in head.expression_names])
    return {
        "pose": (torch.cat([-free, low]), torch.cat([free, high])),
        "expression": (torch.where(named, 0.0, -torch.inf), torch.where(named, 1.0, torch.inf)),
    }


def _descend(
    start: FaceParameters,
    groups: list[str],
    objective: Callable[[FaceParameters], Tensor],
    settings: FitSettings,
    steps: int,
    limits: dict[str, tuple[Tensor, Tensor]],
    report: Progress,
    stage: str,
) -> FaceParameters:
    """Adam on some groups of one face; the best parameters met on the way, not the last."""
    free = {name: getattr(start, name).detach().clone() for name in groups}
    free["camera"] = torch.zeros_like(start.camera)  # an offset in CAMERA_UNITS
    for value in free.values():
        value.requires_grad_()
    rates = [{"params": [value], "lr": settings.learning_rates[name]} for name, value in free.items()]
    optimizer = torch.optim.Adam(rates, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.05, 1 - step / max(steps, 1)))
    best, best_loss = start, float("inf")
    for step in range(steps):
        camera = start.camera + free["camera"] * start.camera.new_tensor(CAMERA_UNITS)
        current = start.replace(**{**free, "camera": camera})
        loss = objective(current).sum()
        if loss.item() < best_loss:
            # Cloned, because Adam changes the groups in place.
            best, best_loss = (
                FaceParameters.from_vector(current.to_vector().detach(), start.layout),
                loss.item(),
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for name, (low, high) in limits.items():
                free[name].clamp_(low, high)
        report(stage, step + 1, steps)
    return best

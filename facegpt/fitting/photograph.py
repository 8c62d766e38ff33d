"""Analysis by synthesis: the face parameters of one photograph by optimisation instead of by a network.

Stage 1 places the head (closed form), stage 2 follows the landmarks with shape, expression and jaw, stage 3
adds albedo and light and compares pixels through the same objective that trains the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from facegpt.errors import ConfigError
from facegpt.fitting.blendshapes import Expected
from facegpt.fitting.priors import (
    BRIGHTNESS,
    brightness,
    brightness_prior,
    color_prior,
    crooked_prior,
    jaw_prior,
    movement_prior,
    named_movements,
    side_differences,
)
from facegpt.fitting.start import estimate_light, place_head
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.landmark import pseudo_huber
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.losses.regularization import regularization
from facegpt.render.camera import project
from facegpt.render.renderer import render
from facegpt.sample import REFERENCE_SIZE, FaceTarget, FaceTargets

SMALLEST_SIZE, LARGEST_SIZE = 32, 2048  # pixels a side; a fit of the largest takes some 3 GB
CAMERA_UNITS = (100.0, 1.0, 1.0)  # about 9 per metre and two small lengths in metres: scaled to equal steps
JAW_LIMITS = ((-0.05, 0.6), (-0.1, 0.1), (-0.1, 0.1))  # radians: the range of a living jaw
# Half the prior of training and four times the pixels, for one photograph says little about a person; the
# landmarks are weighed by `FitSettings` instead of the objective.
FIT_WEIGHTS = ObjectiveWeights(pixel=2.0, landmark=0.0, regularization=0.05)

Progress = Callable[[str, int, int], None]  # stage name, steps done, steps of this stage


@dataclass(frozen=True)
class FitSettings:
    """landmark_steps, pixel_steps: of the two iterative stages. landmark_weight: of the mean squared landmark
    coordinate difference in pixels of a 224 crop. landmark_delta: distance in these pixels beyond which a
    landmark pulls no harder, 0: none. pixel_delta: color distance beyond which a pixel counts for less and
    less, 0: none. crooked, movement, color, brightness, expected: weights of the priors
    (`priors`, `Expected`) beside the objective's regularization, 0 leaves one out. learning_rates: size of an
    Adam step, in each group's unit.
    """

    landmark_weight: float = 2e-3
    landmark_delta: float = 4.0
    pixel_delta: float = 0.3
    crooked: float = 1.0
    color: float = 1.0
    brightness: float = 1.0
    movement: float = 1.0
    expected: float = 1.0
    landmark_steps: int = 150
    pixel_steps: int = 160
    learning_rates: dict[str, float] = field(
        default_factory=lambda: {
            "shape": 0.05,
            "expression": 0.02,
            "pose": 0.005,
            "albedo": 0.1,
            "lighting": 0.05,
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
    expected: Expected | None = None,
    progress: Progress | None = None,
) -> FaceParameters:
    """Face parameters (batch of 1) that explain `target`.

    target: square crop with landmarks in its pixels. valid (68,) bool marks the landmarks that count; the
    others may hold anything finite. objective: pixel, perceptual and regularisation part. Its landmark weight
    should be 0: the weights inside that part (400 for inner lips and nose ridge) suit training over many
    photographs; on a single one they bend the mouth to follow every error of the detector, so here all
    landmarks count the same. expected: the expression that a network saw in the photograph, where there is
    one; the fit begins with it. progress is told after every step. The result carries no gradient.

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

    differences = side_differences(head.expression_names, head.layout.expression)
    limits = _limits(head)
    movements = named_movements(head.expression_names)
    if expected is not None:
        parameters = expected.start(parameters)
        movements = movements & expected.spread[:-1].isinf()

    def landmark_term(points: Tensor) -> Tensor:
        squares = ((points - target.landmarks)[:, valid] * (REFERENCE_SIZE / size)).square().sum(dim=2)
        return settings.landmark_weight * pseudo_huber(squares, settings.landmark_delta).mean(dim=1) / 2

    def prior_term(current: FaceParameters) -> Tensor:
        # In the scale of `regularization`, which leaves pose and light free.
        total = jaw_prior(current) + settings.crooked * crooked_prior(current.expression, differences)
        total = total + settings.movement * movement_prior(current.expression, movements)
        total = total + settings.color * color_prior(current.lighting)
        total = total + settings.brightness * brightness_prior(current.lighting)
        if expected is not None:
            total = total + settings.expected * expected.surprise(current)
        return objective.weights.regularization * total / 224

    def landmark_objective(current: FaceParameters) -> Tensor:
        points = project(head(current).landmarks, current.camera, size, size)[..., :2]
        prior = objective.weights.regularization * regularization(current)
        return landmark_term(points) + prior + prior_term(current)

    groups = ["pose", "camera", "shape", "expression"]
    parameters = _descend(
        parameters, groups, landmark_objective, settings, settings.landmark_steps, limits, report, "landmarks"
    )
    light = estimate_light(head, parameters, target)
    # How bright a face is says as much of the exposure as of the skin; the descent is slow to divide it.
    share = (BRIGHTNESS / brightness(light).clamp(min=0.1)) ** (0.5 if settings.brightness > 0 else 0)
    parameters = parameters.replace(lighting=light * share[:, None])

    def full_objective(current: FaceParameters) -> Tensor:
        rendering = render(head, current, size)
        mask = target.skin_mask[None]
        if settings.pixel_delta > 0:
            # What the head cannot show, such as glasses, hands and single teeth, would bend it. The mask is
            # squared with the error, so these are the weights of Geman and McClure (1987).
            error = (target.image - rendering.image.detach()).square().sum(dim=1)
            mask = mask / (1 + error / settings.pixel_delta**2)
        targets = FaceTargets(target.image[None], target.landmarks[None], mask)
        face = objective(rendering, current, targets)[0]
        return face + landmark_term(rendering.landmarks) + prior_term(current)

    groups += ["albedo", "lighting"]
    return _descend(
        parameters, groups, full_objective, settings, settings.pixel_steps, limits, report, "pixels"
    )


def _limits(head: HeadModel) -> dict[str, tuple[Tensor, Tensor]]:
    """Group -> lowest and highest values: the jaw's range, and 0 to 1 for expression components with a name.

    A named movement cannot be less than absent; without this limit, sums of negative movements explain
    landmark noise. Numbered components (FLAME's) are principal components and have no limit.
    """
    free = torch.full((3,), torch.inf)
    low, high = torch.tensor(JAW_LIMITS).T
    named = named_movements(head.expression_names)
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
    """Adam on some groups of faces; of each the best parameters met on the way, not the last."""
    free = {name: getattr(start, name).detach().clone() for name in groups}
    free["camera"] = torch.zeros_like(start.camera)  # an offset in CAMERA_UNITS
    for value in free.values():
        value.requires_grad_()
    rates = [{"params": [value], "lr": settings.learning_rates[name]} for name, value in free.items()]
    optimizer = torch.optim.Adam(rates, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.05, 1 - step / max(steps, 1)))
    best = start.to_vector().detach()
    best_loss = start.camera.new_full((len(start),), torch.inf)
    for step in range(steps):
        camera = start.camera + free["camera"] * start.camera.new_tensor(CAMERA_UNITS)
        current = start.replace(**{**free, "camera": camera})
        losses = objective(current)
        better = losses.detach() < best_loss
        best_loss = torch.where(better, losses.detach(), best_loss)
        best = torch.where(better[:, None], current.to_vector().detach(), best)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for name, (low, high) in limits.items():
                free[name].clamp_(low, high)
        report(stage, step + 1, steps)
    return FaceParameters.from_vector(best, start.layout)

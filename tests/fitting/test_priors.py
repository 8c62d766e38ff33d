"""Priors of a fit: what they cost in closed form, and what they keep a fit from."""

from __future__ import annotations

import pytest
import torch
from small_head import small_head, small_head_data

from facegpt.fitting.blendshapes import SEEN, Expected, expected_expression
from facegpt.fitting.evidence import WITHIN, evidence
from facegpt.fitting.photograph import FitSettings, fit_face
from facegpt.fitting.priors import (
    BRIGHTNESS,
    COLORED_LIGHT,
    CROOKED,
    EXPOSURE,
    JAW_SIDEWAYS,
    MOVEMENT,
    brightness,
    brightness_prior,
    color_prior,
    crooked_prior,
    jaw_prior,
    movement_prior,
    named_movements,
    side_differences,
)
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.metrics.image import photometric_error
from facegpt.perception.face_points import BLENDSHAPES
from facegpt.render.lighting import ambient, shade
from facegpt.render.renderer import render
from facegpt.sample import FaceTarget
from facegpt.standins.synthetic import sample_parameters

SIZE = 64
NAMES = ["mouthSmileLeft", "mouthSmileRight", "mouthLeft", "mouthRight"]


def named_head() -> HeadModel:
    data = small_head_data()
    data.expression_names = NAMES
    return HeadModel(data)


def fitted(
    head: HeadModel, target: FaceTarget, seen: Expected | None = None, **weights: float
) -> FaceParameters:
    objective = FaceObjective(ObjectiveWeights(perceptual=0.0, landmark=0.0), None, head.layout)
    settings = FitSettings(landmark_steps=40, pixel_steps=10, **weights)
    return fit_face(head, target, objective, settings, expected=seen)


def target_of(head: HeadModel, seed: int = 1) -> FaceTarget:
    parameters = sample_parameters(head, 1, torch.Generator().manual_seed(seed))
    parameters.expression[:] = torch.tensor([0.5, 0.5, 0, 0])
    shown = render(head, parameters, SIZE)
    return FaceTarget(shown.image[0].clamp(0, 1), shown.landmarks[0], shown.skin_mask[0])


def test_sides_that_move_alike_cost_nothing_and_a_difference_its_square():
    differences = side_differences([*NAMES, "cheekPuff", "eyeBlinkLeft"], 6)
    assert differences.tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [1, -1, 0, 0, 0, 0]]
    faces = torch.tensor([[0.7, 0.7, 0, 0, 1, 0], [0.7, 0.4, 0, 0.2, 0, 0]])
    cost = crooked_prior(faces, differences)
    torch.testing.assert_close(cost, torch.tensor([0, (0.3**2 + 0.2**2) / CROOKED**2]))


def test_components_without_a_name_have_neither_sides_nor_full_movements():
    names = ["expression 1", "expression 2"]
    assert side_differences(names, 2).shape == (0, 2)
    expression = torch.tensor([[3.0, -2.0]])
    assert crooked_prior(expression, side_differences(names, 2)).tolist() == [0]
    assert movement_prior(expression, named_movements(names)).tolist() == [0]
    mixed = named_movements(["smile", "expression 2"])
    assert movement_prior(expression, mixed).item() == pytest.approx((3 / MOVEMENT) ** 2)


def test_white_light_of_any_shape_is_free_and_color_costs_its_square():
    bands = torch.randn(2, 9, 1, generator=torch.Generator().manual_seed(0))
    white = bands.expand(2, 9, 3).reshape(2, 27)
    torch.testing.assert_close(color_prior(white), torch.zeros(2))
    # red up and blue down by d leaves the mean: each is d from it
    colored = white + 0.1 * torch.tensor([1.0, 0, -1]).repeat(9)
    torch.testing.assert_close(color_prior(colored), torch.full((2,), 9 * 2 * 0.1**2 / COLORED_LIGHT**2))


def test_brightness_is_the_mean_shading_of_a_ball_as_the_camera_sees_it():
    axis = (torch.arange(400) + 0.5) / 200 - 1
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    seen = torch.stack([x, y, (1 - x * x - y * y).clamp(min=0).sqrt()], dim=-1)[x * x + y * y < 1]
    light = torch.randn(1, 27, generator=torch.Generator().manual_seed(0))
    assert brightness(light).item() == pytest.approx(shade(seen[None], light).mean().item(), abs=1e-3)
    assert brightness_prior(ambient(BRIGHTNESS)).item() == pytest.approx(0, abs=1e-9)
    assert brightness_prior(ambient(BRIGHTNESS - 2 * EXPOSURE)).item() == pytest.approx(4, rel=1e-4)


def test_a_jaw_that_only_opens_is_free():
    face = small_head().mean_parameters()
    face.pose[0, 3:] = torch.tensor([0.4, 0, 0])
    assert jaw_prior(face).item() == 0
    face.pose[0, 4] = 2 * JAW_SIDEWAYS
    assert jaw_prior(face).item() == pytest.approx(4)


def test_blendshapes_become_components_of_the_same_name_and_the_jaws_angle():
    seen = torch.zeros(52)
    for name in ("mouthSmileLeft", "jawOpen"):
        seen[BLENDSHAPES.index(name)] = 0.5
    expected = expected_expression(seen, [*NAMES[:3], "expression 4"], 4)
    offset, slope, spread = SEEN["mouthSmileLeft"]
    smile = offset + 0.5 * slope
    assert expected.value.tolist() == pytest.approx([smile, max(offset, 0), 0, 0, 0.026 + 0.5 * 0.465])
    assert expected.spread.isfinite().tolist() == [True, True, False, False, True]
    assert not expected_expression(seen, ["jawOpen", "cheekPuff"], 2).spread.isfinite().any()
    face = expected.start(small_head().mean_parameters())
    assert face.expression[0, 0].item() == pytest.approx(smile) and face.pose[0, 3] > 0.2
    assert expected.surprise(face).item() == pytest.approx(0, abs=1e-9)
    face.expression[0, 0] += 2 * spread
    face.expression[0, 3] = 5.0  # nothing is known of it
    assert expected.surprise(face).item() == pytest.approx(4, rel=1e-4)


def test_one_wrong_landmark_makes_no_crooked_mouth():
    head = named_head()
    target = target_of(head)
    target.landmarks[48] += torch.tensor([0.0, -4.0])
    crooked = {w: fitted(head, target, crooked=w).expression[0] for w in (0.0, 10.0)}
    spread = [float((e[0] - e[1]).abs()) for e in (crooked[0.0], crooked[10.0])]
    assert spread[1] < 0.5 * spread[0]


def test_a_landmark_that_is_far_off_pulls_no_harder_than_others():
    head = named_head()
    target = target_of(head)
    truth = target.landmarks.clone()
    target.landmarks[8] += 20.0
    errors = []
    for delta in (0.0, 2.0):
        shown = render(head, fitted(head, target, landmark_delta=delta), SIZE).landmarks[0]
        errors.append(float((shown - truth).norm(dim=1).mean()))
    assert errors[1] < 0.7 * errors[0]


def test_a_bar_across_the_face_does_not_darken_it():
    head = named_head()
    target = target_of(head)
    clean, bar = target.image.clone(), int(target.landmarks[27:31, 1].mean())
    target.image[:, bar - 4 : bar + 4] = 0
    errors = []
    for delta in (0.0, 0.3):
        shown = render(head, fitted(head, target, pixel_delta=delta), SIZE)
        mask = (target.skin_mask * shown.skin_mask[0])[None]
        errors.append(float(photometric_error(clean[None], shown.image, mask)))
    assert errors[1] < 0.9 * errors[0]


def test_a_green_cheek_is_not_explained_by_green_light():
    head = named_head()
    target = target_of(head)
    target.image[1, :, : SIZE // 2] *= 1.3
    coloring = []
    for weight in (0.0, 10.0):
        bands = fitted(head, target, color=weight).lighting.view(9, 3)
        coloring.append(float((bands - bands.mean(1, keepdim=True)).norm()))
    assert coloring[1] < 0.3 * coloring[0]


def test_what_a_network_saw_of_the_expression_pulls_the_fit_there():
    head = named_head()
    target = target_of(head)
    seen = torch.zeros(52)
    for side in ("Left", "Right"):
        seen[BLENDSHAPES.index(f"mouthSmile{side}")] = 0.9
    expected = expected_expression(seen, NAMES, 4)
    smiles = [fitted(head, target, e, expected=5.0).expression[0, :2].mean() for e in (None, expected)]
    assert smiles[1] > smiles[0] + 0.05


def test_what_is_not_skin_counts_half_within_the_face_and_not_beside_it():
    landmarks = target_of(named_head()).landmarks
    blue, skin = (
        torch.zeros(3, SIZE, SIZE),
        torch.tensor([0.8, 0.6, 0.5])[:, None, None].expand(3, SIZE, SIZE),
    )
    blue[2] = 1
    middle = landmarks[30].int().tolist()
    weights = evidence(blue, landmarks)
    assert weights[middle[1], middle[0]] == WITHIN and weights[0, 0] < 0.01
    assert 0.1 < float((weights == WITHIN).float().mean()) < 0.9
    assert float(evidence(skin, landmarks).min()) > 0.8

"""The objective: its sum, its parts, and gradients through a real rendering."""

from dataclasses import replace

import pytest
import torch
from small_head import small_head

from facegpt.errors import SampleError
from facegpt.head.parameters import FaceParameters
from facegpt.losses.landmark import landmark_loss
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.losses.pixel import pixel_loss
from facegpt.losses.regularization import regularization
from facegpt.perception.recognizer import Recognizer
from facegpt.perception.tiny_network import TinyNetwork
from facegpt.render.renderer import render
from facegpt.sample import FaceTargets

SIZE = 48


@pytest.fixture(scope="module")
def head():
    return small_head()


@pytest.fixture(scope="module")
def recognizer():
    torch.manual_seed(0)
    return Recognizer(TinyNetwork(folded=True))


def parameters_of(head, seed: int) -> FaceParameters:
    random = torch.Generator().manual_seed(seed)
    parameters = head.mean_parameters(2)
    return parameters.replace(shape=torch.randn(parameters.shape.shape, generator=random))


def targets_of(head, parameters: FaceParameters) -> FaceTargets:
    rendering = render(head, parameters, SIZE)
    return FaceTargets(rendering.image, rendering.landmarks, rendering.mask, parameters.to_vector())


def test_sum_is_the_weighted_sum_of_the_parts(head, recognizer):
    weights = ObjectiveWeights(parameters=0.3)
    parameters, truth = parameters_of(head, 1), parameters_of(head, 2)
    targets, rendering = targets_of(head, truth), render(head, parameters, SIZE)
    loss, parts = FaceObjective(weights, recognizer, head.layout)(rendering, parameters, targets)
    assert list(parts) == ["pixel", "perceptual", "landmark", "regularization", "parameters"]
    assert loss.shape == (2,)
    expected = 0.5 * parts["pixel"] + 0.25 * parts["perceptual"] + 5e-4 * parts["landmark"]
    expected = expected + 0.1 * parts["regularization"] + 0.3 * parts["parameters"]
    assert torch.allclose(loss, expected)
    mask = targets.skin_mask * rendering.skin_mask
    assert torch.equal(parts["pixel"], pixel_loss(targets.image, rendering.image, mask))
    assert torch.equal(parts["landmark"], landmark_loss(rendering.landmarks, targets.landmarks, SIZE))
    assert torch.equal(parts["regularization"], regularization(parameters))
    squared = (parameters.to_vector() - truth.to_vector()) ** 2
    assert torch.allclose(parts["parameters"], squared.mean(1))


def test_truth_costs_only_its_distance_from_the_mean(head, recognizer):
    truth = parameters_of(head, 3)
    objective = FaceObjective(ObjectiveWeights(parameters=1.0), recognizer, head.layout)
    loss, _ = objective(render(head, truth, SIZE), truth, targets_of(head, truth))
    assert torch.allclose(loss, 0.1 * regularization(truth), atol=1e-6)


def test_landmarks_that_were_not_given_change_no_part(head, recognizer):
    parameters, targets = parameters_of(head, 1), targets_of(head, parameters_of(head, 2))
    targets.landmark_valid = (torch.arange(68) >= 17).expand(2, 68)
    rendering = render(head, parameters, SIZE)
    objective = FaceObjective(ObjectiveWeights(), recognizer, head.layout)
    before = objective(rendering, parameters, targets)[0]
    targets.landmarks = targets.landmarks.clone()
    targets.landmarks[:, :17] = 1e4
    assert torch.equal(objective(rendering, parameters, targets)[0], before)


def test_descent_approaches_the_truth(head, recognizer):
    truth = parameters_of(head, 4)
    targets = targets_of(head, truth)
    objective = FaceObjective(ObjectiveWeights(regularization=0.0), recognizer, head.layout)
    guess = head.mean_parameters(2)
    shape = guess.shape.clone().requires_grad_()
    optimizer = torch.optim.Adam([shape], lr=0.1)
    history = []
    for _ in range(25):
        parameters = guess.replace(shape=shape)
        loss = objective(render(head, parameters, SIZE), parameters, targets)[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.item(), (shape.detach() - truth.shape).norm().item()))
    (first_loss, first_distance), (last_loss, last_distance) = history[0], history[-1]
    assert last_loss < 0.1 * first_loss
    assert last_distance < 0.85 * first_distance  # depth is seen by shading alone, and needs longer


def test_parts_without_weight_are_not_computed(head):
    parameters = parameters_of(head, 5)
    objective = FaceObjective(ObjectiveWeights(perceptual=0, parameters=0), None, head.layout)
    _, parts = objective(render(head, parameters, SIZE), parameters, targets_of(head, parameters))
    assert "perceptual" not in parts and "parameters" not in parts


def test_bad_input_is_named(head):
    with pytest.raises(ValueError, match="recogniser"):
        FaceObjective(ObjectiveWeights(), None, head.layout)
    parameters = parameters_of(head, 6)
    targets, rendering = targets_of(head, parameters), render(head, parameters, SIZE)
    objective = FaceObjective(ObjectiveWeights(perceptual=0, parameters=1), None, head.layout)
    for broken in (None, targets.parameters[:, :-1]):
        with pytest.raises(SampleError, match="true parameters"):
            objective(rendering, parameters, replace(targets, parameters=broken))
    with pytest.raises(ValueError, match="as many faces"):
        objective(render(head, parameters, SIZE // 2), parameters, targets)

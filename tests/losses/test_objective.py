"""The objective: its sum, its parts, and gradients through a real rendering."""

from dataclasses import replace

import pytest
import torch
from small_head import small_head
from torch import nn

from facegpt.errors import ConfigError, SampleError
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import PARAMETER_SPREADS, FaceObjective, ObjectiveWeights
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


class MeanColor(nn.Module):
    """Features that anybody can compute: the mean color, whose direction black borders do not change."""

    def forward(self, x):
        return (x / 2 + 0.5).mean(dim=(2, 3))


def flat(*colors) -> torch.Tensor:
    return torch.tensor(colors)[:, :, None, None].expand(-1, 3, SIZE, SIZE)


def test_every_part_and_their_sum_are_what_pencil_and_paper_say(head):
    """Two flat pictures of known colors, masks, landmarks and parameters."""
    half = torch.arange(SIZE) < SIZE // 2
    left, top = half.float().expand(2, SIZE, SIZE), half.float()[:, None].expand(2, SIZE, SIZE)
    face = torch.zeros(68, 2)
    eyes, nose, mouth = ((0.34, 0.46), (0.66, 0.46)), (0.5, 0.64), ((0.37, 0.82), (0.63, 0.82))
    face[[36, 39, 42, 45, 30, 48, 54]] = torch.tensor([eyes[0], eyes[0], eyes[1], eyes[1], nose, *mouth])
    landmarks = SIZE * face.expand(2, 68, 2)
    parameters = head.mean_parameters(2)
    sizes = parameters.layout.sizes
    parameters = parameters.replace(
        shape=torch.tensor([[2.0], [0.0]]).expand(2, sizes["shape"]),
        expression=torch.tensor([[1.0], [3.0]]).expand(2, sizes["expression"]),
    )
    spreads = [torch.tensor(PARAMETER_SPREADS[name]).expand(size) for name, size in sizes.items()]
    truth = parameters.to_vector() + torch.tensor([[0.5], [-1.0]]) * torch.cat(spreads)
    targets = FaceTargets(flat((0.6, 0.2, 0.3), (0.8, 0.0, 0.6)), landmarks, 0.5 * left, truth)
    rendering = replace(
        render(head, parameters, SIZE),
        image=flat((0.5, 0.4, 0.1), (0.8, 0.0, 0.0)),
        skin_mask=top,
        landmarks=landmarks + torch.tensor([[[3.0, 0.0]], [[0.0, -1.5]]]),
    )
    objective = FaceObjective(ObjectiveWeights(parameters=0.3), Recognizer(MeanColor()), head.layout)
    loss, parts = objective(rendering, parameters, targets)
    squared_weights = (57 * 1 + 11 * 400) / 68  # of 68 landmarks, 11 weigh 20 inside the square
    expected = {
        "pixel": (0.5**2 * 0.09 / 0.5, 0.5**2 * 0.36 / 0.5),
        "perceptual": (1 - 0.41 / (0.7 * 0.42**0.5), 1 - 0.64 / 0.8),
        # 3 and 1.5 of 48 pixels are 14 and 7 of 224, in one of two coordinates
        "landmark": (14**2 / 2 * squared_weights, 7**2 / 2 * squared_weights),
        "regularization": (
            (4 * sizes["shape"] + sizes["expression"]) / 224,
            9 * sizes["expression"] / 224,
        ),
        "parameters": (0.25, 1.0),
    }
    assert list(parts) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], torch.tensor(value), rtol=1e-5, atol=1e-6)
    weights = {"pixel": 0.5, "perceptual": 0.25, "landmark": 5e-4, "regularization": 0.1, "parameters": 0.3}
    total = [sum(weights[name] * value[face] for name, value in expected.items()) for face in (0, 1)]
    torch.testing.assert_close(loss, torch.tensor(total), rtol=1e-5, atol=1e-6)


def test_truth_costs_only_its_distance_from_the_mean(head, recognizer):
    truth = parameters_of(head, 3)
    objective = FaceObjective(ObjectiveWeights(parameters=1.0), recognizer, head.layout)
    loss, _ = objective(render(head, truth, SIZE), truth, targets_of(head, truth))
    prior = truth.shape.square().sum(dim=1) / 224  # the other groups are at their mean
    assert torch.allclose(loss, 0.1 * prior, atol=1e-6)


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
    with pytest.raises(ConfigError, match="no recogniser"):
        FaceObjective(ObjectiveWeights(), None, head.layout)
    parameters = parameters_of(head, 6)
    targets, rendering = targets_of(head, parameters), render(head, parameters, SIZE)
    objective = FaceObjective(ObjectiveWeights(perceptual=0, parameters=1), None, head.layout)
    for broken in (None, targets.parameters[:, :-1]):
        with pytest.raises(SampleError, match="true parameters"):
            objective(rendering, parameters, replace(targets, parameters=broken))
    with pytest.raises(ValueError, match="as many faces"):
        objective(render(head, parameters, SIZE // 2), parameters, targets)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Conv2d(1, 8, 112), "cannot read aligned RGB faces of 112 x 112"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 8)), "cannot read aligned RGB faces"),
        (nn.Conv2d(3, 8, 112), r"gives \(1, 8, 1, 1\)"),
        (nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, -1))), r"gives \(2, 18816\)"),
    ],
)
def test_a_recognizer_of_another_input_is_found_at_once(head, network, message):
    with pytest.raises(ConfigError, match=message):
        FaceObjective(ObjectiveWeights(), Recognizer(network), head.layout)
    FaceObjective(ObjectiveWeights(perceptual=0), Recognizer(network), head.layout)


def test_a_recognizer_of_broken_weights_is_found_at_once(head):
    network = TinyNetwork(folded=True)
    network.head.conv.bias.data.fill_(torch.nan)
    with pytest.raises(ConfigError, match="finite features"):
        FaceObjective(ObjectiveWeights(), Recognizer(network), head.layout)

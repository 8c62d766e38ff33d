"""Each face loss against a value worked out by hand, and its gradient against finite differences."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.losses.landmark import landmark_loss, landmark_weights
from facegpt.losses.perceptual import perceptual_loss
from facegpt.losses.pixel import pixel_loss
from facegpt.losses.regularization import regularization
from facegpt.perception.recognizer import Recognizer
from facegpt.perception.tiny_network import TinyNetwork

LAYOUT = ParameterLayout(shape=3, expression=2, albedo=2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def landmarks(count: int, size: int, dtype=torch.float64) -> torch.Tensor:
    """Random landmarks with the five alignment points where a frontal face has them."""
    points = torch.rand(count, 68, 2, generator=generator(3), dtype=dtype)
    where = {36: (0.3, 0.4), 39: (0.42, 0.4), 42: (0.58, 0.4), 45: (0.7, 0.4)}
    where |= {30: (0.5, 0.55), 48: (0.37, 0.7), 54: (0.63, 0.7)}
    for index, position in where.items():
        points[:, index] = torch.tensor(position, dtype=dtype)
    return points * size


def test_pixel_loss_by_hand():
    image, rendering = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    image[0, :, 0, 0] = torch.tensor([0.3, 0.4, 1.2])  # squared norm 0.09 + 0.16 + 1.44
    image[0, :, 1, 1] = 1.0  # outside the mask
    rendering[1, :, 0, 1] = torch.tensor([0.0, 2.0, 0.0])
    mask = torch.zeros(2, 2, 2)
    mask[0, 0] = torch.tensor([1.0, 0.5])
    mask[1, 0] = torch.tensor([1.0, 0.5])
    # face 0: 1.69 over 1.5; face 1: (0.5 * 2)^2 over 1.5
    assert torch.allclose(pixel_loss(image, rendering, mask), torch.tensor([1.69, 1.0]) / 1.5)


def test_pixel_loss_of_a_nearly_empty_mask_is_not_blown_up():
    image, rendering, mask = torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4)
    assert pixel_loss(image, rendering, mask).item() == 0
    mask[0, 0, 0] = 0.1
    assert math.isclose(pixel_loss(image, rendering, mask).item(), 3 * 0.1**2, rel_tol=1e-6)


def test_pixel_loss_does_not_depend_on_other_faces():
    random = generator()
    image, rendering = torch.rand(3, 3, 8, 8, generator=random), torch.rand(3, 3, 8, 8, generator=random)
    mask = torch.rand(3, 8, 8, generator=random) * torch.tensor([1.0, 0.1, 0.5])[:, None, None]
    together = pixel_loss(image, rendering, mask)
    alone = torch.cat([pixel_loss(image[k : k + 1], rendering[k : k + 1], mask[k : k + 1]) for k in range(3)])
    assert torch.allclose(together, alone)


def test_pixel_loss_gradient():
    random = generator()
    image = torch.rand(2, 3, 3, 3, dtype=torch.float64, generator=random)
    rendering = torch.rand(2, 3, 3, 3, dtype=torch.float64, generator=random, requires_grad=True)
    mask = torch.rand(2, 3, 3, dtype=torch.float64, generator=random)
    assert gradcheck(lambda r: pixel_loss(image, r, mask), rendering)
    soft = mask.clone().requires_grad_()
    pixel_loss(image, rendering, soft).sum().backward()
    assert soft.grad is None  # the mask is a constant


def test_landmark_weights_emphasize_nose_ridge_and_inner_lips():
    emphasized = torch.where(landmark_weights() == 20)[0].tolist()
    assert emphasized == [28, 29, 30, *range(60, 68)]
    assert landmark_weights().sum() == 57 + 11 * 20


def test_landmark_loss_by_hand():
    target = torch.zeros(3, 68, 2)
    predicted = target.clone()
    predicted[0, 5] = torch.tensor([3.0, 4.0])  # 9 + 16
    predicted[1, 62, 1] = 0.5  # (20 * 0.5)^2
    expected = torch.tensor([25.0, 100.0, 0.0]) / 136
    assert torch.allclose(landmark_loss(predicted, target, 224), expected)
    # at half the size a pixel is worth two
    assert torch.allclose(landmark_loss(predicted, target, 112), 4 * expected)


def test_landmarks_that_were_not_given_weigh_nothing():
    generator = torch.Generator().manual_seed(3)
    predicted = torch.rand(3, 68, 2, generator=generator, dtype=torch.float64) * 224
    target = torch.rand(3, 68, 2, generator=generator, dtype=torch.float64) * 224
    valid = torch.ones(3, 68, dtype=torch.bool)
    valid[1, :17] = False
    valid[2] = False
    weights = landmark_weights(dtype=torch.float64)[17:, None]
    inner = (weights * (predicted - target)[1, 17:]).square().mean()
    loss = landmark_loss(predicted.requires_grad_(), target, 224, valid)
    assert torch.allclose(loss[0], landmark_loss(predicted, target, 224)[0])
    assert torch.allclose(loss[1], inner) and loss[2] == 0
    loss.sum().backward()
    assert predicted.grad[1, :17].abs().max() == 0 and predicted.grad[1, 17:].abs().min() > 0
    assert torch.isfinite(predicted.grad).all()


def test_landmark_loss_gradient():
    predicted = torch.randn(2, 68, 2, dtype=torch.float64, generator=generator()).requires_grad_()
    target = torch.randn(2, 68, 2, dtype=torch.float64, generator=generator(1))
    assert gradcheck(lambda p: landmark_loss(p, target, 112), predicted)


def test_robust_landmark_loss_by_hand():
    target = torch.zeros(4, 68, 2, dtype=torch.float64)
    predicted = target.clone()
    predicted[0, 5] = torch.tensor([3.0, 4.0])  # distance 5
    predicted[1, 62, 1] = 1.5
    predicted[2, 5, 0] = -1e4
    # delta 12: 2 * 144 * (13 / 12 - 1) = 24; delta 2: 400 * 8 * (1.25 - 1)
    assert landmark_loss(predicted, target, 224, delta=12.0)[0].item() == pytest.approx(24 / 136)
    assert landmark_loss(predicted, target, 224, delta=2.0)[1].item() == pytest.approx(800 / 136)
    assert landmark_loss(predicted, target, 224, delta=2.0)[2].item() == pytest.approx(4e4 / 136, rel=1e-3)
    assert landmark_loss(predicted / 2, target / 2, 112, delta=12.0)[0].item() == pytest.approx(24 / 136)


def test_robust_landmark_loss_is_the_square_in_the_limit():
    predicted, target = landmarks(3, 224), landmarks(3, 224).flip(1)
    valid = torch.rand(3, 68, generator=generator()) < 0.8
    for given in (None, valid):
        square = landmark_loss(predicted, target, 224, given)
        assert torch.allclose(landmark_loss(predicted, target, 224, given, delta=1e6), square, rtol=1e-8)
        assert (landmark_loss(predicted, target, 224, given, delta=5.0) < square).all()


def test_robust_landmark_loss_has_a_bounded_gradient():
    random = generator()
    target = torch.randn(2, 68, 2, dtype=torch.float64, generator=random)
    predicted = (target + 3 * torch.randn(2, 68, 2, dtype=torch.float64, generator=random)).requires_grad_()
    assert gradcheck(lambda p: landmark_loss(p, target, 112, delta=2.0), predicted)
    # Where all agree there is no kink: the gradient is 0, not NaN.
    (gradient,) = torch.autograd.grad(
        landmark_loss(predicted, predicted.detach(), 224, delta=2.0).sum(), predicted
    )
    assert torch.equal(gradient, torch.zeros_like(gradient))
    far = (1e5 * torch.randn(2, 68, 2, dtype=torch.float64, generator=random)).requires_grad_()
    (gradient,) = torch.autograd.grad(landmark_loss(far, target, 224, delta=2.0).sum(), far)
    bound = 2 * 2.0 * landmark_weights(dtype=torch.float64).square() / 136
    assert (gradient.norm(dim=-1) <= bound).all() and (gradient.norm(dim=-1) > 0.99 * bound).all()


def test_regularization_by_hand():
    parameters = FaceParameters.mean(LAYOUT, batch=2)
    parameters.shape[1] = torch.tensor([1.0, -2.0, 0.0])
    parameters.expression[1] = torch.tensor([0.5, 0.0])
    parameters.albedo[1] = torch.tensor([0.0, 3.0])
    parameters.pose[1] = 7.0  # pose, camera and lighting are free
    parameters.camera[1] = 7.0
    parameters.lighting[1] = 7.0
    assert torch.allclose(regularization(parameters), torch.tensor([0.0, (1 + 4 + 0.25 + 9) / 224]))


def test_regularization_gradient():
    vector = torch.randn(2, LAYOUT.total, dtype=torch.float64, generator=generator()).requires_grad_()
    assert gradcheck(lambda v: regularization(FaceParameters.from_vector(v, LAYOUT)), vector)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(TinyNetwork(folded=True)).double()


def test_perceptual_loss_of_an_image_with_itself_is_zero(recognizer):
    image = torch.rand(2, 3, 64, 64, dtype=torch.float64, generator=generator())
    points = landmarks(2, 64)
    loss = perceptual_loss(recognizer, image, points, image, points)
    assert torch.allclose(loss, torch.zeros(2, dtype=torch.float64), atol=1e-12)
    other = image.flip(2)
    assert (perceptual_loss(recognizer, image, points, other, points) > 1e-4).all()


def test_perceptual_loss_aligns_each_image_by_its_own_landmarks(recognizer):
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=generator())
    image[..., 56:] = 0  # so that rolling moves in what lies outside: black
    points = landmarks(1, 64)
    moved, moved_points = image.roll(8, dims=-1), points + torch.tensor([8.0, 0.0], dtype=torch.float64)
    same = perceptual_loss(recognizer, image, points, moved, moved_points)
    wrong = perceptual_loss(recognizer, image, points, moved, points)
    assert same < 1e-12 < 1e-3 < wrong


def test_perceptual_loss_gradient_reaches_the_rendering_only(recognizer):
    random = generator()
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=random, requires_grad=True)
    rendering = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=random, requires_grad=True)
    points, predicted = landmarks(1, 64).requires_grad_(), landmarks(1, 64).add(0.7).requires_grad_()
    perceptual_loss(recognizer, image, points, rendering, predicted).sum().backward()
    assert image.grad is None and points.grad is None and predicted.grad is None
    assert all(p.grad is None for p in recognizer.parameters())
    # central difference along a random direction
    direction = torch.randn(rendering.shape, dtype=torch.float64, generator=random)
    with torch.no_grad():
        step = 1e-6 * direction
        high = perceptual_loss(recognizer, image, points, rendering + step, predicted)
        low = perceptual_loss(recognizer, image, points, rendering - step, predicted)
    slope = ((high - low) / 2e-6).item()
    assert math.isclose((rendering.grad * direction).sum().item(), slope, rel_tol=1e-4)

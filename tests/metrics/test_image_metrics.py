"""Landmark and photometric errors by hand."""

import math

import torch

from facegpt.metrics.image import landmark_error, photometric_error


def test_landmark_error_is_the_mean_distance_at_224():
    target = torch.zeros(2, 68, 2)
    predicted = target.clone()
    predicted[0] = torch.tensor([3.0, 4.0])
    predicted[1, :34, 0] = 1.0
    assert torch.allclose(landmark_error(predicted, target, 224), torch.tensor([5.0, 0.5]))
    assert torch.allclose(landmark_error(predicted, target, 56), torch.tensor([20.0, 2.0]))
    valid = torch.arange(68).expand(2, 68) >= 17  # the contour was not given
    assert torch.allclose(landmark_error(predicted, target, 224, valid), torch.tensor([5.0, 17 / 51]))
    assert landmark_error(predicted, target, 224, valid & False).isnan().all()


def test_photometric_error_is_the_masked_mean_of_color_distances():
    image, rendering = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    image[0, :, 0, 0] = torch.tensor([0.2, 0.3, 0.6])  # norm 0.7
    rendering[0, :, 0, 1] = torch.tensor([0.0, 0.4, 0.3])  # norm 0.5
    image[0, :, 1, 1] = 1.0  # not in the mask
    mask = torch.tensor([[[1.0, 0.5], [0.5, 0.0]]])
    assert torch.allclose(photometric_error(image, rendering, mask), torch.tensor([(0.7 + 0.25) / 2]))
    white = torch.ones(1, 3, 2, 2)
    assert math.isclose(photometric_error(white, 0 * white, mask).item(), math.sqrt(3), rel_tol=1e-6)


def test_a_face_that_was_not_compared_is_not_perfect():
    image = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 4, 4)
    mask[0] = 0
    error = photometric_error(image, image, mask)
    assert error[0].isnan() and error[1] == 0

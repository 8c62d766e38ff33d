"""Sizes and landmarks with which no photograph can be fitted are refused before any work."""

import pytest
import torch
from small_head import small_head

from facegpt.errors import ConfigError, LandmarkError
from facegpt.fitting.photograph import check_fit_size, fit_face
from facegpt.fitting.start import place_head
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.sample import FaceTarget


@pytest.mark.parametrize("size", [0, 1, 31, 2049])
def test_sizes_without_pixels_or_without_end_are_refused(size):
    head = small_head()
    objective = FaceObjective(ObjectiveWeights(perceptual=0.0), None, head.layout)
    pixels = torch.zeros(1, 1, 1).expand(3, size, size)
    target = FaceTarget(pixels, size * torch.rand(68, 2), pixels[0])
    with pytest.raises(ConfigError, match=f"fitted at {size} pixels: choose a size from 32 to 2048"):
        fit_face(head, target, objective)


def test_the_usual_size_is_allowed():
    check_fit_size(224)


@pytest.mark.parametrize("value", [1e20, -3e38, float("nan"), float("inf")])
@pytest.mark.parametrize("count", [1, 68])
def test_landmarks_far_from_the_image_place_no_head(value, count):
    landmarks = 64 * torch.rand(68, 2, generator=torch.Generator().manual_seed(0))
    landmarks[-count:] *= value
    with pytest.raises(LandmarkError, match="far from the image"):
        place_head(small_head(), landmarks, 64)

"""The errors of landmarks have the stated size, and are shared within regions and along the jaw."""

from __future__ import annotations

import math

import pytest
import torch

from facegpt.standins.detector import REGIONS, detector_noise


@pytest.fixture(scope="module")
def errors():
    """Errors (20000,68,2) of 2 pixels at landmarks whose jaw is a half circle."""
    landmarks = torch.zeros(20_000, 68, 2)
    turn = torch.linspace(0, math.pi, 17)
    landmarks[:, :17] = 100 * torch.stack([-torch.cos(turn), torch.sin(turn)], dim=1)
    return detector_noise(landmarks, 2.0, torch.Generator().manual_seed(0)) - landmarks


def test_errors_are_as_large_as_said(errors):
    assert errors.mean(0).abs().max() < 0.1
    assert torch.allclose(errors[:, 17:].std(0), torch.tensor(2.0), rtol=0.05)


def test_half_of_the_variance_is_common_to_a_region(errors):
    """Correlation 0.5 between points of a region, 0 between points of two and between the axes."""
    table = torch.corrcoef(errors[:, 17:].flatten(1).T)
    region = torch.cat([torch.full((end - start,), k) for k, (start, end) in enumerate(REGIONS)])[17:]
    region, axis = region.repeat_interleave(2), torch.arange(102) % 2
    same = (region[:, None] == region) & (axis[:, None] == axis)
    expected = 0.5 * same.float() + 0.5 * torch.eye(102)
    assert torch.allclose(table, expected, atol=0.05)


def test_the_jaw_is_twice_as_uncertain_along_its_contour(errors):
    turn = torch.linspace(0, math.pi, 17)[1:-1]
    along = torch.stack([torch.sin(turn), torch.cos(turn)], dim=1)
    across = torch.stack([-torch.cos(turn), torch.sin(turn)], dim=1)
    jaw = errors[:, 1:16]
    assert torch.allclose((jaw * across).sum(-1).std(0), torch.tensor(2.0), rtol=0.05)
    assert torch.allclose((jaw * along).sum(-1).std(0), torch.tensor(4.0), rtol=0.05)
    neighbors = torch.corrcoef((jaw * along).sum(-1).T).diagonal(1)
    assert torch.allclose(neighbors, torch.tensor(0.5), atol=0.05)


def test_a_seed_gives_the_same_errors_and_the_truth_is_left_alone():
    landmarks = torch.rand(3, 68, 2)
    before = landmarks.clone()
    one, two = (detector_noise(landmarks, 1.0, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(landmarks, before)
    assert torch.equal(detector_noise(landmarks, 0.0, torch.Generator().manual_seed(4)), landmarks)

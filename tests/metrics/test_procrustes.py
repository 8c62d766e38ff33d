"""Alignment of matching points against scipy, and what must not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from facegpt.metrics.procrustes import aligned, procrustes


def test_a_known_similarity_is_recovered_and_points_outside_the_choice_follow() -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(4, 30, 3, dtype=torch.float64, generator=generator)
    turn = torch.from_numpy(Rotation.random(4, rng=1).as_matrix())
    scale, shift = torch.tensor([0.5, 1.0, 2.0, 1000.0]), torch.randn(4, 3, generator=generator)
    target = scale[:, None, None] * source @ turn.mT + shift[:, None]
    found = procrustes(source, target, free_scale=True)
    for one, other in zip(found, (scale, turn, shift), strict=True):
        assert torch.allclose(one, other.double(), atol=1e-9)
    by = torch.arange(30) < 7
    assert torch.allclose(aligned(source, target, by, free_scale=True), target, atol=1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_rotation_is_scipys_and_never_a_reflection(mirrored: bool) -> None:
    random = np.random.default_rng(0)
    source, target = random.normal(size=(2, 12, 3))
    if mirrored:
        target = source * [-1, 1, 1]
    _, rotation, shift = procrustes(torch.from_numpy(source)[None], torch.from_numpy(target)[None])
    expected = Rotation.align_vectors(target - target.mean(0), source - source.mean(0))[0].as_matrix()
    assert np.allclose(rotation[0], expected, atol=1e-9) and torch.linalg.det(rotation)[0] > 0
    assert np.allclose(shift[0], target.mean(0) - expected @ source.mean(0))

"""Chamfer distance, complete rate and ICP on surfaces with known answers."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from facegpt.metrics.icp import icp
from facegpt.metrics.surface import chamfer, complete_rate


def test_chamfer_by_hand():
    """Three points against one, in metres; the answer in millimetres."""
    prediction = np.array([[0.0, 0, 0], [0.003, 0, 0], [0, 0.006, 0]])
    truth = np.array([[0.001, 0, 0]])
    # prediction -> truth: 1, 2, sqrt(37) mm; truth -> prediction: 1 mm
    expected = (1 + 2 + np.sqrt(37)) / 3 + 1
    assert np.isclose(chamfer(prediction, truth), expected)
    assert np.isclose(chamfer(truth, prediction), expected)
    assert chamfer(truth, truth) == 0


def test_chamfer_equals_brute_force():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(60, 3)), random.normal(size=(90, 3))
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = 1000 * (distances.min(1).mean() + distances.min(0).mean())
    assert np.isclose(chamfer(a, b), expected)


def test_complete_rate_goes_from_truth_to_prediction():
    truth = np.array([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]])
    part = truth[:1] + np.array([0, 0.009, 0])
    assert complete_rate(part, truth) == 25  # only one true point is covered
    assert complete_rate(truth, part) == 100
    assert complete_rate(part, truth, threshold=8.9) == 0
    assert complete_rate(part, part + np.array([0, 0.0101, 0])) == 0


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.zeros((4, 2)), np.full((4, 3), np.nan)])
def test_impossible_point_sets_are_refused(points):
    with pytest.raises(ValueError, match="finite points"):
        chamfer(points, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="finite points"):
        complete_rate(np.zeros((1, 3)), points)


def bumpy_cap(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Points (N,3) in metres and unit normals of a face-sized height field z(x, y)."""
    x, y = np.random.default_rng(seed).uniform(-0.08, 0.08, (2, count))
    nose = 0.02 * np.exp(-(x**2 + y**2) / 0.015**2)
    z = nose + 0.01 * np.sin(40 * x + 15 * y) - 6 * x**2 - 3 * y**2
    dx = -2 * x / 0.015**2 * nose + 0.4 * np.cos(40 * x + 15 * y) - 12 * x
    dy = -2 * y / 0.015**2 * nose + 0.15 * np.cos(40 * x + 15 * y) - 6 * y
    normals = np.stack([-dx, -dy, np.ones_like(x)], 1)
    points = np.stack([x, y, z], 1) + np.array([0.2, 1.5, -0.3])  # where FLAME's older template lies
    return points, normals / np.linalg.norm(normals, axis=1, keepdims=True)


TURN = Rotation.from_euler("xyz", [5, -7, 4], degrees=True).as_matrix()
SHIFT = np.array([0.004, -0.006, 0.01])


def test_icp_recovers_a_rigid_motion_exactly():
    target, normals = bumpy_cap(0)
    source = (target - SHIFT) @ TURN  # so that TURN @ source + SHIFT is the target
    found = icp(source, target, normals)
    assert np.allclose(found.rotation, TURN, atol=1e-6) and np.allclose(found.translation, SHIFT, atol=1e-6)
    assert found.scale == 1 and found.residual < 1e-8 and found.iterations < 30
    assert np.allclose(found.apply(source), target, atol=1e-7)


def test_icp_with_scale_recovers_a_similarity():
    target, normals = bumpy_cap(0)
    source = (target - SHIFT) @ TURN / 1.07
    found = icp(source, target, normals, free_scale=True)
    assert np.isclose(found.scale, 1.07, atol=1e-6)
    assert np.allclose(found.apply(source), target, atol=1e-6)
    rigid = icp(source, target, normals)
    assert rigid.scale == 1 and rigid.residual > 1e-4


def test_icp_of_another_sampling_of_the_surface_lands_within_the_sampling():
    target, normals = bumpy_cap(0)
    source = (bumpy_cap(1, 1500)[0] - SHIFT) @ TURN
    found = icp(source, target, normals)
    angle = Rotation.from_matrix(found.rotation @ TURN.T).magnitude()
    assert np.degrees(angle) < 0.3
    assert np.linalg.norm(found.apply(source) - (source @ TURN.T + SHIFT), axis=1).max() < 0.5e-3
    assert found.residual < 0.5e-3

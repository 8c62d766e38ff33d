"""The nearest place of a surface, found once and found alike on every processor."""

import numpy as np

from facegpt.head.nearest import nearest_points


def test_nearest_points_against_a_dense_sampling():
    random = np.random.default_rng(0)
    corners = random.normal(size=(20, 3, 3))
    points = random.normal(size=(30, 3))
    row, weights, distance = nearest_points(corners, points)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert (weights >= 0).all()
    found = (corners[row] * weights[..., None]).sum(1)
    np.testing.assert_allclose(np.linalg.norm(found - points, axis=1), distance)
    steps = np.linspace(0, 1, 60)
    grid = np.array([(1 - u - v, u, v) for u in steps for v in steps if u + v <= 1])
    sampled = np.einsum("gk,fkc->fgc", grid, corners).reshape(-1, 3)
    nearest = np.linalg.norm(points[:, None] - sampled, axis=2).min(1)
    assert (distance <= nearest + 1e-12).all() and (distance > nearest - 0.1).all()


def test_of_two_places_as_near_the_one_to_the_subjects_left_is_taken():
    right = np.array([[-2.0, 0, 0], [-1, 0, 0], [-1, 1, 0]])
    left = np.array([[1.0, 0, 0], [2, 0, 0], [1, 1, 0]])
    for corners in (np.stack([left, right]), np.stack([right, left])):
        for rounding in (-1e-13, 0, 1e-13):
            row, weights, distance = nearest_points(corners, np.array([[rounding, 0.5, 0]]))
            np.testing.assert_allclose((weights[..., None] * corners[row]).sum(1), [[1, 0.5, 0]], atol=1e-9)
            np.testing.assert_allclose(distance, 1, atol=1e-9)

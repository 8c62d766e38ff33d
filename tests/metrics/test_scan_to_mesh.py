"""Scan-to-mesh distances against closed forms and trimesh's of all pairs; alignments that are known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from small_head import small_head_data

from facegpt.metrics.icp import Alignment
from facegpt.metrics.scan_to_mesh import Surface, align_landmarks, refine, scan_distances

HERE = Alignment(1.0, np.eye(3), np.zeros(3), 0.0, 0)


def all_pairs(vertices: np.ndarray, triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances by trimesh's closest point of every point on every triangle."""
    every = np.repeat(vertices[triangles], len(points), axis=0)
    places = trimesh.triangles.closest_point(every, np.tile(points, (len(triangles), 1)))
    gaps = np.linalg.norm(places - np.tile(points, (len(triangles), 1)), axis=1)
    return gaps.reshape(len(triangles), -1).min(axis=0)


def test_distances_are_exact_for_triangles_of_very_different_sizes() -> None:
    random = np.random.default_rng(0)
    size = 10.0 ** random.uniform(-3, 1, (300, 1, 1))
    corners = random.normal(size=(300, 1, 3)) * 3 + size * random.normal(size=(300, 3, 3))
    corners[1] = corners[1, 0]  # a triangle that is a point
    points = random.normal(size=(200, 3)) * 3
    surface = Surface(corners.reshape(-1, 3), np.arange(900).reshape(-1, 3))
    others = np.delete(np.arange(900).reshape(-1, 3), 1, axis=0)
    expected = all_pairs(corners.reshape(-1, 3), others, points)
    point = np.linalg.norm(points - corners[1, 0], axis=1)  # trimesh takes no such triangle
    assert np.allclose(scan_distances(surface, points, HERE), np.minimum(expected, point), atol=1e-9)


def test_distances_to_a_square_are_those_of_geometry() -> None:
    square = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    surface = Surface(square, np.array([[0, 1, 2], [0, 2, 3]]))
    points = np.array([[0.3, 0.6, 0.5], [0.5, -2, 0], [4, 5, 0], [0.5, 0.5, 0]])
    assert scan_distances(surface, points, HERE) == pytest.approx([0.5, 2, 5, 0], abs=1e-15)


@pytest.mark.parametrize("free_scale", [True, False])
def test_a_moved_mesh_is_brought_back_to_its_scan(free_scale: bool) -> None:
    data = small_head_data()
    vertices = data.v_template.astype(np.float64) * 1000
    scan = vertices[vertices[:, 2] > 0.0]
    turn = Rotation.from_euler("xyz", [4, -6, 3], degrees=True).as_matrix()
    factor = 0.001 if free_scale else 1.0  # metres
    moved = factor * (vertices @ turn.T + [3, -2, 4])
    surface = Surface(moved, data.triangles)
    rough = align_landmarks(moved[:7] * 1.01, vertices[:7], free_scale)  # landmarks with an error
    fine = refine(surface, scan, rough, free_scale)
    assert scan_distances(surface, scan, rough).mean() > 0.05
    assert scan_distances(surface, scan, fine).max() < 1e-4
    assert fine.scale == pytest.approx(1 / factor, rel=1e-6)


def test_a_mesh_that_is_apart_everywhere_by_one_millimeter_is_so_after_alignment() -> None:
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=80.0)
    scan = trimesh.creation.icosphere(subdivisions=3, radius=81.0).vertices
    surface = Surface(sphere.vertices, sphere.faces)
    fixed = refine(surface, scan, HERE, free_scale=False)
    assert np.median(scan_distances(surface, scan, fixed)) == pytest.approx(1, abs=0.15)  # facets are flat
    free = refine(surface, scan, HERE, free_scale=True)
    assert np.median(scan_distances(surface, scan, free)) < 0.15
    assert free.scale == pytest.approx(81 / 80, rel=2e-3)


def test_a_surface_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs triangles"):
        Surface(np.zeros((3, 3)), np.zeros((0, 3), dtype=int))

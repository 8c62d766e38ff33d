"""Faces as surfaces: closed forms and invariances of the errors after alignment."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import small_head

from facegpt.evaluation.expression_agreement import expression_table
from facegpt.evaluation.surface_agreement import face_surfaces, surface_errors, surface_table, vertex_error
from facegpt.metrics.surface import chamfer
from facegpt.standins.synthetic import sample_parameters

HEAD = small_head()
FACES = sample_parameters(HEAD, 4, torch.Generator().manual_seed(0))
SURFACES = face_surfaces(HEAD, FACES)


def test_the_rotation_of_the_head_does_not_count_and_the_jaw_does() -> None:
    turned = FACES.pose.clone()
    turned[:, :3] += 0.4
    assert np.array_equal(face_surfaces(HEAD, FACES.replace(pose=turned)).vertices, SURFACES.vertices)
    opened = FACES.pose.clone()
    opened[:, 3] += 0.2
    assert not np.allclose(face_surfaces(HEAD, FACES.replace(pose=opened)).vertices, SURFACES.vertices)
    assert np.allclose(np.linalg.norm(SURFACES.normals, axis=2), 1)


def test_a_rigid_motion_costs_nothing() -> None:
    true, normals = SURFACES.vertices[0], SURFACES.normals[0]
    turn = Rotation.from_euler("xyz", [3, -4, 2], degrees=True)
    found = surface_errors(turn.apply(true) + np.array([0.01, -0.02, 0.03]), true, normals)
    assert found["chamfer_mm"] < 0.02 and found["vertex_error_mm"] < 1e-9 and found["complete_rate"] == 100


def test_a_larger_face_costs_its_growth_unless_the_scale_is_free() -> None:
    true, normals = SURFACES.vertices[0], SURFACES.normals[0]
    arms = np.linalg.norm(true - true.mean(axis=0), axis=1).mean()
    larger = 1.05 * true
    assert vertex_error(larger, true) == pytest.approx(1000 * 0.05 * arms)  # Kabsch turns nothing
    rigid = surface_errors(larger, true, normals)
    assert rigid["chamfer_mm"] > 0.5
    assert surface_errors(larger, true, normals, free_scale=True)["chamfer_mm"] < 0.05


def test_the_nearest_point_is_no_farther_than_the_corresponding_one() -> None:
    true = SURFACES.vertices[0]
    for other in SURFACES.vertices[1:]:
        assert chamfer(other, true) <= 2000 * np.linalg.norm(other - true, axis=1).mean() + 1e-9


def test_a_table_has_every_set_beside_the_truth() -> None:
    mean = face_surfaces(HEAD, HEAD.mean_parameters(4))
    table = surface_table({"model": SURFACES, "mean_face": mean}, SURFACES, seed=0)
    assert table["model"]["chamfer_mm"]["mean"] < 1e-6 < table["mean_face"]["chamfer_mm"]["mean"]
    assert table["model"]["complete_rate"]["interval_95"] == [100.0, 100.0]


def test_expressions_by_hand() -> None:
    head = small_head()
    head.expression_names = ["browInnerUp", "mouthSmileLeft", "mouthSmileRight", "jawLeft"]
    truth, faces = head.mean_parameters(2), head.mean_parameters(2)
    truth.expression[0] = torch.tensor([0.5, 0.6, 0.6, 0.0])  # units 1 and 12
    faces.expression[:, 0] = 0.5  # unit 1
    found = expression_table(head, {"model": faces}, truth, seed=0)["model"]
    cosine = 0.5 / np.sqrt(0.25 + 0.72)  # of the first; the second truth has no expression: 0
    assert found["cosine"]["mean"] == pytest.approx(cosine / 2)
    assert found["unit_hits"]["mean"] == pytest.approx(1 / 2) and found["unit_hits"]["n"] == 1
    assert found["unit_false_alarms"]["mean"] == pytest.approx((0 + 1 / 21) / 2)

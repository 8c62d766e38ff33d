"""Yaw, contour rows and points on the surface."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_head import small_head, small_head_data

from facegpt.head.landmarks import contour_row, head_yaw, surface_points
from facegpt.head.lbs import rotation_matrices
from facegpt.head.model import HeadModel


def turn(degrees, axis=(0.0, 1.0, 0.0)):
    return rotation_matrices(torch.tensor([axis]) * math.radians(degrees))


@pytest.mark.parametrize("degrees", [-80, -39, -20, 0, 1, 30, 60])
def test_yaw_of_a_turn_about_the_vertical_axis(degrees):
    assert head_yaw(turn(degrees)).item() == pytest.approx(degrees, abs=1e-4)


def test_positive_yaw_turns_the_nose_to_the_subjects_left():
    nose = turn(30)[0] @ torch.tensor([0.0, 0.0, 1.0])
    assert nose[0] > 0


def test_roll_has_no_yaw():
    assert head_yaw(turn(50, (0.0, 0.0, 1.0))).item() == pytest.approx(0, abs=1e-4)


def test_rows_of_the_tables_follow_the_degrees():
    # FLAME's order: 0..39 for yaw 0..39, then 40..78 for yaw -1..-39 (face_facts.md, section 2)
    yaw = torch.tensor([0.0, 0.4, -0.4, 1.0, 29.6, 39.0, 39.4, 80.0, -0.6, -1.0, -30.0, -39.0, -39.4, -90.0])
    assert contour_row(yaw).tolist() == [0, 0, 0, 1, 30, 39, 39, 39, 40, 40, 69, 78, 78, 78]


def test_a_pose_that_is_not_a_number_still_finds_a_row():
    assert contour_row(torch.tensor([math.nan, math.inf])).tolist() == [0, 39]


def test_surface_points_weigh_the_corners():
    vertices = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    triangles = torch.tensor([[0, 1, 2], [2, 3, 4]])
    barycentric = torch.tensor([[0.2, 0.3, 0.5], [1, 0, 0]])
    points = surface_points(vertices, triangles, torch.tensor([1, 0]), barycentric)
    expected = 0.2 * vertices[:, 2] + 0.3 * vertices[:, 3] + 0.5 * vertices[:, 4]
    torch.testing.assert_close(points[:, 0], expected)
    torch.testing.assert_close(points[:, 1], vertices[:, 0])


def pose(head, degrees, neck_degrees=0.0):
    parameters = head.mean_parameters(neck=True)
    parameters.pose[:, 1] = math.radians(degrees)
    parameters.neck[:, 1] = math.radians(neck_degrees)
    return parameters


@pytest.mark.parametrize(
    ("root", "neck", "row"), [(0, 0, 0), (20, 0, 20), (15, 10, 25), (-20, 5, 54), (0, -50, 78)]
)
def test_the_contour_is_the_tables_row_for_root_and_neck_together(root, neck, row):
    head, data = small_head(), small_head_data()
    output = head(pose(head, root, neck))
    corners = output.vertices[0].numpy()[data.triangles[data.contour_triangles[row]]]  # (17, 3, 3)
    expected = np.einsum("nk,nkc->nc", data.contour_barycentric[row], corners)
    np.testing.assert_allclose(output.landmarks[0, :17], expected, atol=1e-6)


@pytest.mark.parametrize("degrees", [-30, 30])
def test_the_contour_of_a_turned_head_is_visible_on_the_side_that_turns_away(degrees):
    # a point of a convex head is visible from +z where its normal looks to +z
    head = small_head()
    output = head(pose(head, degrees))
    away = slice(9, 17) if degrees > 0 else slice(0, 8)
    center = output.vertices[0].mean(0)
    moved = output.landmarks[0, away, 2] - center[2]
    fixed = (
        HeadModel(without_tables(small_head_data()))(pose(head, degrees)).landmarks[0, away, 2] - center[2]
    )
    assert (moved > fixed + 0.005).all()


def without_tables(data):
    return replace(data, contour_triangles=None, contour_barycentric=None)


def test_without_tables_the_contour_is_fixed_on_the_surface():
    data = small_head_data()
    head = HeadModel(without_tables(data))
    output = head(pose(head, 30))
    corners = output.vertices[0].numpy()[data.triangles[data.landmark_triangles]]
    expected = np.einsum("nk,nkc->nc", data.landmark_barycentric, corners)
    np.testing.assert_allclose(output.landmarks[0], expected, atol=1e-6)


def test_each_face_of_a_batch_has_its_own_contour():
    head = small_head()
    poses = torch.tensor([[0, 0.5, 0, 0, 0, 0], [0, -0.3, 0, 0, 0, 0]])
    both = head(head.mean_parameters(2).replace(pose=poses))
    for k, yaw in enumerate((0.5, -0.3)):
        alone = head(head.mean_parameters().replace(pose=torch.tensor([[0, yaw, 0, 0, 0, 0]])))
        torch.testing.assert_close(both.landmarks[k : k + 1], alone.landmarks, atol=1e-6, rtol=0)

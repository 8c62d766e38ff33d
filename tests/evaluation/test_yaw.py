"""Faces sorted by how far the head is turned."""

from __future__ import annotations

import math

import torch
from small_head import small_head

from facegpt.evaluation.yaw import yaw_degrees, yaw_groups


def test_yaw_is_the_turn_about_the_vertical_axis_and_groups_hold_every_face_once() -> None:
    faces = small_head().mean_parameters(4)
    degrees = torch.tensor([5.0, -15.0, 35.0, 0.0])
    faces.pose[:, 1] = degrees * math.pi / 180
    faces.pose[3, 0] = 0.3  # nodding is not turning
    assert torch.allclose(yaw_degrees(faces), degrees, atol=1e-4)
    groups = yaw_groups(faces)
    assert {label: members.tolist() for label, members in groups.items()} == {
        "0-10": [True, False, False, True],
        "10-20": [False, True, False, False],
        "20-90": [False, False, True, False],
    }

"""Faces sorted by how far the head is turned, how it is lit, and how dark its skin is."""

from __future__ import annotations

import math

import pytest
import torch
from small_head import small_head

from facegpt.evaluation.face_groups import (
    face_groups,
    light_ratio,
    skin_colors,
    typology_angle,
    yaw_degrees,
    yaw_groups,
)
from facegpt.render.lighting import directional


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
    for labels in face_groups(faces, small_head()).values():
        assert torch.stack(list(labels.values())).sum(dim=0).tolist() == [1] * 4


def test_light_from_a_side_is_the_ratio_that_the_clamped_cosine_gives() -> None:
    faces = small_head().mean_parameters(2)
    lamp = directional(torch.tensor([[-1.0, 0, 1]]), torch.ones(1, 3), torch.full((1, 3), 0.2))
    faces.lighting[1] = lamp[0]
    lit, unlit = 1 / 4 + 1 / 2 + 5 / 32 * 2, 1 / 4 - 5 / 32  # the cosine is 1 on one side, 0 on the other
    assert light_ratio(faces).tolist() == pytest.approx([1, (lit + 0.2) / (unlit + 0.2)], rel=1e-5)


def test_typology_angles_are_those_of_known_colors() -> None:
    # CIELAB of sRGB red is (53.24, 80.09, 67.20), of yellow (97.14, -21.55, 94.48), of middle gray b* = 0.
    angles = typology_angle(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0.6, 0.6, 0.6]]))
    expected = [math.degrees(math.atan(3.24 / 67.20)), math.degrees(math.atan(47.14 / 94.48)), 90]
    assert angles.tolist() == pytest.approx(expected, abs=0.1)


def test_skin_colors_are_of_the_albedo_whatever_the_light() -> None:
    head = small_head()
    faces = head.mean_parameters(3)
    faces.albedo[1, 0] = 2.0  # of the small head: brighter everywhere by 0.12
    faces.lighting[2] *= 0.3
    colors = skin_colors(faces, head, chunk=2)
    assert torch.allclose(colors[1] - colors[0], torch.tensor(0.12), atol=5e-3)
    assert torch.allclose(colors[2], colors[0], atol=1e-6)

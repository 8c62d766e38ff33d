"""Angles of a head from its landmarks, against heads that were turned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from facegpt.errors import LandmarkError
from facegpt.head.builtin.anatomy import landmark_table
from facegpt.head.lbs import rotation_matrices
from facegpt.perception.head_pose import head_angles
from facegpt.perception.landmark_lists import GIVEN, landmarks_of_five, read_celeba, read_list


def turned(pitch: float = 0, yaw: float = 0, roll: float = 0) -> torch.Tensor:
    """Landmarks (68,2) of the mean head turned by degrees about its own axes: x, then y, z (Ry Rx Rz)."""
    axes = torch.eye(3) * torch.tensor([pitch, yaw, roll])[:, None] * (math.pi / 180)
    about_x, about_y, about_z = rotation_matrices(axes)
    points = torch.from_numpy(landmark_table()).float() @ (about_y @ about_x @ about_z).T
    return points[:, :2] * torch.tensor([1.0, -1.0]) * 0.7 + torch.tensor([300.0, 200.0])


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, 0, 0), (0, 35, 0), (0, 0, -25), (-15, -50, 10)])
def test_angles_are_those_of_the_rotation(angles):
    assert head_angles(turned(*angles)) == pytest.approx(angles, abs=0.1)


def test_points_on_a_line_are_refused():
    with pytest.raises(LandmarkError, match="line"):
        head_angles(torch.arange(68.0)[:, None].expand(68, 2))


@pytest.mark.parametrize("yaw", [0, 30])
def test_five_points_place_the_others(yaw, tmp_path):
    """Up to what an affine map of five points leaves open of a rotation."""
    truth = turned(5, yaw, 10).numpy()
    eyes = np.stack([truth[[36, 39]].mean(0), truth[[42, 45]].mean(0)])
    five = np.concatenate([eyes, truth[list(GIVEN)]])
    landmarks, valid = landmarks_of_five(five, "face")
    assert valid.nonzero()[:, 0].tolist() == list(GIVEN)
    assert np.abs(landmarks[valid].numpy() - truth[list(GIVEN)]).max() < 1e-4
    assert np.linalg.norm(landmarks.numpy() - truth, axis=1).max() < 0.02 * np.ptp(truth)
    row = " ".join(str(value - 0.5) for value in five.ravel())
    path = tmp_path / "list.txt"
    path.write_text(f"1\nlefteye_x lefteye_y ...\n000001.jpg  {row}\n")
    assert np.allclose(read_celeba(path)["000001.jpg"], five, atol=1e-4)
    ((same, _),) = read_list(path)("000001.jpg")
    assert torch.allclose(same, landmarks, atol=1e-3) and read_list(path)("2.jpg") == []
    path.write_text(f"1\nnames\n000001.jpg {row} 7\n")
    with pytest.raises(LandmarkError, match=r"list\.txt:3"):
        read_celeba(path)

"""Point errors over the outer-eye distance."""

from __future__ import annotations

import pytest
import torch

from facegpt.metrics.point_errors import point_error


def test_errors_are_in_outer_eye_distances_by_region() -> None:
    truth = torch.zeros(2, 68, 2)
    truth[:, 45, 0] = torch.tensor([10.0, 50.0])  # 36 lies at 0
    predicted = truth.clone()
    predicted[:, :17] += torch.tensor([3.0, 4.0])  # the contour alone is 5 off
    found = point_error(predicted, truth)
    assert found["contour"].tolist() == pytest.approx([0.5, 0.1])
    assert found["inner"].tolist() == [0.0, 0.0]
    assert found["all"].tolist() == pytest.approx([0.5 * 17 / 68, 0.1 * 17 / 68])


def test_points_that_were_not_given_do_not_count() -> None:
    truth = torch.zeros(1, 68, 2)
    truth[:, 45, 0] = 10.0
    predicted = truth + torch.tensor([0.0, 2.0])
    predicted[:, :17] += 100
    found = point_error(predicted, truth, torch.arange(68)[None] >= 17)
    assert found["all"].tolist() == pytest.approx([0.2]) and found["contour"].isnan().all()

"""The best shift and scale, against a general optimiser."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize

from facegpt.metrics.placement import shift_and_scale


def points(seed: int) -> torch.Tensor:
    return torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_shifted_and_scaled_copy_is_found() -> None:
    source = points(0)
    scale, shift = shift_and_scale(source, 2.5 * source + torch.tensor([3.0, -4.0]))
    assert scale.tolist() == pytest.approx([2.5, 2.5]) and shift.tolist()[1] == pytest.approx([3.0, -4.0])


@pytest.mark.parametrize("count", [9, 5])
def test_no_optimiser_finds_a_better_place(count: int) -> None:
    source, target = points(0), points(1) + 0.5 * points(0)
    valid = torch.arange(9).expand(2, 9) < count
    scale, shift = shift_and_scale(source, target, valid)
    for face in range(2):

        def squares(x: list[float], face: int = face) -> float:
            moved = x[0] * source[face, :count] + torch.tensor([x[1], x[2]])
            return float((moved - target[face, :count]).square().sum())

        best = minimize(squares, [1.0, 0.0, 0.0], tol=1e-12).x
        assert [float(scale[face]), *shift[face].tolist()] == pytest.approx(best.tolist(), abs=1e-5)

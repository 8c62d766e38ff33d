"""The product of coefficients and a basis, whole and in parts, against its plain formula."""

import pytest
import torch

from facegpt.head.lbs import blend


@pytest.mark.parametrize("length", [5, 4095, 4096, 5003])  # whole; in parts, without and with a rest
@pytest.mark.parametrize("batch", [1, 3])
def test_blend_and_its_gradient_are_those_of_the_formula(batch: int, length: int) -> None:
    random = torch.Generator().manual_seed(0)
    basis = torch.randn(length, 7, generator=random, dtype=torch.float64)
    mean = torch.randn(length, generator=random, dtype=torch.float64)
    start = torch.randn(batch, 7, generator=random, dtype=torch.float64)
    factor = torch.randn(batch, length, generator=random, dtype=torch.float64)
    coefficients = start.clone().requires_grad_()
    blended = blend(coefficients, mean, basis)
    (gradient,) = torch.autograd.grad(blended, coefficients, factor)
    for face in range(batch):
        expected = mean + (basis * start[face]).sum(dim=1)
        torch.testing.assert_close(blended[face], expected)
        torch.testing.assert_close(gradient[face], (basis * factor[face][:, None]).sum(dim=0))

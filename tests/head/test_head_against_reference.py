"""Values and gradients of the head against the usual implementation, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_head import small_head_data

from facegpt.head import lbs
from facegpt.head.model import NEGLIGIBLE, HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.head.reference import ReferenceHead


@pytest.fixture(params=["numba", "torch"])
def code(request, monkeypatch):
    """Both the compiled loops and the tensor code that stands in for them elsewhere."""
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(lbs, "_numba_works", lambda: False)
    return request.param


@pytest.mark.parametrize("correctives", [True, False])
def test_values_and_gradients_are_those_of_the_usual_implementation(code, correctives):
    data = small_head_data() if correctives else replace(small_head_data(), pose_basis=None)
    head, usual = HeadModel(data).double(), ReferenceHead(data, torch.float64)
    layout = replace(head.layout, neck=True, eyes=True)
    random = torch.Generator().manual_seed(0)
    vector = 0.5 * torch.randn(3, layout.total, generator=random, dtype=torch.float64)
    factor = torch.randn(3, len(data.v_template), 3, generator=random, dtype=torch.float64)
    results = []
    for model in (usual, head):
        leaf = vector.clone().requires_grad_()
        output = model(FaceParameters.from_vector(leaf, layout))
        vertices, joints = output if model is usual else (output.vertices, output.joints)
        loss = (vertices * factor).sum() + (joints * factor[:, :5]).sum()
        results.append((vertices.detach(), joints.detach(), *torch.autograd.grad(loss, leaf)))
    for expected, found in zip(*results, strict=True):
        # not closer, because the joints' own basis is rounded to float32 where the usual code rounds later
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_albedo_is_that_of_the_usual_implementation():
    data = small_head_data()
    coefficients = torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double()
    found, usual = HeadModel(data).double(), ReferenceHead(data, torch.float64)
    torch.testing.assert_close(found.albedo(coefficients), usual.albedo(coefficients), rtol=0, atol=1e-12)


def test_transforms_of_torch_func_see_the_same_head():
    """The compiled loops know first derivatives backwards only; forward mode must not meet them."""
    head = HeadModel(small_head_data()).double()
    vector = 0.3 * torch.randn(1, head.layout.total, generator=torch.Generator().manual_seed(2)).double()

    def some(vector):
        return head(FaceParameters.from_vector(vector, head.layout)).vertices[:, ::50]

    forwards = torch.func.jacfwd(some)(vector)
    torch.testing.assert_close(forwards, torch.autograd.functional.jacobian(some, vector))
    torch.testing.assert_close(forwards, torch.func.jacrev(some)(vector))


def test_denormal_numbers_of_a_basis_are_zero():
    """They made the products four times slower, and change no result."""
    data = small_head_data()
    basis = data.shape_basis.astype(np.float32)
    basis[3, 1, 2] = 1e-39
    head = HeadModel(replace(data, shape_basis=basis))
    small = head.basis[head.basis != 0].abs().min()
    assert small >= NEGLIGIBLE

"""Forward and backward in both precisions, and every input's gradient at rest."""

import pytest
import torch
from small_head import small_head

from facegpt.head.parameters import FaceParameters

GROUPS = ("shape", "expression", "pose", "neck", "eyes")


def run(dtype, vector, layout):
    """Vertices, landmarks and the gradient of a fixed projection of both."""
    head = small_head().to(dtype)
    vector = vector.to(dtype).requires_grad_()
    output = head(FaceParameters.from_vector(vector, layout))
    generator = torch.Generator().manual_seed(0)
    total = sum(
        (values * torch.randn(values.shape, generator=generator).to(dtype)).sum()
        for values in (output.vertices, output.landmarks)
    )
    (gradient,) = torch.autograd.grad(total, vector)
    return output, gradient


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_single_and_double_precision_agree_forward_and_backward(scale):
    head = small_head()
    layout = head.mean_parameters(neck=True, eyes=True).layout
    vector = scale * torch.randn(2, layout.total, generator=torch.Generator().manual_seed(1))
    # the contour's row jumps with the yaw: near a jump the two precisions may choose differently
    single, rough = run(torch.float32, vector, layout)
    double, exact = run(torch.float64, vector, layout)
    assert single.vertices.dtype == rough.dtype == torch.float32
    assert double.vertices.dtype == exact.dtype == torch.float64
    torch.testing.assert_close(single.vertices.double(), double.vertices, atol=2e-6, rtol=0)
    torch.testing.assert_close(single.landmarks.double(), double.landmarks, atol=2e-6, rtol=0)
    torch.testing.assert_close(rough.double(), exact, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, 3.14159265, 6.2831853])
def test_no_gradient_is_missing_or_broken_at_rest_and_at_whole_turns(dtype, angle):
    head = small_head()
    mean = head.mean_parameters(neck=True, eyes=True)
    for group in ("pose", "neck", "eyes"):
        getattr(mean, group)[:, 0] = angle
    _, gradient = run(dtype, mean.to_vector(), mean.layout)
    parts = dict(zip(mean.layout.sizes, gradient.split(list(mean.layout.sizes.values()), 1), strict=True))
    for group in GROUPS:
        assert parts[group].isfinite().all(), group
        assert parts[group].abs().max() > 1e-4, group
    if angle < 1:
        assert all((parts[group].abs() > 1e-6).all() for group in GROUPS)

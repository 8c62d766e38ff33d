"""The fused CPU renderer against the torch reference where `test_renderer` does not look."""

import pytest
import torch
from small_head import small_head

from facegpt.head.mesh import Mesh
from facegpt.head.parameters import FaceParameters
from facegpt.render import render, render_mesh

pytest.importorskip("numba")


def faces(batch: int, albedo: float = 1.0) -> FaceParameters:
    """Different faces in float64, the albedo coefficients scaled."""
    mean = small_head().mean_parameters(batch)
    noise = torch.randn(mean.to_vector().shape, generator=torch.Generator().manual_seed(0)).double()
    parameters = FaceParameters.from_vector(mean.to_vector().double() + 0.1 * noise, mean.layout)
    return parameters.replace(camera=mean.camera.double() * 0.9, albedo=albedo * parameters.albedo)


def image_and_gradient(parameters: FaceParameters, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    head = small_head().double()
    vector = parameters.to_vector().requires_grad_()
    image = render(head, FaceParameters.from_vector(vector, head.layout), 40, backend).image
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).double()
    return image.detach(), torch.autograd.grad((image * weights).sum(), vector)[0]


@pytest.mark.parametrize("albedo", [1.0, 600.0])  # 600: most texels are clamped
def test_texels_made_where_they_are_seen_are_those_of_the_whole_texture(albedo: float) -> None:
    parameters = faces(3, albedo)
    texture = small_head().double().albedo(parameters.albedo)
    assert ((texture == 0) | (texture == 1)).double().mean() > (0.5 if albedo > 1 else -1)
    for fast, slow in zip(
        *(image_and_gradient(parameters, name) for name in ("numba", "torch")), strict=True
    ):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_a_mesh_with_its_own_texture_has_the_reference_gradients() -> None:
    head, parameters = small_head().double(), faces(2)
    random = torch.Generator().manual_seed(2)
    texture = 3 * torch.rand(2, 20, 28, 3, generator=random, dtype=torch.float64) - 1  # not clamped
    start = [head(parameters).vertices, texture, parameters.camera, parameters.lighting]
    weights = torch.randn(2, 3, 30, 44, generator=random, dtype=torch.float64)
    results = []
    for backend in ("numba", "torch"):
        vertices, texels, camera, lighting = leaves = [
            value.detach().clone().requires_grad_() for value in start
        ]
        mesh = Mesh(vertices, head.triangles, texture=texels, uv=head.uv, uv_triangles=head.uv_triangles)
        seen = render_mesh(mesh, camera, lighting, 30, 44, backend)
        weighted = (seen.image + seen.normals) * weights + seen.depth[:, None] * weights
        loss = weighted.sum() + (seen.fragments.barycentric * weights.permute(0, 2, 3, 1)).sum()
        results.append([seen.image, seen.mask, seen.skin_mask, *torch.autograd.grad(loss, leaves)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-8)


def test_threads_change_nothing_to_the_last_bit() -> None:
    parameters, before = faces(5), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(image_and_gradient(parameters, "numba"))
    finally:
        torch.set_num_threads(before)
    for one, several in zip(*results, strict=True):
        assert torch.equal(one, several)


def test_blocks_of_pixels_do_not_show() -> None:
    """More covered pixels than fit into one block of the loops, and a last block that is not full."""
    from facegpt.render.backends.numba.shade import BLOCK

    head, parameters = small_head(), faces(1).to(torch.float32)
    sizes = [render(head, parameters, size, "numba").mask.sum() for size in (8, 90)]
    assert sizes[0] < BLOCK < sizes[1]
    for size in (8, 90):
        fast, slow = (render(head, parameters, size, name).image for name in ("numba", "torch"))
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)

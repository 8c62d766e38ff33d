"""Spherical harmonics against closed forms, the spec's constants and quadrature over the sphere."""

import math

import numpy as np
import torch

from facegpt.head.parameters import UNIT_AMBIENT
from facegpt.render.lighting import ambient, directional, sh_basis, shade, shade_at
from facegpt.render.pixels import Pixels


def sphere() -> tuple[torch.Tensor, torch.Tensor]:
    """Directions (N,3) and weights (N,) that integrate polynomials of degree 40 over the sphere exactly."""
    z, weight = np.polynomial.legendre.leggauss(48)
    angle = np.arange(96) * 2 * np.pi / 96
    ring = np.sqrt(1 - z * z)
    x, y = ring[:, None] * np.cos(angle), ring[:, None] * np.sin(angle)
    points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=-1).reshape(-1, 3)
    weights = np.repeat(weight, 96) * 2 * np.pi / 96
    return torch.from_numpy(points), torch.from_numpy(weights)


def unit_vectors(count: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def test_constants_are_those_of_deca() -> None:
    normal = torch.tensor([1.0, 2.0, 3.0]).double()  # not unit: reads off every constant
    first, cross, square, axial = 1.0233267, 0.8580855, 0.4290428, 0.2477080
    second = [2 * cross, 3 * cross, 6 * cross, -3 * square, 26 * axial]
    spec = torch.tensor([0.2820948, first, 2 * first, 3 * first, *second]).double()
    torch.testing.assert_close(sh_basis(normal), spec, rtol=1e-6, atol=0)


def test_bands_are_orthogonal_with_the_norms_of_the_cosine_lobe() -> None:
    points, weights = sphere()
    basis = sh_basis(points)
    gram = torch.einsum("nj,nk,n->jk", basis, basis, weights)
    norms = [1.0, *[(2 * math.pi / 3) ** 2] * 3, *[(math.pi / 4) ** 2] * 5]
    torch.testing.assert_close(gram, torch.diag(torch.tensor(norms, dtype=torch.float64)), rtol=0, atol=1e-10)


def test_unit_ambient_light_gives_a_shading_of_one() -> None:
    normals = unit_vectors(12, 0).reshape(2, 2, 3, 3)
    lighting = torch.zeros(2, 27, dtype=torch.float64)
    lighting[:, :3] = UNIT_AMBIENT
    torch.testing.assert_close(shade(normals, lighting), torch.ones_like(normals), rtol=0, atol=1e-7)
    torch.testing.assert_close(ambient(0.7, 2).double(), 0.7 * lighting, rtol=1e-6, atol=0)


def test_bands_are_the_slow_index_and_colors_the_fast_one() -> None:
    lighting = torch.zeros(1, 27)
    lighting[0, 3 * 2 + 1] = 1.0  # band 2 is y, colour 1 is green
    shading = shade(torch.tensor([[[0.6, 0.8, 0.0]]]), lighting)
    torch.testing.assert_close(shading, torch.tensor([[[0.0, 0.8 * 1.0233267, 0.0]]]))


def test_directional_light_follows_the_closed_form_of_the_nine_band_cosine() -> None:
    direction, normals = unit_vectors(3, 1), unit_vectors(60, 2).reshape(3, 20, 3)
    strength = torch.tensor([[1.0, 0.9, 0.8], [0.3, 0.2, 0.1], [2.0, 2.0, 2.0]], dtype=torch.float64)
    base = torch.full((3, 3), 0.15, dtype=torch.float64)
    t = (normals * direction[:, None]).sum(dim=-1, keepdim=True)
    expected = strength[:, None] * (1 / 4 + t / 2 + 5 / 32 * (3 * t * t - 1)) + base[:, None]
    torch.testing.assert_close(shade(normals, directional(5 * direction, strength, base)), expected)


def test_directional_light_is_the_least_squares_fit_of_the_clamped_cosine() -> None:
    """The residual to max(0, cos) must be orthogonal to all nine bands, by quadrature over the sphere."""
    points, weights = sphere()
    direction, one = unit_vectors(1, 3), torch.ones(1, 3, dtype=torch.float64)
    fitted = shade(points[None], directional(direction, one, 0 * one))[0, :, 0]
    residual = (points @ direction[0]).clamp(min=0) - fitted
    # the clamp has a kink, so the quadrature itself is good to about 1e-3 only
    assert ((residual * weights) @ sh_basis(points)).abs().max() < 2e-3
    assert residual.abs().max() < 0.1


def test_shading_gradients_match_finite_differences() -> None:
    normals = unit_vectors(6, 4).reshape(2, 3, 3).requires_grad_()
    lighting = torch.randn(2, 27, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert torch.autograd.gradcheck(shade, (normals, lighting.requires_grad_()))


def test_listed_pixels_are_shaded_by_the_light_of_their_face() -> None:
    face = torch.tensor([0, 0, 0, 1, 1])
    none = torch.zeros(3, 5, dtype=torch.int64)
    pixels = Pixels(torch.arange(5), face, face, none, none[:2], (2, 2, 5))
    normals = unit_vectors(5, 6).T.contiguous().requires_grad_()
    lighting = torch.randn(2, 27, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    shading = shade_at(normals, lighting, pixels)
    for p in range(5):
        alone = shade(normals[:, p].reshape(1, 1, 3), lighting[face[p]][None])
        torch.testing.assert_close(shading[:, p], alone[0, 0])
    inputs = (normals, lighting.requires_grad_())
    assert torch.autograd.gradcheck(lambda n, light: shade_at(n, light, pixels), inputs)

"""Weights and interpolation: analytic gradients against finite differences."""

import pytest
import torch
from torch import Tensor

from facegpt.render import rasterize
from facegpt.render.interpolate import SLIVER_AREA, barycentric_weights, interpolate
from facegpt.render.pixels import Pixels, covered_pixels, to_image, vertex_table


def scene(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Pixels]:
    """Vertices (2,6,3) of two images of a small strip of triangles, and the pixels that they cover."""
    strip = torch.tensor([[1.0, 1.2], [8.3, 0.4], [2.1, 6.7], [9.2, 7.1], [3.3, 10.9], [10.7, 11.6]])
    strip = torch.stack([strip, strip.flip(1) + 0.3])
    vertices = torch.cat([strip, torch.linspace(-1, 1, 12).reshape(2, 6, 1)], dim=2).to(dtype)
    triangles = torch.tensor([[0, 1, 2], [1, 3, 2], [2, 4, 3], [3, 4, 5]])
    ids = rasterize(vertices, triangles, 12, 12, "torch").triangle
    return vertices, covered_pixels(ids, triangles, 6, dtype)


def test_lists_covered_pixels_in_image_order() -> None:
    ids = torch.tensor([[[-1, 1, -1], [0, -1, -1]], [[-1, -1, -1], [-1, -1, 1]]])
    triangles = torch.tensor([[0, 1, 2], [3, 2, 1]])
    pixels = covered_pixels(ids, triangles, 4, torch.float32)
    assert pixels.index.tolist() == [1, 3, 11]
    assert pixels.face.tolist() == [0, 0, 1]
    assert pixels.triangle.tolist() == [1, 0, 1]
    assert pixels.rows.T.tolist() == [[3, 2, 1], [0, 1, 2], [7, 6, 5]]
    assert pixels.centers.T.tolist() == [[1.5, 0.5], [0.5, 1.5], [2.5, 1.5]]


def test_to_image_puts_values_back_where_they_came_from() -> None:
    _, pixels = scene()
    values = torch.randn(3, len(pixels.index), generator=torch.Generator().manual_seed(0))
    images = to_image(values, pixels)
    assert images.shape == (2, 3, 12, 12)
    flat = images.permute(1, 0, 2, 3).flatten(1)
    assert torch.equal(flat[:, pixels.index], values)
    assert flat.count_nonzero() == values.numel()


def test_weights_reproduce_linear_functions_of_the_image_plane() -> None:
    vertices, pixels = scene()
    table = vertex_table(vertices)
    weights = barycentric_weights(table[:2], pixels)
    torch.testing.assert_close(interpolate(table[:2], pixels.rows, weights), pixels.centers)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(len(pixels.index), dtype=torch.float64))


def test_weights_of_a_triangle_are_ratios_of_areas() -> None:
    points = torch.tensor([[0.0, 4.0, 0.0], [0.0, 0.0, 4.0]])
    one = torch.tensor([0])
    pixels = Pixels(one, one, one, torch.tensor([[0], [1], [2]]), torch.tensor([[0.5], [1.5]]), (1, 4, 4))
    weights = barycentric_weights(points, pixels)
    torch.testing.assert_close(weights[:, 0], torch.tensor([0.5, 0.125, 0.375]))


def test_gradient_of_weights_matches_finite_differences() -> None:
    vertices, pixels = scene()
    points = vertex_table(vertices)[:2].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: barycentric_weights(p, pixels), points)


def test_gradient_of_interpolation_matches_finite_differences() -> None:
    vertices, pixels = scene()
    table = torch.randn(4, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = barycentric_weights(vertex_table(vertices)[:2], pixels)
    inputs = (table.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(lambda t, w: interpolate(t, pixels.rows, w), inputs)


@pytest.mark.parametrize("flip", [False, True])
def test_gradient_of_a_sliver_is_bounded(flip: bool) -> None:
    """A triangle a millionth of a pixel wide: its exact gradient would be a million per pixel of motion."""
    points = torch.tensor([[0.5, 0.5, 0.5 + 1e-6], [0.0, 1.0, 0.5]], dtype=torch.float64)
    rows = torch.tensor([[0], [2], [1]] if flip else [[0], [1], [2]])
    one = torch.tensor([0])
    center = torch.tensor([[0.5 + 5e-7], [0.5]], dtype=torch.float64)
    pixels = Pixels(one, one, one, rows, center, (1, 1, 1))
    points.requires_grad_()
    weights = barycentric_weights(points, pixels)
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    (grad,) = torch.autograd.grad(weights[2 if not flip else 1, 0], points)
    assert 0 < grad.abs().max() <= 1 / SLIVER_AREA


def test_no_covered_pixel_is_an_empty_list_with_zero_gradient() -> None:
    triangles = torch.tensor([[0, 1, 2]])
    pixels = covered_pixels(torch.full((2, 4, 4), -1), triangles, 3, torch.float32)
    table = torch.rand(3, 6, requires_grad=True)
    weights = barycentric_weights(table[:2], pixels)
    image = to_image(interpolate(table, pixels.rows, weights), pixels)
    assert image.shape == (2, 3, 4, 4)
    (grad,) = torch.autograd.grad(image.sum(), table)
    assert (grad == 0).all()

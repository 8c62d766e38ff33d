"""The camera against hand-computed pixels."""

import pytest
import torch

from facegpt.render.camera import project


def test_projects_to_hand_computed_pixels() -> None:
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.05, 0.1, 0.02], [-0.1, -0.1, -0.03]]])
    pixels = project(points, torch.tensor([[8.0, 0.0, 0.025]]), 100, 100)
    # x = (8 (x + 0) + 1) 50, y = (1 - 8 (y + 0.025)) 50, depth = -8 z
    expected = torch.tensor([[[50.0, 40.0, 0.0], [70.0, 0.0, -0.16], [10.0, 80.0, 0.24]]])
    torch.testing.assert_close(pixels, expected)


def test_first_pixel_has_its_center_at_one_half() -> None:
    corner = torch.tensor([[[-1 + 1 / 64, 1 - 1 / 64, 0.0]]])  # centre of the first of 64 pixels in [-1, 1]
    pixel = project(corner, torch.tensor([[1.0, 0.0, 0.0]]), 64, 64)
    torch.testing.assert_close(pixel[0, 0, :2], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60)])
def test_an_oblong_image_keeps_shapes_and_center(height: int, width: int) -> None:
    camera = torch.tensor([[5.0, 0.01, -0.02]])
    points = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    square = project(points, camera, 60, 60)[..., :2] - 30
    oblong = project(points, camera, height, width)[..., :2] - torch.tensor([width / 2, height / 2])
    torch.testing.assert_close(oblong, square)


def test_camera_gradient_matches_finite_differences() -> None:
    points = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    camera = torch.tensor([[7.0, 0.1, 0.2], [5.0, -0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: project(points, c, 40, 50), camera)

"""Areas of shapes, finite differences, and a translation recovered from the mask alone."""

import math

import pytest
import torch
from small_head import small_head
from torch import Tensor

from facegpt.render import render
from facegpt.render.camera import project
from facegpt.render.rasterize import triangle_ids
from facegpt.render.silhouette import antialias


def soft_mask(vertices: Tensor, triangles: Tensor, height: int = 40, width: int = 41) -> Tensor:
    """The antialiased mask (B,H,W)."""
    ids = triangle_ids(vertices, triangles, height, width)
    return antialias((ids >= 0).to(vertices.dtype)[:, None], ids, vertices, triangles)[:, 0]


def polygon(corners: int, radius: float, center: Tensor) -> tuple[Tensor, Tensor]:
    """A regular polygon (1,V,3) as a fan around its centre (2,)."""
    angle = torch.arange(corners, dtype=torch.float64) * 2 * math.pi / corners
    rim = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1) + center
    points = torch.nn.functional.pad(torch.cat([center[None], rim]), (0, 1))
    return points[None], torch.tensor([[0, 1 + k, 1 + (k + 1) % corners] for k in range(corners)])


def test_coverage_of_a_rectangle_is_that_of_its_edges() -> None:
    left, right, top, bottom = 3.2, 9.9, 4.75, 8.6
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    vertices = torch.nn.functional.pad(torch.tensor([corners], dtype=torch.float64), (0, 1))
    mask = soft_mask(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), 12, 13)[0]
    # Across an edge, far from corners, each row sums to the length of the cut, each column likewise.
    torch.testing.assert_close(mask[6].sum(), torch.tensor(right - left, dtype=torch.float64))
    torch.testing.assert_close(mask[:, 6].sum(), torch.tensor(bottom - top, dtype=torch.float64))
    assert mask[6, 3].item() == pytest.approx(4 - left)  # 0.8 of this pixel is covered
    assert mask[6, 9].item() == pytest.approx(right - 9)


@pytest.mark.parametrize("corners", [7, 60, 300])
def test_area_and_its_derivative_are_those_of_the_polygon(corners: int) -> None:
    """300 corners: edges a quarter of a pixel long. Averaged over positions, as rows sample the outline."""
    random = torch.Generator().manual_seed(0)
    area = corners / 2 * math.sin(2 * math.pi / corners) * 11.3**2
    ratios = []
    for _ in range(12):
        center = 20 + torch.rand(2, generator=random, dtype=torch.float64)
        vertices, triangles = polygon(corners, 11.3, center)
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        grown = vertices[:, :1] + scale * (vertices - vertices[:, :1])
        total = soft_mask(grown, triangles).sum()
        (grad,) = torch.autograd.grad(total, scale)
        ratios.append((total.item() / area, grad.item() / (2 * area)))
    areas, slopes = (sum(values) / len(ratios) for values in zip(*ratios, strict=True))
    assert areas == pytest.approx(1, abs=0.01)
    assert slopes == pytest.approx(1, abs=0.02)


def test_gradient_matches_finite_differences_of_the_soft_mask() -> None:
    vertices, triangles = polygon(9, 8.7, torch.tensor([20.3, 19.8], dtype=torch.float64))
    random = torch.Generator().manual_seed(1)
    direction = torch.randn(vertices.shape, generator=random, dtype=torch.float64)
    weight = torch.rand(1, 40, 41, generator=random, dtype=torch.float64)
    vertices.requires_grad_()
    (grad,) = torch.autograd.grad((soft_mask(vertices, triangles) * weight).sum(), vertices)
    step = 1e-7
    after, before = (
        (soft_mask(vertices.detach() + sign * step * direction, triangles) * weight).sum() for sign in (1, -1)
    )
    torch.testing.assert_close((grad * direction).sum(), (after - before) / (2 * step), rtol=1e-6, atol=1e-6)


def test_translation_is_recovered_from_the_mask_alone() -> None:
    head = small_head()
    points, camera = head().vertices, head.mean_parameters(1).camera

    def mask(shift: Tensor) -> Tensor:
        moved = torch.cat([camera[:, :1], camera[:, 1:] + shift], dim=1)
        return soft_mask(project(points, moved, 32, 32), head.triangles, 32, 32)

    truth = torch.tensor([[0.012, -0.008]])  # metres; a pixel is 7 mm
    target = mask(truth)
    shift = torch.zeros(1, 2, requires_grad=True)
    for step in (2e-3, 4e-4, 1e-4):
        optimizer = torch.optim.Adam([shift], lr=step)
        for _ in range(20):
            optimizer.zero_grad()
            (mask(shift) - target).square().mean().backward()
            optimizer.step()
    pixel = 2 / (32 * camera[0, 0].item())
    assert (shift - truth).abs().max() < 0.1 * pixel
    assert truth.abs().max() > pixel  # it was further off than that


def test_colors_blend_across_the_outline_and_only_there() -> None:
    vertices, triangles = polygon(5, 9.0, torch.tensor([12.2, 11.7], dtype=torch.float64))
    vertices = vertices.expand(2, -1, -1) + torch.tensor([0.0, 1.3]).reshape(2, 1, 1)
    ids = triangle_ids(vertices, triangles, 26, 24)
    front, back = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.2, 0.3, 0.8])
    covered = (ids >= 0)[:, None]
    image = torch.where(covered, front.reshape(3, 1, 1), back.reshape(3, 1, 1)).double()
    soft = antialias(image, ids, vertices, triangles)
    share = antialias(covered.double(), ids, vertices, triangles)
    expected = share * front.reshape(3, 1, 1) + (1 - share) * back.reshape(3, 1, 1)
    torch.testing.assert_close(soft, expected)
    inside = torch.nn.functional.max_pool2d((~covered).double(), 3, 1, 1) == 0
    assert torch.equal(soft[inside.expand_as(soft)], image[inside.expand_as(soft)])
    assert (share[:, 0] != covered[:, 0]).sum() > 40


def test_nothing_to_blend_leaves_the_image_as_it_is() -> None:
    vertices, triangles = polygon(6, 3.0, torch.tensor([90.0, 5.0], dtype=torch.float64))
    ids = triangle_ids(vertices, triangles, 7, 1)
    image = torch.rand(1, 3, 7, 1, dtype=torch.float64)
    assert torch.equal(antialias(image, ids, vertices, triangles), image)
    huge = (vertices - vertices[:, :1]) * 1000
    ids = triangle_ids(huge, triangles, 7, 9)
    assert (ids >= 0).all()
    image = torch.rand(1, 3, 7, 9, dtype=torch.float64)
    assert torch.equal(antialias(image, ids, huge, triangles), image)


def test_the_renderer_softens_image_and_mask_when_asked() -> None:
    head = small_head()
    parameters = head.mean_parameters(2)
    sharp = render(head, parameters, 24, background=torch.tensor([0.1, 0.9, 0.2]))
    soft = render(head, parameters, 24, background=torch.tensor([0.1, 0.9, 0.2]), silhouette=True)
    assert sharp.mask.unique().tolist() == [0, 1]
    blended = (soft.mask - sharp.mask).abs() > 1e-3
    assert blended.sum() > 40
    kept = ~blended[:, None].expand_as(soft.image)
    torch.testing.assert_close(soft.image[kept], sharp.image[kept], rtol=0, atol=2e-3)
    shape = parameters.shape.clone().requires_grad_()
    mask = render(head, parameters.replace(shape=shape), 24, silhouette=True).mask
    (grad,) = torch.autograd.grad(mask.sum(), shape)
    assert grad.abs().max() > 1  # pixels of area per standard deviation of shape

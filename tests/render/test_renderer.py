"""The renderer: analytic pictures, invariances and gradients of every parameter group."""

from typing import Any

import pytest
import torch
from small_head import small_head
from torch import Tensor

from facegpt.head.mesh import Mesh
from facegpt.head.parameters import FaceParameters
from facegpt.render import render, render_mesh, renderer
from facegpt.render.camera import project
from facegpt.render.geometry import SurfaceSamples, surface_at_pixels
from facegpt.render.lighting import ambient, directional


@pytest.fixture(params=["torch", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba":
        pytest.importorskip("numba")
    return str(request.param)


def quad(texture: Tensor) -> Mesh:
    """A square of side 2 m in the plane z = 0 that shows its whole texture."""
    corners = torch.tensor([[[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]]])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    uv = (corners[0, :, :2] + 1) / 2
    return Mesh(corners, triangles, texture=texture, uv=uv, uv_triangles=triangles)


def varied_parameters(batch: int = 2, dtype: torch.dtype = torch.float64) -> FaceParameters:
    """Faces that differ in everything, with a light that is not grey."""
    mean = small_head().mean_parameters(batch)
    vector = mean.to_vector().double()
    random = torch.Generator().manual_seed(0)
    vector = vector + 0.1 * torch.randn(vector.shape, generator=random, dtype=torch.float64)
    parameters = FaceParameters.from_vector(vector.to(dtype), mean.layout)
    return parameters.replace(camera=mean.camera.to(dtype) * 0.9)


def test_a_quad_that_faces_the_camera_shows_its_texture(backend: str) -> None:
    texture = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    camera = torch.tensor([[1.0, 0.0, 0.0]])
    rendering = render_mesh(quad(texture), camera, ambient(), 16, 16, backend)
    torch.testing.assert_close(rendering.image, texture.permute(0, 3, 1, 2), rtol=0, atol=1e-5)
    assert (rendering.mask == 1).all()
    towards = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(rendering.normals, towards)


def test_geometry_is_made_once_and_by_the_fused_loops_only_when_asked_for(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def look(*given: Any) -> SurfaceSamples:
        calls.append("looked")
        return surface_at_pixels(*given)

    monkeypatch.setattr(renderer, "surface_at_pixels", look)
    rendering = render(small_head(), varied_parameters(dtype=torch.float32), 20, backend)
    assert calls == ([] if backend == "numba" else ["looked"])
    assert rendering.normals is rendering.normals
    assert rendering.depth is rendering.fragments.depth
    assert torch.equal(rendering.fragments.triangle, rendering.triangle)
    assert calls == ["looked"]


def test_an_oblong_image_shows_the_quad_in_its_middle(backend: str) -> None:
    texture = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(1))
    rendering = render_mesh(quad(texture), torch.tensor([[1.0, 0.0, 0.0]]), ambient(), 8, 20, backend)
    torch.testing.assert_close(rendering.image[..., 6:14], texture.permute(0, 3, 1, 2), rtol=0, atol=1e-5)
    assert rendering.mask[..., :6].sum() == rendering.mask[..., 14:].sum() == 0


def test_shading_multiplies_the_albedo(backend: str) -> None:
    texture = torch.full((1, 4, 4, 3), 0.5)
    strength, base = torch.tensor([[0.8, 0.6, 0.4]]), torch.tensor([[0.1, 0.1, 0.2]])
    light = directional(torch.tensor([[0.0, 0.0, 1.0]]), strength, base)
    rendering = render_mesh(quad(texture), torch.tensor([[1.0, 0.0, 0.0]]), light, 4, 4, backend)
    expected = 0.5 * (strength * (1 / 4 + 1 / 2 + 5 / 16) + base)  # the light falls straight on: t = 1
    torch.testing.assert_close(rendering.image[0, :, 2, 1], expected[0])


def test_vertex_colors_are_interpolated(backend: str) -> None:
    mesh = quad(torch.zeros(1, 2, 2, 3))
    colors = torch.tensor([[[0.0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]])  # red = x, green = y, blue = 1
    mesh = Mesh(mesh.vertices, mesh.triangles, colors=colors)
    image = render_mesh(mesh, torch.tensor([[1.0, 0.0, 0.0]]), ambient(), 10, 10, backend).image[0]
    ramp = (torch.arange(10) + 0.5) / 10
    torch.testing.assert_close(image[0], ramp.expand(10, 10), rtol=0, atol=1e-5)
    torch.testing.assert_close(image[1], 1 - ramp[:, None].expand(10, 10), rtol=0, atol=1e-5)
    torch.testing.assert_close(image[2], torch.ones(10, 10))


def test_mesh_without_color_is_refused() -> None:
    mesh = quad(torch.zeros(1, 2, 2, 3))
    bare = Mesh(mesh.vertices, mesh.triangles)
    with pytest.raises(ValueError, match="colors, or texture with uv"):
        render_mesh(bare, torch.tensor([[1.0, 0.0, 0.0]]), ambient(), 4, 4)


def test_rendering_has_the_shapes_and_masks_of_the_contract(backend: str) -> None:
    head, parameters = small_head(), varied_parameters(3, torch.float32)
    rendering = render(head, parameters, (30, 40), backend)
    assert rendering.image.shape == rendering.normals.shape == (3, 3, 30, 40)
    assert rendering.mask.shape == rendering.skin_mask.shape == rendering.depth.shape == (3, 30, 40)
    seen = rendering.fragments.triangle
    assert torch.equal(rendering.mask, (seen >= 0).float())
    skin = (seen >= 0) & head.skin_triangles[seen.clamp(min=0)]
    assert torch.equal(rendering.skin_mask, skin.float())
    assert 0 < skin.sum() < rendering.mask.sum()
    lengths = rendering.normals.norm(dim=1)
    torch.testing.assert_close(lengths, rendering.mask, rtol=0, atol=1e-5)
    spots = project(head(parameters).landmarks, parameters.camera, 30, 40)[..., :2]
    assert torch.equal(rendering.landmarks, spots)
    assert torch.equal(rendering.depth, rendering.fragments.depth)


def test_landmarks_lie_on_the_part_of_the_picture_they_name() -> None:
    """The tip of the nose is the point nearest to the camera, and the chin is below the brows."""
    head = small_head()
    rendering = render(head, head.mean_parameters(), 64)
    spots = rendering.landmarks[0]
    assert spots[8, 1] > spots[33, 1] > spots[27, 1] > spots[19, 1]  # chin, nose, bridge, brow
    assert spots[36, 0] < spots[45, 0]  # the subject's right eye is on the image's left
    covered = rendering.mask[0, spots[:, 1].long(), spots[:, 0].long()]
    assert covered[17:].all()


def test_moving_the_camera_by_whole_pixels_moves_the_picture(backend: str) -> None:
    head, parameters = small_head().double(), varied_parameters()
    size, columns, rows = 32, 3, -2
    pixel = 2 / size / parameters.camera[:, 0]  # metres
    shift = torch.stack([0 * pixel, columns * pixel, -rows * pixel], dim=1)
    still = render(head, parameters, size, backend)
    moved = render(head, parameters.replace(camera=parameters.camera + shift), size, backend)
    torch.testing.assert_close(moved.image[..., :-2, 3:], still.image[..., 2:, :-3], rtol=0, atol=1e-6)
    expected = still.landmarks + torch.tensor([columns, rows])
    torch.testing.assert_close(moved.landmarks, expected, rtol=0, atol=1e-9)


def test_a_light_from_the_left_brightens_the_subjects_left() -> None:
    head = small_head()
    parameters = head.mean_parameters()
    light = directional(torch.tensor([[1.0, 0.0, 0.5]]), torch.ones(1, 3), torch.full((1, 3), 0.2))
    rendering = render(head, parameters.replace(lighting=light), 64)
    image = rendering.image.mean(dim=(0, 1))
    assert image[:, 36:].sum() > 1.5 * image[:, :28].sum()  # x to the subject's left is the image's right


def test_background_color_or_picture_shows_beside_the_face() -> None:
    head = small_head()
    parameters = head.mean_parameters(2)
    plain = render(head, parameters, 24)
    assert (plain.image[(plain.mask == 0)[:, None].expand_as(plain.image)] == 0).all()
    color = torch.tensor([0.2, 0.4, 0.6])
    behind = (1 - plain.mask[:, None]) * color.reshape(3, 1, 1)
    torch.testing.assert_close(render(head, parameters, 24, background=color).image, plain.image + behind)
    photo = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    composed = render(head, parameters, 24, background=photo).image
    torch.testing.assert_close(composed, plain.image + (1 - plain.mask[:, None]) * photo)


def test_a_face_outside_of_the_image_is_black_with_zero_gradient(backend: str) -> None:
    head = small_head()
    parameters = head.mean_parameters(2)
    camera = (parameters.camera + torch.tensor([0.0, 5.0, 0.0])).requires_grad_()
    rendering = render(head, parameters.replace(camera=camera), 16, backend)
    assert rendering.image.abs().sum() == rendering.mask.sum() == 0
    (grad,) = torch.autograd.grad(rendering.image.sum(), camera)
    assert (grad == 0).all()


def test_backends_render_the_same_picture_and_gradient() -> None:
    pytest.importorskip("numba")
    head = small_head()
    results = []
    for backend in ("torch", "numba"):
        vector = varied_parameters(2, torch.float32).to_vector().requires_grad_()
        rendering = render(head, FaceParameters.from_vector(vector, head.layout), 40, backend)
        loss = rendering.image.square().mean() + rendering.normals[:, 0].mean() + rendering.depth.mean()
        results.append((rendering.image.detach(), torch.autograd.grad(loss, vector)[0]))
    (slow, slow_grad), (fast, fast_grad) = results
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-5)
    torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-3, atol=1e-5)


def test_mixed_precision_around_the_renderer_does_not_reach_the_pixels() -> None:
    head, parameters = small_head(), varied_parameters(2, torch.float32)
    plain = render(head, parameters, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = render(head, parameters, 24)
    assert torch.equal(mixed.image, plain.image)


def test_not_finite_parameters_name_their_face() -> None:
    head = small_head()
    parameters = head.mean_parameters(3)
    parameters.shape[1, 0] = float("nan")
    with pytest.raises(ValueError, match="face 1 of the batch of 3"):
        render(head, parameters, 16)


@pytest.mark.parametrize("group", ["shape", "expression", "pose", "albedo", "lighting", "camera"])
@pytest.mark.parametrize("what", ["image", "normals", "depth"])
def test_gradients_match_finite_differences(group: str, what: str, backend: str) -> None:
    """Along a random direction of one group, over the pixels that keep their triangle."""
    head, parameters = small_head().double(), varied_parameters()
    random = torch.Generator().manual_seed(1)
    value = getattr(parameters, group)
    direction = torch.randn(value.shape, generator=random, dtype=torch.float64)
    step = 1e-8  # a pixel that crosses a texel within the step would spoil the difference
    start = value.clone().requires_grad_()
    before, here, after = (
        render(head, parameters.replace(**{group: moved}), 24, backend)
        for moved in (value - step * direction, start, value + step * direction)
    )
    seen = here.fragments.triangle
    stable = (seen == before.fragments.triangle) & (seen == after.fragments.triangle)
    assert stable.float().mean() > 0.98
    values = [getattr(rendering, what) for rendering in (before, here, after)]
    values = [(v if v.ndim == 3 else v.permute(0, 2, 3, 1))[stable] for v in values]
    factor = torch.rand(values[0].shape, generator=random, dtype=torch.float64)
    slope = ((values[2] - values[0]) / (2 * step) * factor).sum()
    if not values[1].requires_grad:  # the albedo does not move a vertex
        assert slope == 0
        return
    (grad,) = torch.autograd.grad((values[1] * factor).sum(), start, allow_unused=True)
    expected = torch.zeros(()).double() if grad is None else (grad * direction).sum()
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-4)

"""Huge numbers, NaN and infinity, in parameters and meshes: an error that names the face, never a crash.

Where they get past the checks they must still not become an index; `monkeypatch` takes the checks away.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from backend_device import device_of, need
from small_head import small_head
from torch import Tensor

from facegpt.errors import FaceGPTError, RenderingError
from facegpt.head.mesh import Mesh
from facegpt.head.parameters import FaceParameters
from facegpt.render import Rendering, finite, render, render_mesh
from facegpt.render.lighting import ambient
from facegpt.render.surface import sample_texture

GROUPS = ("shape", "expression", "pose", "albedo", "lighting", "camera", "neck", "eyes")
HOSTILE = (1e20, 1e30, 1e38, -1e38, math.nan, math.inf, -math.inf)


@pytest.fixture(params=["torch", "numba", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    return need(request.param)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(finite, "_raise_or_ask", lambda flags, raise_for, wait: None)
    yield


def hostile_parameters(group: str, value: float) -> FaceParameters:
    """Three faces of which the second has one number that is not like the others."""
    parameters = small_head().mean_parameters(3, neck=True, eyes=True)
    getattr(parameters, group)[1, 0] = value
    return parameters


def there_and_back(parameters: FaceParameters, backend: str, size: int = 24) -> Rendering:
    """Image, geometry and gradient; on a GPU with the answers that came late."""
    device = device_of(backend)
    head = small_head().to(device)
    vector = parameters.to_vector().to(device).requires_grad_()
    rendering = render(head, FaceParameters.from_vector(vector, parameters.layout), size, backend)
    loss = rendering.image.sum() + rendering.normals.sum() + rendering.depth.sum()
    torch.autograd.grad(loss, vector)
    if device.type == "cuda":
        torch.cuda.synchronize()
        finite.poll()
    return rendering


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("group", GROUPS)
def test_a_hostile_parameter_is_an_error_that_names_face_and_group(
    group: str, value: float, backend: str
) -> None:
    with pytest.raises(RenderingError, match=rf"face 1 of the batch of 3 has face parameters \({group}\)"):
        there_and_back(hostile_parameters(group, value), backend)


@pytest.mark.parametrize(
    ("backend", "group", "value"),
    [
        (name, group, value)
        for name in ("torch", "numba", "triton")
        for group in GROUPS
        for value in HOSTILE
        if name != "triton" or torch.cuda.is_available()  # its interpreter is slow: four cases must do
        or (group in ("shape", "camera") and value in (1e38, math.inf))
    ],
    indirect=["backend"],
)  # fmt: skip
@pytest.mark.usefixtures("unchecked")
def test_numbers_that_slip_through_become_no_index(group: str, value: float, backend: str) -> None:
    """Forward and backward: not finite perhaps, but in bounds, and the other faces are as without them."""
    parameters = hostile_parameters(group, value)
    shown = there_and_back(parameters, backend)
    alone = there_and_back(small_head().mean_parameters(3, neck=True, eyes=True), backend)
    assert torch.equal(shown.image[[0, 2]], alone.image[[0, 2]])


@pytest.mark.parametrize("value", [1e6, -1e6])
@pytest.mark.parametrize("group", GROUPS)
def test_what_is_only_large_is_drawn(group: str, value: float, backend: str) -> None:
    there_and_back(hostile_parameters(group, value), backend)


def test_the_error_is_a_value_error_and_one_of_ours(backend: str) -> None:
    with pytest.raises(ValueError) as caught:
        there_and_back(hostile_parameters("albedo", math.nan), backend)
    assert isinstance(caught.value, FaceGPTError)


def textured_square(device: torch.device) -> Mesh:
    corners = torch.tensor([[[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]]])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]], device=device)
    uv = (corners[0, :, :2] + 1) / 2
    texture = torch.rand(1, 5, 6, 3, generator=torch.Generator().manual_seed(0))
    return Mesh(
        corners.to(device), triangles, texture=texture.to(device), uv=uv.to(device), uv_triangles=triangles
    )


def draw(mesh: Mesh, backend: str, lighting: Tensor | None = None) -> Rendering:
    device = device_of(backend)
    lighting = ambient().to(device) if lighting is None else lighting
    camera = torch.tensor([[1.0, 0.0, 0.0]], device=device)
    leaves = [mesh.vertices.clone().requires_grad_(), mesh.texture.clone().requires_grad_()]  # type: ignore[union-attr]
    mesh = replace(mesh, vertices=leaves[0], texture=leaves[1])
    rendering = render_mesh(mesh, camera, lighting, 9, 11, backend)
    torch.autograd.grad(rendering.image.sum(), leaves)
    if device.type == "cuda":
        torch.cuda.synchronize()
        finite.poll()
    return rendering


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, math.nan, math.inf])
def test_texture_coordinates_out_of_range_are_an_error(value: float, backend: str) -> None:
    mesh = textured_square(device_of(backend))
    assert mesh.uv is not None
    mesh.uv[2, 1] = value
    with pytest.raises(RenderingError, match="uv coordinates that are not finite or beyond"):
        draw(mesh, backend)


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, math.nan, math.inf])
@pytest.mark.usefixtures("unchecked")
def test_texture_coordinates_that_slip_through_stay_in_the_texture(value: float, backend: str) -> None:
    mesh = textured_square(device_of(backend))
    assert mesh.uv is not None
    mesh.uv[:, :] = value
    image = draw(mesh, backend).image
    assert ((image >= 0) & (image <= 1.0001)).all()


@pytest.mark.parametrize("shape", [(1, 0, 0, 3), (1, 0, 4, 3), (1, 4, 0, 3)])
def test_a_texture_of_no_size_is_an_error(shape: tuple[int, ...], backend: str) -> None:
    device = device_of(backend)
    with pytest.raises(RenderingError, match="at least one texel"):
        draw(replace(textured_square(device), texture=torch.zeros(shape, device=device)), backend)
    with pytest.raises(RenderingError, match="at least one texel"):
        sample_texture(torch.zeros(shape), torch.zeros(1, 2, 2))


@pytest.mark.parametrize("value", [1e20, math.nan, math.inf])
def test_light_of_a_mesh_is_checked(value: float, backend: str) -> None:
    lighting = ambient().to(device_of(backend))
    lighting[0, 4] = value
    with pytest.raises(RenderingError, match="face 0 of the batch of 1 has lighting coefficients"):
        draw(textured_square(device_of(backend)), backend, lighting)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [1e20, 3e38, math.nan])
def test_a_vertex_far_outside_is_an_error(value: float, dtype: torch.dtype, backend: str) -> None:
    mesh = textured_square(device_of(backend))
    vertices = mesh.vertices.to(dtype, copy=True)
    vertices[0, 2, 0] = value
    with pytest.raises(RenderingError, match="face 0 of the batch of 1 has vertices"):
        draw(replace(mesh, vertices=vertices), backend)


@pytest.mark.parametrize("size", [0, -1])
def test_an_image_without_pixels_is_an_error(size: int, backend: str) -> None:
    with pytest.raises(RenderingError, match=f"at least one pixel, got height {size}"):
        there_and_back(small_head().mean_parameters(1), backend, size)


def test_no_face_is_an_empty_rendering(backend: str) -> None:
    rendering = there_and_back(small_head().mean_parameters(3)[:0], backend)
    assert rendering.image.shape == (0, 3, 24, 24)
    assert rendering.normals.shape == (0, 3, 24, 24)
    assert rendering.landmarks.shape == (0, 68, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_parameters_of_another_precision_are_converted(dtype: torch.dtype, backend: str) -> None:
    mean = small_head().mean_parameters(2).to(dtype)
    shown, expected = (there_and_back(parameters, backend) for parameters in (mean, mean.to(torch.float32)))
    assert shown.image.dtype == shown.landmarks.dtype == torch.float32
    torch.testing.assert_close(shown.image, expected.image)
    torch.testing.assert_close(shown.landmarks, expected.landmarks)

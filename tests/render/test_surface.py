"""Vertex normals and texture look-up against closed forms and finite differences."""

import pytest
import torch

from facegpt.render.backends import choose
from facegpt.render.pixels import Pixels
from facegpt.render.surface import sample_texture, texture_at, unit


@pytest.fixture(params=["torch", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba":
        pytest.importorskip("numba")
    return str(request.param)


def vertex_normals(vertices: torch.Tensor, triangles: torch.Tensor, backend: str) -> torch.Tensor:
    camera = torch.ones(len(vertices), 3, dtype=vertices.dtype)
    return choose(backend, vertices.device).project(vertices, camera, triangles, 8, 8)[1]


OCTAHEDRON = torch.tensor(
    [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
)
AXES = torch.cat([torch.eye(3), -torch.eye(3)])[[0, 3, 1, 4, 2, 5]]  # +x -x +y -y +z -z


def test_normals_of_an_octahedron_point_outwards(backend: str) -> None:
    vertices = torch.stack([AXES, 0.1 * AXES + 5])
    torch.testing.assert_close(vertex_normals(vertices, OCTAHEDRON, backend), torch.stack([AXES, AXES]))


def test_normals_are_weighted_by_area(backend: str) -> None:
    # two right triangles share vertex 0: one in the xy-plane of area 2, one in the yz-plane of area 1/2
    vertices = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1]]])
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2], [0, 3, 4]]), backend)
    torch.testing.assert_close(normals[0, 0], torch.tensor([0.5, 0.0, 2.0]) / (0.25 + 4) ** 0.5)
    torch.testing.assert_close(normals[0, 3], torch.tensor([1.0, 0.0, 0.0]))


def test_normals_turn_with_the_surface(backend: str) -> None:
    random = torch.Generator().manual_seed(0)
    vertices = AXES.double() + 0.1 * torch.randn(2, 6, 3, generator=random, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=random, dtype=torch.float64))[0]
    turn = turn * turn.det()
    turned = vertex_normals(vertices @ turn.T, OCTAHEDRON, backend)
    torch.testing.assert_close(turned, vertex_normals(vertices, OCTAHEDRON, backend) @ turn.T)


def test_normal_gradients_match_finite_differences(backend: str) -> None:
    random = torch.Generator().manual_seed(1)
    vertices = AXES.double() + 0.2 * torch.randn(2, 6, 3, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda v: vertex_normals(v, OCTAHEDRON, backend), vertices.requires_grad_()
    )


def test_a_vertex_without_area_has_no_normal_and_a_finite_gradient(backend: str) -> None:
    vertices = torch.zeros(1, 4, 3, requires_grad=True)  # one point, and vertex 3 in no triangle
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2]]), backend)
    assert (normals == 0).all()
    (grad,) = torch.autograd.grad(normals.sum(), vertices)
    assert grad.isfinite().all()


def test_unit_leaves_zero_vectors_alone() -> None:
    vectors = torch.tensor([[3.0, 0.0], [0.0, 0.0], [4.0, 0.0]], requires_grad=True)
    scaled = unit(vectors)
    torch.testing.assert_close(scaled, torch.tensor([[0.6, 0.0], [0.0, 0.0], [0.8, 0.0]]))
    assert torch.autograd.grad(scaled.sum(), vectors)[0].isfinite().all()


def test_texture_has_row_0_at_v_1_and_texels_at_their_centers() -> None:
    texture = torch.arange(24.0).reshape(1, 2, 4, 3)
    uv = torch.tensor([[[0.125, 0.75], [0.875, 0.75], [0.375, 0.25]]])
    torch.testing.assert_close(sample_texture(texture, uv), texture[:, [0, 0, 1], [0, 3, 1]])


def test_texture_is_linear_between_texels_and_constant_beyond_the_border() -> None:
    texture = torch.tensor([[0.0, 1.0, 4.0]]).reshape(1, 1, 3, 1)
    uv = torch.tensor([[[1 / 3, 0.5], [2 / 3, 0.1], [0.0, 0.5], [1.0, 1.0], [1.7, -3.0]]])
    expected = torch.tensor([0.5, 2.5, 0.0, 4.0, 4.0])
    torch.testing.assert_close(sample_texture(texture, uv)[0, :, 0], expected)


def test_texture_gradients_match_finite_differences() -> None:
    random = torch.Generator().manual_seed(2)
    texture = torch.rand(2, 4, 5, 3, generator=random, dtype=torch.float64, requires_grad=True)
    uv = torch.rand(2, 7, 2, generator=random, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sample_texture, (texture, uv))


def listed_pixels(faces: list[int]) -> Pixels:
    """Pixels of two faces; only the face of each matters to what is tested here."""
    face = torch.tensor(faces)
    none = torch.zeros(3, len(faces), dtype=torch.int64)
    return Pixels(torch.arange(len(faces)), face, face, none, none[:2], (2, 2, len(faces)))


def test_texture_of_listed_pixels_is_that_of_their_face() -> None:
    random = torch.Generator().manual_seed(3)
    texture = torch.rand(2, 4, 5, 3, generator=random)
    uv = torch.rand(2, 7, generator=random) * 2 - 0.5  # beyond the border too
    faces = [0, 0, 0, 0, 1, 1, 1]
    texels = texture_at(texture, uv, listed_pixels(faces))
    for p, face in enumerate(faces):
        expected = sample_texture(texture[face : face + 1], uv[:, p].reshape(1, 1, 2))[0, 0]
        torch.testing.assert_close(texels[:, p], expected)


def test_gradients_of_listed_texture_match_finite_differences() -> None:
    random = torch.Generator().manual_seed(4)
    texture = torch.rand(2, 4, 5, 3, generator=random, dtype=torch.float64, requires_grad=True)
    uv = (torch.rand(2, 7, generator=random, dtype=torch.float64) * 1.6 - 0.3).requires_grad_()
    pixels = listed_pixels([0, 0, 1, 1, 1, 1, 1])
    assert torch.autograd.gradcheck(lambda t, u: texture_at(t, u, pixels), (texture, uv))


def test_texture_without_gradient_still_passes_one_to_uv() -> None:
    texture = torch.tensor([0.0, 1.0, 3.0]).reshape(1, 1, 3, 1).expand(2, 1, 3, 1)
    uv = torch.tensor([[0.4, 0.6], [0.5, 0.5]], requires_grad=True)
    texels = texture_at(texture, uv, listed_pixels([0, 1]))
    (grad,) = torch.autograd.grad(texels.sum(), uv)
    torch.testing.assert_close(grad, torch.tensor([[3.0, 6.0], [0.0, 0.0]]))

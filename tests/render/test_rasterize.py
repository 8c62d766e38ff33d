"""Triangle ids against exact rational arithmetic, closed forms and each other; the rules of the module."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from facegpt.render import rasterize_torch
from facegpt.render.rasterize import SUBPIXELS, rasterize, triangle_ids


@pytest.fixture(params=["torch", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba":
        pytest.importorskip("numba")
    return str(request.param)


def random_mesh(seed: int, batch: int, count: int, spread: float, size: float) -> tuple[Tensor, Tensor]:
    """Separate triangles of about `size` pixels with centres spread around a 30 pixel image."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(batch, count, 1, 3, generator=random) * spread - (spread - 30) / 2
    vertices = centres + size * torch.randn(batch, count, 3, 3, generator=random)
    return vertices.flatten(1, 2), torch.arange(3 * count).reshape(count, 3)


def exact_ids(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Pixel by pixel, triangle by triangle in rational arithmetic; slow and independent of the backends."""
    corners = vertices.double().tolist()
    points = [[Fraction(round(c * SUBPIXELS), SUBPIXELS) for c in corner[:2]] for corner in corners]
    depths = [Fraction(corner[2]) for corner in corners]
    ids = torch.full((height, width), -1)
    for row in range(height):
        for column in range(width):
            x, y, nearest = column + Fraction(1, 2), row + Fraction(1, 2), None
            for number, triangle in enumerate(triangles.tolist()):
                shares = []
                for k in range(3):
                    (ax, ay), (bx, by) = points[triangle[k - 2]], points[triangle[k - 1]]
                    edge = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
                    shares.append((edge, bx - ax, by - ay))
                area = sum(edge for edge, _, _ in shares)
                if area == 0:
                    continue
                sign = 1 if area > 0 else -1
                # the interior is below a top edge, which is level, and to the right of a left edge
                belongs = [
                    sign * edge > 0 or (edge == 0 and (sign * dy < 0 or (dy == 0 and sign * dx > 0)))
                    for edge, dx, dy in shares
                ]
                if all(belongs):
                    depth = sum(s[0] * depths[v] for s, v in zip(shares, triangle, strict=True)) / area
                    if nearest is None or depth < nearest:
                        nearest, ids[row, column] = depth, number
    return ids


@pytest.mark.parametrize("seed", [0, 1])
def test_ids_are_those_of_exact_arithmetic(backend: str, seed: int) -> None:
    vertices, triangles = random_mesh(seed, 1, 12, 40, 12)
    ids = triangle_ids(vertices, triangles, 13, 17, backend)
    assert torch.equal(ids[0], exact_ids(vertices[0], triangles, 13, 17))
    assert (ids >= 0).float().mean() > 0.3


def test_ids_are_exact_where_edges_and_vertices_hit_pixel_centres(backend: str) -> None:
    random = torch.Generator().manual_seed(2)
    vertices = torch.randint(0, 9, (1, 24, 3), generator=random) + torch.tensor([0.5, 0.5, 0.0])
    vertices[..., 2] = torch.rand(1, 24, generator=random)
    triangles = torch.arange(24).reshape(8, 3)
    ids = triangle_ids(vertices, triangles, 9, 9, backend)
    assert torch.equal(ids[0], exact_ids(vertices[0], triangles, 9, 9))


@pytest.mark.parametrize("jitter", [0.0, 0.35])
def test_triangles_of_a_square_cover_each_pixel_exactly_once(backend: str, jitter: float) -> None:
    """A tessellated square whose border runs through pixel centres, rasterized triangle by triangle."""
    columns, rows = 7, 5
    random = torch.Generator().manual_seed(3)
    x, y = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
    moved = torch.stack([x, y], dim=-1).double()
    moved[1:-1, 1:-1] += jitter * torch.randn(rows - 2, columns - 2, 2, generator=random).clamp(-1, 1)
    points = moved.flatten(0, 1) * torch.tensor([16 / (columns - 1), 12 / (rows - 1)]) + 2.5
    vertices = torch.cat([points, torch.zeros(len(points), 1)], dim=1)[None]
    hits = torch.zeros(20, 24, dtype=torch.int64)
    for row in range(rows - 1):
        for column in range(columns - 1):
            a = row * columns + column
            for triangle in ([a, a + 1, a + columns], [a + columns + 1, a + 1, a + columns]):
                hits += triangle_ids(vertices, torch.tensor([triangle]), 20, 24, backend)[0] == 0
    expected = torch.zeros_like(hits)
    expected[2:14, 2:18] = 1  # centres on the left and top border are in, on the right and bottom one out
    assert torch.equal(hits, expected)


def test_fan_around_a_pixel_centre_hits_it_once(backend: str) -> None:
    angle = torch.linspace(0, 2 * torch.pi, 14)[:-1] + 0.1
    rim = torch.stack([4.5 + 3 * angle.cos(), 4.5 + 3 * angle.sin(), 0 * angle], dim=1)
    vertices = torch.cat([torch.tensor([[4.5, 4.5, 0.0]]), rim])[None]
    fan = [torch.tensor([[0, 1 + k, 1 + (k + 1) % 13]]) for k in range(13)]
    hits = torch.zeros(9, 9)
    for triangle in fan:
        hits += triangle_ids(vertices, triangle, 9, 9, backend)[0] >= 0
    assert hits.max() == 1
    assert hits[4, 4] == 1


@pytest.mark.parametrize(
    ("height", "width", "spread", "size"),
    [
        (30, 30, 30, 3),
        (21, 45, 90, 10),
        (1, 1, 30, 20),
        (40, 3, 60, 400),
        (16, 16, 1e4, 5e3),
        (8, 8, 10, 1e9),
    ],
)
def test_numba_and_torch_see_the_same_triangles(height: int, width: int, spread: float, size: float) -> None:
    pytest.importorskip("numba")
    vertices, triangles = random_mesh(4, 3, 200, spread, size)
    slow = triangle_ids(vertices, triangles, height, width, "torch")
    assert torch.equal(slow, triangle_ids(vertices, triangles, height, width, "numba"))
    assert (slow >= 0).any()


def test_numba_on_two_threads_sees_the_same_triangles() -> None:
    pytest.importorskip("numba")
    vertices, triangles = random_mesh(5, 4, 50, 40, 5)
    threads = torch.get_num_threads()
    single = triangle_ids(vertices, triangles, 30, 30, "numba")
    try:
        torch.set_num_threads(threads + 1)
        assert torch.equal(triangle_ids(vertices, triangles, 30, 30, "numba"), single)
    finally:
        torch.set_num_threads(threads)


def test_chunks_do_not_change_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, triangles = random_mesh(6, 2, 60, 40, 6)
    whole = triangle_ids(vertices, triangles, 30, 30, "torch")
    monkeypatch.setattr(rasterize_torch, "CANDIDATES_PER_CHUNK", 50)
    assert torch.equal(triangle_ids(vertices, triangles, 30, 30, "torch"), whole)


def test_both_windings_are_drawn_alike(backend: str) -> None:
    vertices, triangles = random_mesh(7, 1, 40, 40, 6)
    ids = triangle_ids(vertices, triangles, 30, 30, backend)
    assert torch.equal(ids, triangle_ids(vertices, triangles.flip(1), 30, 30, backend))


def test_nearest_wins_and_ties_go_to_the_lower_index(backend: str) -> None:
    flat = torch.tensor([[-9.0, -9.0], [30.0, -9.0], [-9.0, 30.0]])
    layers = [torch.cat([flat, torch.full((3, 1), depth)], dim=1) for depth in (0.5, -0.2, 0.0, -0.2)]
    ids = triangle_ids(torch.cat(layers)[None], torch.arange(12).reshape(4, 3), 4, 4, backend)
    assert (ids == 1).all()


def test_interpenetrating_triangles_cut_where_their_depths_cross(backend: str) -> None:
    corners = torch.tensor([[0.0, -50.0], [0.0, 50.0], [16.0, 0.0]])
    left_near = torch.cat([corners, torch.tensor([[0.0], [0.0], [1.0]])], dim=1)  # depth = x / 16
    right_near = torch.cat([corners, torch.tensor([[0.7], [0.7], [-0.3]])], dim=1)  # depth = 0.7 - x / 16
    vertices = torch.cat([left_near, right_near])[None]
    ids = triangle_ids(vertices, torch.arange(6).reshape(2, 3), 1, 16, backend)[0, 0]
    assert ids.tolist() == [0] * 6 + [1] * 10  # cross at x = 5.6: centres up to 5.5 see the first


def test_triangles_without_area_draw_nothing(backend: str) -> None:
    vertices = torch.tensor([[[1.0, 1.0, 0.0], [7.0, 7.0, 0.0], [4.0, 4.0, 0.0], [1.0, 1.0, 0.5]]])
    triangles = torch.tensor([[0, 1, 2], [0, 0, 1], [0, 3, 1], [2, 2, 2]])
    assert (triangle_ids(vertices, triangles, 8, 8, backend) == -1).all()


def test_shift_by_whole_pixels_shifts_the_ids(backend: str) -> None:
    vertices, triangles = random_mesh(8, 1, 60, 20, 5)
    ids = triangle_ids(vertices.double(), triangles, 30, 30, backend)
    moved = triangle_ids(vertices.double() + torch.tensor([5.0, 3.0, 0.0]), triangles, 33, 35, backend)
    assert torch.equal(moved[:, 3:, 5:], ids)


def test_faces_of_a_batch_do_not_mix(backend: str) -> None:
    vertices, triangles = random_mesh(9, 3, 40, 40, 6)
    together = triangle_ids(vertices, triangles, 20, 20, backend)
    for face in range(3):
        alone = triangle_ids(vertices[face : face + 1], triangles, 20, 20, backend)
        assert torch.equal(together[face], alone[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_vertices_that_are_not_finite_name_their_face(bad: float) -> None:
    vertices, triangles = random_mesh(10, 4, 3, 30, 5)
    vertices[2, 5, 1] = bad
    with pytest.raises(ValueError, match="face 2 of the batch of 4"):
        rasterize(vertices, triangles, 8, 8)


def test_wrong_requests_are_refused() -> None:
    vertices, triangles = random_mesh(11, 1, 3, 30, 5)
    with pytest.raises(ValueError, match="unknown rasterizer backend 'opengl'"):
        rasterize(vertices, triangles, 8, 8, backend="opengl")
    with pytest.raises(ValueError, match="height 0"):
        rasterize(vertices, triangles, 0, 8)


def test_fragments_locate_each_pixel_in_its_triangle(backend: str) -> None:
    vertices, triangles = random_mesh(12, 2, 60, 40, 8)
    seen = rasterize(vertices.double(), triangles, 20, 30, backend)
    covered = seen.triangle >= 0
    assert 0.2 < covered.float().mean() < 1
    assert (seen.barycentric[~covered] == 0).all()
    assert (seen.depth[~covered] == 0).all()
    weights = seen.barycentric[covered]
    assert weights.min() >= 0
    face, row, column = covered.nonzero().T
    corners = vertices.double()[face[:, None], triangles[seen.triangle[covered]]]
    located = (weights[:, :, None] * corners).sum(dim=1)
    # snapping may put a centre 1/4096 pixel outside of its triangle
    torch.testing.assert_close(located[:, 0], column + 0.5, rtol=0, atol=1e-3, check_dtype=False)
    torch.testing.assert_close(located[:, 1], row + 0.5, rtol=0, atol=1e-3, check_dtype=False)
    torch.testing.assert_close(located[:, 2], seen.depth[covered])


def test_weights_and_depth_differentiate_like_finite_differences(backend: str) -> None:
    vertices, triangles = random_mesh(13, 2, 6, 20, 9)
    vertices = vertices.double()
    random = torch.Generator().manual_seed(14)
    shift = torch.randn(vertices.shape, generator=random, dtype=torch.float64)
    step = 1e-6
    before, here, after = (
        rasterize(moved, triangles, 16, 12, backend)
        for moved in (vertices - step * shift, vertices.requires_grad_(), vertices + step * shift)
    )
    stable = (here.triangle >= 0) & (before.triangle == here.triangle) & (here.triangle == after.triangle)
    assert stable.sum() > 100
    for name in ("barycentric", "depth"):
        values = getattr(here, name)[stable]
        factor = torch.randn(values.shape, generator=random, dtype=torch.float64)
        (grad,) = torch.autograd.grad((values * factor).sum(), vertices, retain_graph=True)
        slope = (getattr(after, name) - getattr(before, name))[stable] / (2 * step)
        torch.testing.assert_close((grad * shift).sum(), (slope * factor).sum(), rtol=1e-6, atol=1e-6)

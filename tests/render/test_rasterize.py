"""Triangle ids against exact rational arithmetic, closed forms and each other; the rules of the module."""

import importlib
from fractions import Fraction

import pytest
import torch
from backend_device import device_of, need
from torch import Tensor

from facegpt.render.backends import choose
from facegpt.render.backends import torch as reference
from facegpt.render.finite import poll
from facegpt.render.rasterize import SUBPIXELS
from facegpt.render.rendering import Fragments

exact = importlib.import_module("facegpt.render.rasterize")  # the package has a function of that name


@pytest.fixture(params=["torch", "numba", "triton"])
def backend(request: pytest.FixtureRequest) -> str:
    """Not pytorch3d, which follows other rules on edges: see test_backends."""
    return need(request.param)


def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int, backend: str) -> Tensor:
    device = device_of(backend)
    chosen = choose(backend, device)
    return exact.triangle_ids(vertices.to(device), triangles.to(device), height, width, chosen).cpu()


def rasterize(vertices: Tensor, triangles: Tensor, height: int, width: int, backend: str) -> Fragments:
    device = device_of(backend)
    seen = exact.rasterize(vertices.to(device), triangles.to(device), height, width, backend)
    if device.type == "cuda":
        torch.cuda.synchronize()
        poll()
    return Fragments(seen.triangle.cpu(), seen.barycentric.cpu(), seen.depth.cpu())


def random_mesh(seed: int, batch: int, count: int, spread: float, size: float) -> tuple[Tensor, Tensor]:
    """Separate triangles of about `size` pixels with centres spread around a 30 pixel image."""
    random = torch.Generator().manual_seed(seed)
    centers = torch.rand(batch, count, 1, 3, generator=random) * spread - (spread - 30) / 2
    vertices = centers + size * torch.randn(batch, count, 3, 3, generator=random)
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


def test_ids_are_exact_where_edges_and_vertices_hit_pixel_centers(backend: str) -> None:
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


@pytest.mark.parametrize(("size", "quads"), [(7.0, 60), (9.5, 25), (16.0, 16)])
def test_a_sheet_of_tiny_triangles_covers_each_pixel_exactly_once(
    backend: str, size: float, quads: int
) -> None:
    """0.1 to 1 pixel wide, crooked inside; eight sheets, so that no two neighbours are in the same one."""
    random = torch.Generator().manual_seed(15)
    y, x = torch.meshgrid(torch.arange(quads + 1), torch.arange(quads + 1), indexing="ij")
    points = torch.stack([x, y], dim=-1).double()
    points[1:-1, 1:-1] += 0.4 * (torch.rand(quads - 1, quads - 1, 2, generator=random) - 0.5)
    points = (points * (size / quads) + 2.5).flatten(0, 1)
    a = (y * (quads + 1) + x)[:-1, :-1].flatten()
    triangles = torch.stack([a, a + 1, a + quads + 1, a + quads + 2, a + quads + 1, a + 1], dim=1).reshape(
        -1, 3
    )
    sheet = torch.stack([x % 2 + 2 * (y % 2), x % 2 + 2 * (y % 2) + 4], dim=-1)[:-1, :-1].flatten()
    corners = torch.nn.functional.pad(points[triangles], (0, 1)).flatten(0, 1)
    here = sheet.repeat_interleave(3) == torch.arange(8)[:, None]
    vertices = torch.where(here[:, :, None], corners, -50 + 0 * corners)  # the other sheets are elsewhere
    hits = (triangle_ids(vertices, torch.arange(len(corners)).reshape(-1, 3), 20, 21, backend) >= 0).sum(0)
    inside = (torch.arange(21) + 0.5 >= 2.5) & (torch.arange(21) + 0.5 < 2.5 + size)
    assert torch.equal(hits, (inside[:20, None] & inside).long())


def grid(columns: int, rows: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """A sheet of 2 x columns x rows triangles across a square image, and which one each pixel sees."""
    y, x = torch.meshgrid(torch.arange(rows + 1), torch.arange(columns + 1), indexing="ij")
    wide, high = size // columns, size // rows
    vertices = torch.stack([x * wide + 0.25, y * high + 0.25, 0 * x], dim=-1).float().reshape(1, -1, 3)
    a = (y * (columns + 1) + x)[:-1, :-1].flatten()
    below = a + columns + 1
    triangles = torch.stack([a, a + 1, below, below + 1, below, a + 1], dim=1).reshape(-1, 3)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    u, v = (x + 0.25) / wide, (y + 0.25) / high
    lower = (u % 1 + v % 1 > 1).long()  # beyond the diagonal; no centre lies on an edge
    return vertices, triangles, 2 * (v.long() * columns + u.long()) + lower


@pytest.mark.parametrize(
    ("columns", "rows", "size"),
    [(32, 64, 128), pytest.param(512, 1024, 2048, marks=pytest.mark.slow)],
)
def test_a_million_triangles_are_where_arithmetic_puts_them(
    backend: str, columns: int, rows: int, size: int
) -> None:
    vertices, triangles, expected = grid(columns, rows, size)
    assert torch.equal(triangle_ids(vertices, triangles, size, size, backend)[0], expected)


def test_triangles_beside_the_image_draw_nothing_and_one_around_it_everything(backend: str) -> None:
    shape = torch.tensor([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    places = [(x, y) for x in (-7.0, 1.0, 12.0) for y in (-6.0, 1.0, 8.0) if (x, y) != (1.0, 1.0)]
    beside = torch.stack([shape + torch.tensor([x, y, 0.0]) for x, y in places]).reshape(1, -1, 3)
    triangles = torch.arange(24).reshape(8, 3)
    assert (triangle_ids(beside, triangles, 8, 12, backend) == -1).all()
    around = torch.tensor([[[-1e5, -1e5, 3.0], [3e5, -1e5, 3.0], [-1e5, 3e5, 3.0]]])
    assert (triangle_ids(around, torch.tensor([[0, 1, 2]]), 8, 12, backend) == 0).all()


def test_no_triangle_and_no_face(backend: str) -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert (triangle_ids(torch.rand(2, 4, 3), none, 3, 5, backend) == -1).all()
    seen = rasterize(torch.rand(0, 4, 3), torch.tensor([[0, 1, 2]]), 3, 5, backend)
    assert seen.triangle.shape == (0, 3, 5)
    assert seen.barycentric.shape == (0, 3, 5, 3)


def test_forward_gives_the_same_numbers_every_time(backend: str) -> None:
    vertices, triangles = random_mesh(16, 2, 80, 40, 8)
    first, second = (rasterize(vertices, triangles, 24, 30, backend) for _ in range(2))
    for name in ("triangle", "barycentric", "depth"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_fan_around_a_pixel_center_hits_it_once(backend: str) -> None:
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
def test_backends_see_the_same_triangles(
    height: int, width: int, spread: float, size: float, backend: str
) -> None:
    vertices, triangles = random_mesh(4, 3, 200, spread, size)
    slow = triangle_ids(vertices, triangles, height, width, "torch")
    assert torch.equal(slow, triangle_ids(vertices, triangles, height, width, backend))
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
    monkeypatch.setattr(reference, "CANDIDATES_PER_CHUNK", 50)
    assert torch.equal(triangle_ids(vertices, triangles, 30, 30, "torch"), whole)


def test_both_windings_are_drawn_alike(backend: str) -> None:
    vertices, triangles = random_mesh(7, 1, 40, 40, 6)
    ids = triangle_ids(vertices, triangles, 30, 30, backend)
    assert torch.equal(ids, triangle_ids(vertices, triangles.flip(1), 30, 30, backend))


@pytest.mark.parametrize("turned", [[], [1], [3], [0, 1, 2, 3]])
def test_nearest_wins_and_ties_go_to_the_lower_index(turned: list[int], backend: str) -> None:
    """Also when some of the triangles turn their backs: turned."""
    flat = torch.tensor([[-9.0, -9.0], [30.0, -9.0], [-9.0, 30.0]])
    layers = [torch.cat([flat, torch.full((3, 1), depth)], dim=1) for depth in (0.5, -0.2, 0.0, -0.2)]
    triangles = torch.arange(12).reshape(4, 3)
    triangles[turned] = triangles[turned].flip(1)
    ids = triangle_ids(torch.cat(layers)[None], triangles, 4, 4, backend)
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
def test_vertices_that_are_not_finite_name_their_face(bad: float, backend: str) -> None:
    vertices, triangles = random_mesh(10, 4, 3, 30, 5)
    vertices[2, 5, 1] = bad
    with pytest.raises(ValueError, match="face 2 of the batch of 4"):
        rasterize(vertices, triangles, 8, 8, backend)


def test_wrong_requests_are_refused() -> None:
    vertices, triangles = random_mesh(11, 1, 3, 30, 5)
    with pytest.raises(ValueError, match="unknown rasterizer backend 'opengl'"):
        rasterize(vertices, triangles, 8, 8, backend="opengl")
    with pytest.raises(ValueError, match="height 0"):
        rasterize(vertices, triangles, 0, 8, "torch")


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

"""The triton kernels against the torch reference; without a GPU through triton's interpreter.

Tolerances: both sides do the same few operations in float32 (24 bits, 6e-8), on numbers about 1; sums over up
to a thousand pixels in another order are allowed a hundred times that. In float64 the same tests hold to
1e-9.
"""

import importlib

import pytest
import torch
from small_head import small_head
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="the triton package is not installed")

from facegpt.head.mesh import Mesh
from facegpt.head.parameters import FaceParameters
from facegpt.render import render, render_mesh, renderer
from facegpt.render.backends import choose
from facegpt.render.pixels import to_image, vertex_table
from facegpt.render.rasterize import triangle_ids

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float64]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}


def random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(DEVICE)


def mesh(dtype: torch.dtype, batch: int = 2) -> tuple[Tensor, Tensor]:
    """A bumpy sheet (B,42,3) over most of a 17 x 21 image, and its triangles."""
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    sheet = torch.stack([x * 3 + 0.7, y * 2.6 + 0.9, 0 * x], dim=-1).flatten(0, 1).to(dtype).to(DEVICE)
    corners = [7 * r + c for r in range(5) for c in range(6)]
    triangles = [t for k in corners for t in ((k, k + 1, k + 7), (k + 8, k + 7, k + 1))]
    return sheet + 0.4 * random(batch, 42, 3, seed=0, dtype=dtype), torch.tensor(triangles, device=DEVICE)


def results(work, inputs: list[Tensor], backend: str) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """What work returns, as images, and the gradients of a random weighting of it to all inputs."""
    inputs = [value.detach().clone().requires_grad_() for value in inputs]
    outputs = work(*inputs, backend)
    loss = sum((o * random(*o.shape, seed=9 + i, dtype=o.dtype)).sum() for i, o in enumerate(outputs))
    return [o.detach() for o in outputs] + list(torch.autograd.grad(loss, inputs))


def assert_alike(work, inputs: list[Tensor]) -> None:  # type: ignore[no-untyped-def]
    slow, fast = (results(work, inputs, backend) for backend in ("torch", "triton"))
    for a, b in zip(slow, fast, strict=True):
        torch.testing.assert_close(b, a, **tolerance(a.dtype))
        assert a.abs().max() > 0.01  # something was there to differ


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_and_interpolation(dtype: torch.dtype) -> None:
    vertices, triangles = mesh(dtype)
    ids = triangle_ids(vertices, triangles, 17, 21, choose("torch", DEVICE))
    assert 0.5 < (ids >= 0).float().mean() < 0.95

    def work(vertices: Tensor, attributes: Tensor, backend: str) -> list[Tensor]:
        chosen = choose(backend, DEVICE)
        pixels = chosen.covered_pixels(ids, triangles, 42, dtype)
        weights = chosen.barycentric_weights(vertex_table(vertices)[:2], pixels)
        values = chosen.interpolate(vertex_table(attributes), pixels.rows, weights)
        return [to_image(weights, pixels), to_image(values, pixels)]

    assert_alike(work, [vertices, random(2, 42, 4, seed=1, dtype=dtype)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_interpolation_of_a_table_without_gradient(dtype: torch.dtype) -> None:
    vertices, triangles = mesh(dtype)
    ids, table = (
        triangle_ids(vertices, triangles, 17, 21, choose("torch", DEVICE)),
        random(3, 84, seed=2, dtype=dtype),
    )

    def work(vertices: Tensor, backend: str) -> list[Tensor]:
        chosen = choose(backend, DEVICE)
        pixels = chosen.covered_pixels(ids, triangles, 42, dtype)
        weights = chosen.barycentric_weights(vertex_table(vertices)[:2], pixels)
        return [to_image(chosen.interpolate(table, pixels.rows, weights), pixels)]

    assert_alike(work, [vertices])


@pytest.mark.parametrize("dtype", DTYPES)
def test_vertex_normals(dtype: torch.dtype) -> None:
    vertices, triangles = mesh(dtype, 3)
    triangles = triangles[2:]  # vertex 0 has no triangle left
    camera = torch.ones(3, 3, dtype=dtype, device=DEVICE)

    def work(vertices: Tensor, backend: str) -> list[Tensor]:
        return [choose(backend, DEVICE).project(vertices, camera, triangles, 17, 21)[1]]

    assert_alike(work, [vertices])
    assert (work(vertices, "triton")[0][:, 0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_shading(dtype: torch.dtype) -> None:
    vertices, triangles = mesh(dtype)
    ids = triangle_ids(vertices, triangles, 17, 21, choose("torch", DEVICE))

    def work(normals: Tensor, lighting: Tensor, backend: str) -> list[Tensor]:
        chosen = choose(backend, DEVICE)
        pixels = chosen.covered_pixels(ids, triangles, 42, dtype)
        at_pixels = normals.transpose(0, 1).flatten(1).index_select(1, pixels.index)
        return [to_image(chosen.shade_at(at_pixels, lighting, pixels), pixels)]

    normals = torch.nn.functional.normalize(random(2, 3, 17, 21, seed=3, dtype=dtype), dim=1)
    assert_alike(work, [normals, random(2, 27, seed=4, dtype=dtype)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_texture(dtype: torch.dtype) -> None:
    vertices, triangles = mesh(dtype)
    ids = triangle_ids(vertices, triangles, 17, 21, choose("torch", DEVICE))

    def work(texture: Tensor, uv: Tensor, backend: str) -> list[Tensor]:
        chosen = choose(backend, DEVICE)
        pixels = chosen.covered_pixels(ids, triangles, 42, dtype)
        at_pixels = uv.transpose(0, 1).flatten(1).index_select(1, pixels.index)
        return [to_image(chosen.texture_at(texture, at_pixels, pixels), pixels)]

    uv = 0.5 + 0.4 * random(2, 2, 17, 21, seed=5, dtype=dtype)  # some beyond the border
    assert_alike(work, [random(2, 5, 8, 3, seed=6, dtype=dtype), uv])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_whole_renderer_with_texture(dtype: torch.dtype) -> None:
    head = small_head().to(DEVICE, dtype)
    vector = head.mean_parameters(2).to_vector()
    vector = vector + 0.1 * random(*vector.shape, seed=7, dtype=dtype)

    def work(vector: Tensor, backend: str) -> list[Tensor]:
        parameters = FaceParameters.from_vector(vector, head.layout)
        rendering = render(head, parameters, (18, 20), backend)
        return [rendering.image, 0.1 * rendering.normals, rendering.depth]

    slow, fast = (results(work, [vector], backend) for backend in ("torch", "triton"))
    for a, b in zip(slow[:3], fast[:3], strict=True):
        torch.testing.assert_close(b, a, **tolerance(dtype))
    # Triangles of a hundredth of a pixel amplify what float32 rounds in their corners.
    scale = slow[3].abs().max().item()
    torch.testing.assert_close(
        fast[3], slow[3], rtol=0, atol=scale * (1e-4 if dtype == torch.float32 else 1e-9)
    )


def test_the_whole_renderer_with_vertex_colors() -> None:
    vertices, triangles = mesh(torch.float64)
    camera = torch.tensor([[0.09, -10.0, -8.0]], dtype=torch.float64, device=DEVICE).expand(2, 3)

    def work(vertices: Tensor, colors: Tensor, camera: Tensor, light: Tensor, backend: str) -> list[Tensor]:
        rendering = render_mesh(Mesh(vertices, triangles, colors=colors), camera, light, 17, 21, backend)
        return [rendering.image]

    colors, light = random(2, 42, 3, seed=8, dtype=torch.float64), random(2, 27, seed=9, dtype=torch.float64)
    assert_alike(work, [vertices, colors, camera, light])


def test_nothing_in_sight() -> None:
    vertices, triangles = mesh(torch.float32)
    vertices = (vertices + 100).requires_grad_()
    rendering = render_mesh(
        Mesh(vertices, triangles, colors=torch.ones_like(vertices)),
        torch.tensor([[0.1, 0.0, 0.0]], device=DEVICE).expand(2, 3),
        torch.ones(2, 27, device=DEVICE),
        8,
        9,
        "triton",
    )
    assert rendering.image.abs().sum() == rendering.mask.sum() == 0
    (grad,) = torch.autograd.grad(rendering.image.sum() + rendering.depth.sum(), vertices)
    assert (grad == 0).all()


def test_large_and_small_triangles_take_two_ways_to_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from facegpt.render.backends.triton import rasterize as rasterize_triton

    vertices, triangles = mesh(torch.float32, 1)
    expected = triangle_ids(vertices, triangles, 17, 21, choose("torch", DEVICE))
    for small in (0, 8):
        monkeypatch.setattr(rasterize_triton, "SMALL", small)
        assert torch.equal(triangle_ids(vertices, triangles, 17, 21, choose("triton", DEVICE)), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_triangles_that_are_not_finite_draw_nothing(bad: float) -> None:
    """On a GPU the check comes later (`finite`): until then the kernels must stay within their arrays."""
    from facegpt.render.backends.triton import rasterize as rasterize_triton

    vertices, triangles = mesh(torch.float64)
    good = (triangles != 24).all(dim=1)
    expected = rasterize_triton.triangle_ids(vertices, triangles[good], 17, 21)
    vertices[:, 24, :2] = bad
    ids = rasterize_triton.triangle_ids(vertices, triangles, 17, 21)
    number = torch.cat([torch.tensor([-1], device=DEVICE), good.nonzero().flatten()])
    assert torch.equal(ids, number[expected + 1])


def test_several_programs_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from facegpt.render.backends.triton import rasterize as rasterize_triton

    monkeypatch.setattr(rasterize_triton, "INTERPRETED_BLOCK", 128)
    test_weights_and_interpolation(torch.float64)
    test_shading(torch.float64)


class Waits(TorchDispatchMode):
    """Collects the operations whose result has a size, or goes to the host, that depends on data."""

    NAMES = ("nonzero", "_local_scalar_dense", "masked_select", "unique", "repeat_interleave", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = function.name().removeprefix("aten::")
        boolean = name.startswith("index") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool
            for arg in args
            for i in (arg if isinstance(arg, list | tuple) else [])
        )
        if boolean or name.startswith(self.NAMES):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_a_step_never_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """From face parameters to image and back; the check for NaN is what `finite` sends along on a GPU."""
    rasterize = importlib.import_module("facegpt.render.rasterize")  # the package has a function of that name
    head = small_head().to(DEVICE)
    vector = head.mean_parameters(2).to_vector().requires_grad_()
    monkeypatch.setattr(rasterize, "check_vertices", lambda vertices, wait: None)
    monkeypatch.setattr(renderer, "check_parameters", lambda parameters, wait: None)
    with Waits() as waits:
        image = render(head, FaceParameters.from_vector(vector, head.layout), 16, "triton").image
        torch.autograd.grad(image.square().sum(), vector)
    assert waits.found == []
    with Waits() as waits:
        render(head, FaceParameters.from_vector(vector, head.layout), 16, "torch")
    assert "nonzero" in waits.found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: a CUDA graph is recorded")
def test_a_cuda_graph_records_the_whole_step() -> None:
    head = small_head().to(DEVICE)
    vector = head.mean_parameters(2).to_vector().requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        image = render(head, FaceParameters.from_vector(vector, head.layout), 24, "triton").image
        return image, torch.autograd.grad(image.square().sum(), vector)[0]

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        expected = [step() for _ in range(3)][-1]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    graph.replay()
    torch.testing.assert_close(recorded[0], expected[0])
    torch.testing.assert_close(recorded[1], expected[1], rtol=1e-3, atol=1e-5)


def test_triton_on_the_cpu_needs_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    from facegpt.render.backends.triton import rasterize as rasterize_triton

    monkeypatch.setattr(rasterize_triton, "is_interpreted", lambda: False)
    with pytest.raises(ValueError, match="set TRITON_INTERPRET=1 before Python starts"):
        choose("triton", torch.device("cpu"))

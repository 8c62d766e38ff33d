"""The choice of a backend, questions to a GPU that nobody waits for, and the conversion to PyTorch3D."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from facegpt.render import finite
from facegpt.render.backends import available, choose
from facegpt.render.rasterize import rasterize

CPU = torch.device("cpu")


def test_the_reference_works_everywhere_and_is_first() -> None:
    assert available(CPU)[0] == "torch"
    assert choose("torch", torch.device("meta")).name == "torch"


def test_auto_is_the_fastest_that_can_be_used() -> None:
    assert choose("auto", CPU).name == ("numba" if "numba" in available(CPU) else "torch")
    assert choose("auto", torch.device("meta")).name == "torch"


def test_numba_does_not_run_on_another_device() -> None:
    with pytest.raises(ValueError, match="numba rasterizer runs on the CPU"):
        choose("numba", torch.device("cuda"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "facegpt.render.backends.pytorch3d", raising=False)
    for name in {"pytorch3d", *(name for name in sys.modules if name.startswith("pytorch3d."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pytorch3d"):
        choose("pytorch3d", CPU)
    assert "pytorch3d" not in available(CPU)


def test_an_answer_from_the_gpu_is_read_when_it_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: vertices that say they are on one, and an answer that arrives when the test says so."""
    arrived: list[bool] = []
    monkeypatch.setattr(finite, "_send", lambda flags: (flags, lambda: bool(arrived)))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    vertices = torch.zeros(3, 2, 3)
    vertices[1, 0, 2] = float("nan")
    finite.check_vertices(vertices, wait=False)
    finite.check_vertices(torch.zeros(3, 2, 3), wait=False)  # not arrived yet: nothing is said
    arrived.append(True)
    with pytest.raises(ValueError, match="in an earlier call face 1 of the batch of 3"):
        finite.check_vertices(torch.zeros(3, 2, 3), wait=False)
    finite.poll()  # the good answer behind it; nothing is left
    assert not finite._pending


@dataclass
class FakeMeshes:
    verts: Tensor
    faces: Tensor


def fake_rasterize_meshes(  # type: ignore[no-untyped-def]
    meshes,
    image_size=256,
    blur_radius=0.0,
    faces_per_pixel=8,
    bin_size=None,
    max_faces_per_bin=None,
    perspective_correct=False,
    clip_barycentric_coords=False,
    cull_backfaces=False,
    z_clip_value=None,
    cull_to_frustum=False,
):
    """PyTorch3D's signature and conventions by brute force: centres in its coordinates, strictly inside."""
    height, width = image_size
    assert blur_radius == 0
    assert faces_per_pixel == 1
    assert not (perspective_correct or cull_backfaces)
    corners = torch.stack([v[f] for v, f in zip(meshes.verts, meshes.faces, strict=True)])  # (N, F, 3, 3)
    # Its PixToNonSquareNdc, and rows and columns counted from the lower right corner.
    wide, high = max(width / height, 1.0), max(height / width, 1.0)
    x = -wide + (2 * wide * torch.arange(width).flip(0) + wide) / width
    y = -high + (2 * high * torch.arange(height).flip(0) + high) / height
    y, x = torch.meshgrid(y, x, indexing="ij")

    def side(start: int, end: int) -> Tensor:
        a, b = corners[:, :, start, :, None, None], corners[:, :, end, :, None, None]
        return (x - a[:, :, 0]) * (b[:, :, 1] - a[:, :, 1]) - (y - a[:, :, 1]) * (b[:, :, 0] - a[:, :, 0])

    shares = torch.stack([side(1, 2), side(2, 0), side(0, 1)])  # (3, N, F, H, W)
    shares = shares / shares.sum(dim=0)
    depth = (shares * corners[..., 2].permute(2, 0, 1)[..., None, None]).sum(dim=0)
    depth = torch.where((shares > 0).all(dim=0) & (depth >= 0), depth, torch.inf)
    nearest, ids = depth.min(dim=1)
    ids = torch.where(nearest < torch.inf, ids + torch.arange(len(ids))[:, None, None] * corners.shape[1], -1)
    return (
        ids[..., None],
        nearest[..., None],
        torch.zeros(*ids.shape, 1, 3),
        torch.zeros_like(nearest)[..., None],
    )


@pytest.fixture
def fake_pytorch3d(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = ("pytorch3d", "renderer", "mesh", "rasterize_meshes")
    for depth in range(1, len(names) + 1):
        monkeypatch.setitem(sys.modules, ".".join(names[:depth]), ModuleType(".".join(names[:depth])))
    structures = ModuleType("pytorch3d.structures")
    monkeypatch.setitem(sys.modules, "pytorch3d.structures", structures)
    structures.Meshes = FakeMeshes  # type: ignore[attr-defined]
    sys.modules[".".join(names)].rasterize_meshes = fake_rasterize_meshes  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "facegpt.render.backends.pytorch3d", raising=False)
    yield
    sys.modules.pop("facegpt.render.backends.pytorch3d", None)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (9, 21), (23, 8), (1, 1)])
@pytest.mark.usefixtures("fake_pytorch3d")
def test_conversion_to_pytorch3d_keeps_pixels_depth_and_numbers(height: int, width: int) -> None:
    assert_pytorch3d_sees_the_same(height, width)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (9, 21), (23, 8), (1, 1)])
def test_pytorch3d_itself_sees_the_same(height: int, width: int) -> None:
    pytest.importorskip("pytorch3d", reason="the pytorch3d package is not installed")
    assert_pytorch3d_sees_the_same(height, width)


def assert_pytorch3d_sees_the_same(height: int, width: int) -> None:
    """No centre lies within 1e-5 of an edge here, where its rules differ."""
    random = torch.Generator().manual_seed(0)
    centers = torch.rand(2, 20, 1, 3, generator=random) * torch.tensor([width, height, 1.0])
    vertices = (centers + 4 * torch.randn(2, 20, 3, 3, generator=random)).flatten(1, 2)
    triangles = torch.arange(60).reshape(20, 3)
    expected = rasterize(vertices, triangles, height, width, "torch")
    seen = rasterize(vertices, triangles, height, width, "pytorch3d")
    assert torch.equal(seen.triangle, expected.triangle)
    assert torch.equal(seen.barycentric, expected.barycentric)
    assert torch.equal(seen.depth, expected.depth)
    assert (seen.triangle[1] >= 0).any()


def test_gradients_are_those_of_pytorch3d() -> None:
    """Its own kernels' gradients of weights and depth, for triangles large enough not to be slivers."""
    pytest.importorskip("pytorch3d", reason="the pytorch3d package is not installed")
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    from facegpt.render.backends.pytorch3d import to_ndc

    random = torch.Generator().manual_seed(0)
    corners = 8 * torch.randn(2, 12, 3, 3, generator=random) + 10 * torch.rand(2, 12, 1, 3, generator=random)
    start, triangles = corners.flatten(1, 2) + 6, torch.arange(36).reshape(12, 3)
    grad_weights, grad_depth = (
        torch.randn(2, 22, 22, 3, generator=random),
        torch.randn(2, 22, 22, generator=random),
    )
    found = []
    for backend in ("torch", "theirs"):
        vertices = start.clone().requires_grad_()
        if backend == "torch":
            seen = rasterize(vertices, triangles, 22, 22, backend)
            ids, weights, depth = seen.triangle, seen.barycentric, seen.depth
        else:
            meshes = Meshes(verts=to_ndc(vertices, 22, 22), faces=triangles[None].expand(2, -1, -1))
            ids, depth, weights, _ = (
                values.squeeze(3)
                for values in rasterize_meshes(meshes, (22, 22), 0.0, 1, perspective_correct=False)
            )
            depth = depth + start[..., 2].amin() - 1
        covered = (ids >= 0).float()
        loss = (covered * (grad_depth * depth + (grad_weights * weights).sum(3))).sum()
        found.append((covered, torch.autograd.grad(loss, vertices)[0]))
    (covered, ours), (covered_too, theirs) = found
    assert torch.equal(covered, covered_too)
    # `to_ndc` takes the nearest vertex's z off every depth, so theirs holds minus their sum there.
    nearest = start[..., 2] == start[..., 2].amin()
    theirs[nearest] += torch.tensor([0.0, 0.0, 1.0]) * (covered * grad_depth).sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert ours.abs().max() > 1


@pytest.mark.usefixtures("fake_pytorch3d")
def test_pytorch3d_gets_nothing_that_is_behind_its_viewer() -> None:
    flat = torch.tensor([[[-9.0, -9.0, -700.0], [30.0, -9.0, -700.0], [-9.0, 30.0, -700.0]]])
    assert (rasterize(flat, torch.tensor([[0, 1, 2]]), 4, 4, "pytorch3d").triangle == 0).all()

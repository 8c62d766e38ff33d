"""Finite differences in float64 through the whole renderer, for every input and every backend."""

import pytest
import torch
from backend_device import device_of, need
from torch import Tensor

from facegpt.head.mesh import Mesh
from facegpt.render import render_mesh

NAMES = ("vertices", "texture", "colors", "camera", "lighting")


@pytest.fixture(params=["torch", "numba", "triton", "pytorch3d"])
def backend(request: pytest.FixtureRequest) -> str:
    return need(request.param)


def scene() -> dict[str, Tensor]:
    """Two bumpy sheets over most of the image, each with its own texture, colours, camera and light."""
    random = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    y, x = torch.meshgrid(torch.linspace(-0.8, 0.8, 5), torch.linspace(-0.7, 0.9, 6), indexing="ij")
    sheet = torch.stack([x, y, 0 * x], dim=-1).reshape(1, 30, 3).double()
    camera = torch.tensor([[1.0, 0.02, -0.03], [0.8, -0.1, 0.07]], dtype=torch.float64)
    return {
        "vertices": sheet + 0.05 * noise(2, 30, 3),
        "texture": noise(2, 6, 7, 3),
        "colors": noise(2, 30, 3),
        "camera": camera,
        "lighting": noise(2, 27),
    }


def draw(values: dict[str, Tensor], textured: bool, backend: str) -> tuple[Tensor, Tensor]:
    """Triangle ids (2,15,17) and images (2,3,15,17), back on the CPU."""
    values = {name: value.to(device_of(backend)) for name, value in values.items()}
    corner = torch.tensor([6 * r + c for r in range(4) for c in range(5)])
    triangles = torch.stack([corner, corner + 1, corner + 6, corner + 7, corner + 6, corner + 1], dim=1)
    triangles = triangles.reshape(-1, 3).to(device_of(backend))
    uv = scene()["vertices"][0, :, :2].to(device_of(backend)) * 0.55 + 0.5
    if textured:
        look = {"texture": values["texture"], "uv": uv, "uv_triangles": triangles}
    else:
        look = {"colors": values["colors"]}
    mesh = Mesh(values["vertices"], triangles, **look)
    rendering = render_mesh(mesh, values["camera"], values["lighting"], 15, 17, backend)
    return rendering.fragments.triangle.cpu(), rendering.image.cpu()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_every_input_is_the_slope(name: str, backend: str) -> None:
    values, step = scene(), 1e-7
    random = torch.Generator().manual_seed(1)
    direction = torch.randn(values[name].shape, generator=random, dtype=torch.float64)
    start = values[name].clone().requires_grad_()
    results = [
        draw(values | {name: moved}, name != "colors", backend)
        for moved in (values[name] - step * direction, start, values[name] + step * direction)
    ]
    (seen_before, before), (seen, here), (seen_after, after) = results
    stable = (seen >= 0) & (seen == seen_before) & (seen == seen_after)
    assert stable.float().mean() > 0.4
    weight = torch.rand(here.shape, generator=random, dtype=torch.float64) * stable[:, None]
    (grad,) = torch.autograd.grad((here * weight).sum(), start)
    slope = ((after - before) / (2 * step) * weight).sum()
    torch.testing.assert_close((grad * direction).sum(), slope, rtol=1e-5, atol=1e-5)
    assert slope.abs() > 0.1

"""From face parameters, or a mesh, to shaded images with everything the objective compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from facegpt.head.mesh import Mesh
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.backends import resolve
from facegpt.render.camera import project
from facegpt.render.geometry import Geometry, see
from facegpt.render.interpolate import interpolate, to_image, vertex_table
from facegpt.render.lighting import shade_at
from facegpt.render.rasterize import Fragments, triangle_ids
from facegpt.render.silhouette import soften_outline
from facegpt.render.supersample import enlarge, shrink
from facegpt.render.surface import texture_at, vertex_normals


@dataclass
class Rendering:
    """Images of B faces; see `facegpt.render.camera` for the frames.

    image (B,3,H,W): albedo times shading, RGB, not clamped, on black or on the background given.
    mask (B,H,W): 1 where a triangle is seen. skin_mask (B,H,W): 1 where that triangle counts as skin.
    landmarks (B,L,2): pixels, x right, y down. triangle (B,H,W) int64: the one seen, -1 on the background.
    normals (B,3,H,W): unit, world frame, 0 on the background. depth (B,H,W): smaller is nearer, 0 there.
    fragments: which triangle each pixel sees, and where. The last three have gradients too, and are made when
    they are asked for: training has no use for them.
    """

    image: Tensor
    mask: Tensor
    skin_mask: Tensor
    landmarks: Tensor
    triangle: Tensor
    geometry: Callable[[], Geometry]

    @property
    def normals(self) -> Tensor:
        return self.geometry().normals

    @property
    def depth(self) -> Tensor:
        return self.geometry().depth

    @property
    def fragments(self) -> Fragments:
        return self.geometry().fragments


def render(
    head: HeadModel,
    parameters: FaceParameters,
    size: int | tuple[int, int],
    backend: str = "auto",
    background: Tensor | None = None,
    silhouette: bool = False,
    supersample: int = 1,
) -> Rendering:
    """Render face parameters; gradients reach every group of them.

    size: side of a square image in pixels, or (height, width). backend: see `rasterize`.
    background: None (black), a colour (3,) or images (B,3,H,W), put behind the face.
    silhouette: antialias image and mask along the outline, which gives them its gradient: see
    `silhouette.soften_outline`. supersample: samples per pixel and axis, averaged, for pictures: see
    `supersample.shrink`.
    Raises ValueError when a face has vertices that are not finite.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if supersample > 1:
        fine = (height * supersample, width * supersample)
        behind = enlarge(background, supersample)
        return shrink(render(head, parameters, fine, backend, behind, silhouette), supersample)
    # Under autocast the small matrix products here would run in bfloat16: 3 digits are too few for pixels.
    with torch.autocast(parameters.camera.device.type, enabled=False):
        output = head(parameters)
        camera, lighting, skin = parameters.camera, parameters.lighting, head.skin_triangles
        if head.texture_basis is not None and resolve(backend, output.vertices.device) == "numba":
            # Most texels are not looked at: the texture is made where it is.
            mesh = Mesh(output.vertices, head.triangles, uv=head.uv, uv_triangles=head.uv_triangles)
            texture = (head.texture_mean, head.texture_basis, parameters.albedo)
            rendering = _render_fused(
                mesh, texture, camera, lighting, height, width, background, skin, output.landmarks
            )
        else:
            mesh = head.mesh(parameters, output)
            rendering = render_mesh(
                mesh, camera, lighting, height, width, backend, background, skin, output.landmarks
            )
        if silhouette:
            projected = project(output.vertices, camera, height, width)
            rendering = soften_outline(rendering, projected, head.triangles)
        return rendering


def render_mesh(
    mesh: Mesh,
    camera: Tensor,
    lighting: Tensor,
    height: int,
    width: int,
    backend: str = "auto",
    background: Tensor | None = None,
    skin_triangles: Tensor | None = None,
    landmarks: Tensor | None = None,
) -> Rendering:
    """Render a batch of meshes.

    camera (B,3), lighting (B,27), skin_triangles (F,) bool (None: every triangle is skin), landmarks (B,L,3)
    in metres (None: the rendering has none); the rest as in `render`.
    """
    if mesh.colors is None and (mesh.texture is None or mesh.uv is None or mesh.uv_triangles is None):
        raise ValueError("a mesh needs colors, or texture with uv and uv_triangles, to be rendered")
    if mesh.texture is not None and resolve(backend, mesh.vertices.device) == "numba":
        texture = (None, None, mesh.texture)
        return _render_fused(
            mesh, texture, camera, lighting, height, width, background, skin_triangles, landmarks
        )
    vertices = mesh.vertices
    projected = project(vertices, camera, height, width)
    normals = vertex_normals(vertices, mesh.triangles, backend)
    ids = triangle_ids(projected, mesh.triangles, height, width, backend)
    seen = see(projected, normals, mesh.triangles, ids, backend)
    pixels, weights = seen.pixels, seen.weights
    if mesh.colors is not None:
        albedo = interpolate(vertex_table(mesh.colors), pixels.rows, weights, backend)
    else:
        assert mesh.texture is not None and mesh.uv is not None and mesh.uv_triangles is not None
        uv_rows = mesh.uv_triangles.t().contiguous().index_select(1, pixels.triangle)
        uv = interpolate(mesh.uv.t().to(vertices.dtype), uv_rows, weights, backend)
        albedo = texture_at(mesh.texture, uv, pixels, backend)
    image = to_image(albedo * shade_at(seen.normals, lighting, pixels, backend), pixels)
    mask = (ids >= 0).to(vertices.dtype)
    skin = mask if skin_triangles is None else mask * skin_triangles.take(ids.clamp(min=0))
    points = _on_image(landmarks, camera, height, width)
    image = _before(background, image, mask)
    return Rendering(image, mask, skin, points, ids, cache(seen.geometry))


def _render_fused(
    mesh: Mesh,
    texture: tuple[Tensor | None, Tensor | None, Tensor],
    camera: Tensor,
    lighting: Tensor,
    height: int,
    width: int,
    background: Tensor | None,
    skin_triangles: Tensor | None,
    landmarks: Tensor | None,
) -> Rendering:
    """`render_mesh` of a textured mesh on the CPU.

    texture: mean, basis and coefficients as `fused_numba.Pixels` takes them.
    """
    from facegpt.render.fused_numba import Pixels, Vertices

    assert mesh.uv is not None
    vertices = mesh.vertices
    projected, normals = Vertices.apply(vertices, camera.to(vertices), mesh.triangles, height, width)
    ids = triangle_ids(projected, mesh.triangles, height, width, "numba")
    mean, basis, coefficients = texture
    if skin_triangles is None:
        skin_triangles = torch.ones(len(mesh.triangles), dtype=torch.bool)
    image, mask, skin = Pixels.apply(
        projected,
        normals,
        lighting.to(vertices),
        coefficients.to(vertices),
        ids,
        mesh.triangles,
        mesh.uv.to(vertices),
        mesh.uv_triangles,
        mean,
        basis,
        skin_triangles,
    )

    @cache
    def geometry() -> Geometry:
        return see(projected, normals, mesh.triangles, ids, "numba").geometry()

    points = _on_image(landmarks, camera, height, width)
    return Rendering(_before(background, image, mask), mask, skin, points, ids, geometry)


def _before(background: Tensor | None, image: Tensor, mask: Tensor) -> Tensor:
    """The images, on black until now, on a background; see `render`."""
    if background is None:
        return image
    behind = background.to(image)
    return image + (1 - mask[:, None]) * (behind.reshape(3, 1, 1) if behind.ndim == 1 else behind)


def _on_image(landmarks: Tensor | None, camera: Tensor, height: int, width: int) -> Tensor:
    """Landmarks (B,L,3) in metres as pixels (B,L,2); none if there are none."""
    points = camera.new_zeros(len(camera), 0, 3) if landmarks is None else landmarks
    return project(points, camera, height, width)[..., :2]

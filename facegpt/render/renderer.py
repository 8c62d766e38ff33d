"""From face parameters, or a mesh, to shaded images with everything the objective compares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facegpt.head.mesh import Mesh
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.backends import resolve
from facegpt.render.camera import project
from facegpt.render.interpolate import (
    barycentric_weights,
    covered_pixels,
    interpolate,
    to_image,
    vertex_table,
)
from facegpt.render.lighting import shade_at
from facegpt.render.rasterize import Fragments, fragments, triangle_ids
from facegpt.render.silhouette import soften_outline
from facegpt.render.supersample import enlarge, shrink
from facegpt.render.surface import texture_at, unit, vertex_normals


@dataclass
class Rendering:
    """Images of B faces; see `facegpt.render.camera` for the frames.

    image (B,3,H,W): albedo times shading, RGB, not clamped, on black or on the background given.
    mask (B,H,W): 1 where a triangle is seen. skin_mask (B,H,W): 1 where that triangle counts as skin.
    normals (B,3,H,W): unit, world frame, 0 on the background. depth (B,H,W): smaller is nearer, 0 there.
    landmarks (B,L,2): pixels, x right, y down. fragments: which triangle each pixel sees, and where.
    """

    image: Tensor
    mask: Tensor
    skin_mask: Tensor
    normals: Tensor
    depth: Tensor
    landmarks: Tensor
    fragments: Fragments


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
    ids = triangle_ids(projected, mesh.triangles, height, width, backend)
    pixels = covered_pixels(ids, mesh.triangles, vertices.shape[1], vertices.dtype, backend)
    attributes = [projected, vertex_normals(vertices, mesh.triangles, backend)]
    if mesh.colors is not None:
        attributes.append(mesh.colors)
    table = vertex_table(torch.cat(attributes, dim=-1))
    weights = barycentric_weights(table[:2], pixels, backend)
    values = interpolate(table[2:], pixels.rows, weights, backend)
    depth, normals = values[:1], unit(values[1:4])

    shading = shade_at(normals, lighting, pixels, backend)
    if mesh.colors is not None:
        albedo = values[4:]
    else:
        assert mesh.texture is not None and mesh.uv is not None and mesh.uv_triangles is not None
        uv_rows = mesh.uv_triangles.t().contiguous().index_select(1, pixels.triangle)
        uv = interpolate(mesh.uv.t().to(vertices.dtype), uv_rows, weights, backend)
        albedo = texture_at(mesh.texture, uv, pixels, backend)

    seen = fragments(ids, weights, depth, pixels)
    image = to_image(albedo * shading, pixels)
    mask = (ids >= 0).to(vertices.dtype)
    skin = mask if skin_triangles is None else mask * skin_triangles.take(ids.clamp(min=0))
    return _finish(mesh, camera, image, to_image(normals, pixels), seen, (mask, skin), background, landmarks)


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
    image, seen_normals, depth, weights, mask, skin = Pixels.apply(
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
    seen = Fragments(ids, weights, depth)
    return _finish(mesh, camera, image, seen_normals, seen, (mask, skin), background, landmarks)


def _finish(
    mesh: Mesh,
    camera: Tensor,
    image: Tensor,
    normals: Tensor,
    seen: Fragments,
    masks: tuple[Tensor, Tensor],
    background: Tensor | None,
    landmarks: Tensor | None,
) -> Rendering:
    """The rendering with its background and landmarks."""
    vertices, (mask, skin) = mesh.vertices, masks
    height, width = mask.shape[1:]
    if background is not None:
        behind = background.to(image)
        image = image + (1 - mask[:, None]) * (behind.reshape(3, 1, 1) if behind.ndim == 1 else behind)
    points = vertices.new_zeros(len(mesh), 0, 3) if landmarks is None else landmarks
    return Rendering(
        image=image,
        mask=mask,
        skin_mask=skin,
        normals=normals,
        depth=seen.depth,
        landmarks=project(points, camera, height, width)[..., :2],
        fragments=seen,
    )

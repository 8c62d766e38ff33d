"""From face parameters, or a mesh, to shaded images with everything the objective compares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facegpt.head.mesh import Mesh
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
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
) -> Rendering:
    """Render face parameters; gradients reach every group of them.

    size: side of a square image in pixels, or (height, width). backend: see `rasterize`.
    background: None (black), a colour (3,) or images (B,3,H,W), put behind the face.
    Raises ValueError when a face has vertices that are not finite.
    """
    height, width = (size, size) if isinstance(size, int) else size
    # Under autocast the small matrix products here would run in bfloat16: 3 digits are too few for pixels.
    with torch.autocast(parameters.camera.device.type, enabled=False):
        output = head(parameters)
        mesh = head.mesh(parameters, output)
        return render_mesh(
            mesh,
            parameters.camera,
            parameters.lighting,
            height,
            width,
            backend=backend,
            background=background,
            skin_triangles=head.skin_triangles,
            landmarks=output.landmarks,
        )


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
    vertices = mesh.vertices
    projected = project(vertices, camera, height, width)
    ids = triangle_ids(projected, mesh.triangles, height, width, backend)
    pixels = covered_pixels(ids, mesh.triangles, vertices.shape[1], vertices.dtype)
    attributes = [projected, vertex_normals(vertices, mesh.triangles, backend)]
    if mesh.colors is not None:
        attributes.append(mesh.colors)
    table = vertex_table(torch.cat(attributes, dim=-1))
    weights = barycentric_weights(table[:2], pixels, backend)
    values = interpolate(table[2:], pixels.rows, weights, backend)
    depth, normals = values[:1], unit(values[1:4])

    shading = shade_at(normals, lighting, pixels, backend)
    if mesh.texture is not None and mesh.uv is not None and mesh.uv_triangles is not None:
        uv_rows = mesh.uv_triangles.t().contiguous().index_select(1, pixels.triangle)
        uv = interpolate(mesh.uv.t().to(vertices.dtype), uv_rows, weights, backend)
        albedo = texture_at(mesh.texture, uv, pixels, backend)
    elif mesh.colors is not None:
        albedo = values[4:]
    else:
        raise ValueError("a mesh needs colors, or texture with uv and uv_triangles, to be rendered")

    mask = (ids >= 0).to(vertices.dtype)
    skin = mask if skin_triangles is None else mask * skin_triangles.take(ids.clamp(min=0))
    image = to_image(albedo * shading, pixels)
    if background is not None:
        behind = background.to(image)
        image = image + (1 - mask[:, None]) * (behind.reshape(3, 1, 1) if behind.ndim == 1 else behind)
    seen = fragments(ids, weights, depth, pixels)
    points = vertices.new_zeros(len(mesh), 0, 3) if landmarks is None else landmarks
    return Rendering(
        image=image,
        mask=mask,
        skin_mask=skin,
        normals=to_image(normals, pixels),
        depth=seen.depth,
        landmarks=project(points, camera, height, width)[..., :2],
        fragments=seen,
    )

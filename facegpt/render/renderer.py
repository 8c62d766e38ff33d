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
    Pixels,
    barycentric_weights,
    covered_pixels,
    interpolate,
    sample_texture,
    to_image,
    unit,
    vertex_normals,
)
from facegpt.render.lighting import shade
from facegpt.render.rasterize import Fragments, triangle_ids


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
    batch, count, _ = vertices.shape
    projected = project(vertices, camera, height, width)
    ids = triangle_ids(projected, mesh.triangles, height, width, backend)
    pixels = covered_pixels(ids, mesh.triangles, count)
    weights = barycentric_weights(projected, pixels)

    attributes = [vertex_normals(vertices, mesh.triangles), projected[..., 2:]]
    if mesh.colors is not None:
        attributes.append(mesh.colors)
    values = interpolate(torch.cat(attributes, dim=-1).flatten(0, 1), pixels.rows, weights)
    normals, depth = unit(values[:, :3]), values[:, 3:4]

    slots, width_of_pack = _slots(pixels)
    packed_normals = _pack(normals, slots, batch, width_of_pack)
    shading = shade(packed_normals, lighting).flatten(0, 1).index_select(0, slots)
    if mesh.texture is not None and mesh.uv is not None and mesh.uv_triangles is not None:
        uv = interpolate(
            mesh.uv.to(vertices.dtype), mesh.uv_triangles.index_select(0, pixels.triangle), weights
        )
        texels = sample_texture(mesh.texture, _pack(uv, slots, batch, width_of_pack))
        albedo = texels.flatten(0, 1).index_select(0, slots)
    elif mesh.colors is not None:
        albedo = values[:, 4:]
    else:
        raise ValueError("a mesh needs colors, or texture with uv and uv_triangles, to be rendered")

    covered = ids >= 0
    mask = covered.to(vertices.dtype)
    skin = mask if skin_triangles is None else mask * skin_triangles[ids.clamp(min=0)]
    image = to_image(albedo * shading, pixels).permute(0, 3, 1, 2)
    if background is not None:
        behind = background.to(image)
        image = image + (1 - mask[:, None]) * (behind.reshape(3, 1, 1) if behind.ndim == 1 else behind)
    depth_image = to_image(depth, pixels).squeeze(-1)
    points = vertices.new_zeros(batch, 0, 3) if landmarks is None else landmarks
    return Rendering(
        image=image,
        mask=mask,
        skin_mask=skin,
        normals=to_image(normals, pixels).permute(0, 3, 1, 2),
        depth=depth_image,
        landmarks=project(points, camera, height, width)[..., :2],
        fragments=Fragments(ids, to_image(weights, pixels), depth_image),
    )


def _slots(pixels: Pixels) -> tuple[Tensor, int]:
    """Positions (P,) of the pixels in a flat (B, N) block with one row per face, and its N (at least 1)."""
    counts = torch.bincount(pixels.face, minlength=pixels.shape[0])
    longest = max(int(counts.max()), 1)
    start = counts.cumsum(0) - counts
    rank = torch.arange(len(pixels.face), device=counts.device) - start.index_select(0, pixels.face)
    return pixels.face * longest + rank, longest


def _pack(values: Tensor, slots: Tensor, batch: int, width: int) -> Tensor:
    """A list (P,C) as a block (B,N,C) with one row per face, so that faces can be processed as a batch."""
    block = values.new_zeros(batch * width, values.shape[1])
    return block.index_copy(0, slots, values).reshape(batch, width, -1)

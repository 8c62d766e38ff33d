"""From face parameters, or a mesh, to shaded images with everything the objective compares."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from facegpt.errors import RenderingError
from facegpt.head.mesh import Mesh
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.backends import Backend, TextureSource, choose
from facegpt.render.camera import project
from facegpt.render.finite import check_faces, check_parameters
from facegpt.render.geometry import SurfaceSamples, surface_at_pixels
from facegpt.render.pixels import to_image, vertex_table
from facegpt.render.rasterize import triangle_ids
from facegpt.render.rendering import Rendering
from facegpt.render.supersample import downsample, upsample_background


def render(
    head: HeadModel,
    parameters: FaceParameters,
    size: int | tuple[int, int],
    backend: str = "auto",
    background: Tensor | None = None,
    supersample: int = 1,
) -> Rendering:
    """Render face parameters; gradients reach every group of them.

    size: side of a square image in pixels, or (height, width). backend: see `rasterize`.
    background: None (black), a colour (3,) or images (B,3,H,W), put behind the face.
    supersample: samples per pixel and axis, averaged, for pictures: see `supersample.downsample`.
    Parameters of another precision than the head's are converted to it.
    Raises RenderingError, a ValueError, when a face has parameters or vertices that are not finite or huge:
    see `finite`.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if supersample > 1:
        fine = (height * supersample, width * supersample)
        behind = upsample_background(background, supersample)
        return downsample(render(head, parameters, fine, backend, behind), supersample)
    chosen = choose(backend, parameters.camera.device)
    # Under autocast the small matrix products here would run in bfloat16: 3 digits are too few for pixels.
    with torch.autocast(parameters.camera.device.type, enabled=False):
        check_parameters(parameters, chosen.waits)
        output = head(parameters)
        if chosen.shade_textured is not None and head.texture_basis is not None:
            # Most texels are not looked at: the texture is made where it is.
            mesh = Mesh(output.vertices, head.triangles, uv=head.uv, uv_triangles=head.uv_triangles)
            texture = TextureSource(
                mean=head.texture_mean, basis=head.texture_basis, coefficients=parameters.albedo
            )
        else:
            mesh = head.mesh(parameters, output)
            texture = TextureSource(mesh.texture)
        return _draw(
            mesh, texture, parameters.camera, parameters.lighting, height, width, chosen, background,
            head.skin_triangles, output.landmarks,
        )  # fmt: skip


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
    in metres (None: the rendering has none); the rest as in `render`. Everything is converted to the
    vertices' precision, which is float32 at least.
    Raises RenderingError, a ValueError, when vertices, light or uv coordinates are not finite or huge, or the
    mesh has neither colours nor a texture of at least one texel.
    """
    chosen = choose(backend, mesh.vertices.device)
    if mesh.colors is None and (mesh.texture is None or mesh.uv is None or mesh.uv_triangles is None):
        raise RenderingError("a mesh needs colors, or texture with uv and uv_triangles, to be rendered")
    check_faces(lighting, "lighting coefficients", wait=chosen.waits)
    if mesh.uv is not None and mesh.colors is None:
        check_faces(mesh.uv[None], "uv coordinates", wait=chosen.waits)
    return _draw(
        mesh, TextureSource(mesh.texture), camera, lighting, height, width, chosen, background,
        skin_triangles, landmarks,
    )  # fmt: skip


def _draw(
    mesh: Mesh,
    texture: TextureSource,
    camera: Tensor,
    lighting: Tensor,
    height: int,
    width: int,
    backend: Backend,
    background: Tensor | None,
    skin_triangles: Tensor | None,
    landmarks: Tensor | None,
) -> Rendering:
    """Project, rasterize, shade, composite; a mesh without colors takes them from the texture."""
    vertices = mesh.vertices.float() if mesh.vertices.itemsize < 4 else mesh.vertices
    camera, lighting = camera.to(vertices.dtype), lighting.to(vertices.dtype)
    projected, normals = backend.project(vertices, camera, mesh.triangles, height, width)
    ids = triangle_ids(projected, mesh.triangles, height, width, backend)
    samples = cache(lambda: surface_at_pixels(projected, normals, mesh.triangles, ids, backend))
    if mesh.colors is None and 0 in texture.size:
        raise RenderingError(f"a texture needs at least one texel, got {texture.size} of them")
    if mesh.colors is None and backend.shade_textured is not None:
        image, mask, skin_mask = backend.shade_textured(
            projected, normals, ids, mesh, texture, lighting, skin_triangles
        )
    else:
        image = _shade(samples(), mesh, texture.texture, lighting, backend)
        mask = (ids >= 0).to(vertices.dtype)
        skin_mask = mask if skin_triangles is None else mask * skin_triangles.take(ids.clamp(min=0))
    return Rendering(
        composite(image, mask, background),
        mask,
        skin_mask,
        project_landmarks(landmarks, camera, height, width),
        ids,
        cache(lambda: samples().geometry()),
    )


def _shade(
    samples: SurfaceSamples, mesh: Mesh, texture: Tensor | None, lighting: Tensor, backend: Backend
) -> Tensor:
    """Albedo times shading at the covered pixels, as images (B,3,H,W) on black."""
    pixels, dtype = samples.pixels, samples.weights.dtype
    if texture is None or mesh.colors is not None:
        assert mesh.colors is not None
        albedo = backend.interpolate(vertex_table(mesh.colors.to(dtype)), pixels.rows, samples.weights)
    else:
        assert mesh.uv is not None and mesh.uv_triangles is not None
        uv_rows = mesh.uv_triangles.t().contiguous().index_select(1, pixels.triangle)
        uv = backend.interpolate(mesh.uv.t().to(dtype), uv_rows, samples.weights)
        albedo = backend.texture_at(texture.to(dtype), uv, pixels)
    return to_image(albedo * backend.shade_at(samples.normals, lighting, pixels), pixels)


def composite(image: Tensor, mask: Tensor, background: Tensor | None) -> Tensor:
    """Images (B,3,H,W) on black put before a background; see `render`."""
    if background is None:
        return image
    behind = background.to(image)
    return image + (1 - mask[:, None]) * (behind.reshape(3, 1, 1) if behind.ndim == 1 else behind)


def project_landmarks(landmarks: Tensor | None, camera: Tensor, height: int, width: int) -> Tensor:
    """Landmarks (B,L,3) in metres as pixels (B,L,2); none if there are none."""
    points = camera.new_zeros(len(camera), 0, 3) if landmarks is None else landmarks.to(camera.dtype)
    return project(points, camera, height, width)[..., :2]

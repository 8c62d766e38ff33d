"""What a rasterizer backend can do: the handful of functions from which `renderer` makes a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from facegpt.head.mesh import Mesh
from facegpt.render.pixels import Pixels


@dataclass(frozen=True)
class Backend:
    """One way to do the renderer's work; the reference is `torch.BACKEND`, others replace parts of it.

    name: one of `BACKENDS`. cannot_use: for a device the sentence why it cannot work there, or "". waits:
    whether the host may wait for the device's answers.
    triangle_ids: vertices (B,V,3) float64 snapped, triangles (F,3), height, width -> (B,H,W) int64.
    project: vertices (B,V,3), camera (B,3), triangles, height, width -> `camera.project` and
    `surface.vertex_normals` of the vertices, (B,V,3) each.
    The others are `pixels.covered_pixels`, `interpolate.barycentric_weights`, `interpolate.interpolate`,
    `lighting.shade_at` and `surface.texture_at`. shade_textured: all of them at once for a surface with a
    texture, where the backend can do so.
    """

    name: str
    cannot_use: Callable[[torch.device], str]
    waits: bool
    triangle_ids: Callable[[Tensor, Tensor, int, int], Tensor]
    project: Callable[[Tensor, Tensor, Tensor, int, int], tuple[Tensor, Tensor]]
    covered_pixels: Callable[[Tensor, Tensor, int, torch.dtype], Pixels]
    barycentric_weights: Callable[[Tensor, Pixels], Tensor]
    interpolate: Callable[[Tensor, Tensor, Tensor], Tensor]
    shade_at: Callable[[Tensor, Tensor, Pixels], Tensor]
    texture_at: Callable[[Tensor, Tensor, Pixels], Tensor]
    shade_textured: ShadeTextured | None = None


@dataclass(frozen=True)
class TextureSource:
    """The texture of B faces, made already or to be made where it is looked at.

    texture (B,h,w,3); or None, and mean (h,w,3), basis (h,w,3,A) and coefficients (B,A): their sum, clamped
    as in `HeadModel.albedo`.
    """

    texture: Tensor | None = None
    mean: Tensor | None = None
    basis: Tensor | None = None
    coefficients: Tensor | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Texels (h, w)."""
        if self.texture is not None:
            return tuple(self.texture.shape[1:3])
        assert self.mean is not None
        return tuple(self.mean.shape[:2])


class ShadeTextured(Protocol):
    """Albedo from a texture, shading and masks in one go."""

    def __call__(
        self,
        projected: Tensor,
        normals: Tensor,
        ids: Tensor,
        mesh: Mesh,
        source: TextureSource,
        lighting: Tensor,
        skin_triangles: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image (B,3,H,W) on black, mask and skin mask (B,H,W) of the triangles seen, ids (B,H,W).

        projected, normals (B,V,3), lighting (B,27), skin_triangles (F,) bool or None: all are skin. Of the
        mesh its triangles, uv and uv_triangles are used.
        """

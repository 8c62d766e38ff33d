"""What rendering returns: images of faces, and what each of their pixels sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Fragments:
    """What each pixel of B images sees.

    triangle (B,H,W) int64: row of the triangle array, -1 where there is only background.
    barycentric (B,H,W,3): weights of the triangle's three corners, sum 1; 0 on the background.
    depth (B,H,W): interpolated depth, smaller is nearer; 0 on the background.
    """

    triangle: Tensor
    barycentric: Tensor
    depth: Tensor


@dataclass
class Geometry:
    """Images of the surface; normals (B,3,H,W) and depth (B,H,W) as in `Rendering`."""

    normals: Tensor
    depth: Tensor
    fragments: Fragments


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

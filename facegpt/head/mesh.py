"""Mesh: a batch of surfaces that share one topology."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass
class Mesh:
    """Surfaces of B faces with one topology; exactly one of `colors` and `texture` is given.

    vertices (B,V,3): metres, world frame (x to the subject's left, y up, z out of the face).
    triangles (F,3) int64, counter-clockwise seen from outside.
    colors (B,V,3): albedo per vertex in [0,1], display-coded RGB (no linearisation, as in DECA).
    texture (B,H,W,3): albedo image, row 0 at v = 1; with uv (T,2) in [0,1], v up, and uv_triangles (F,3)
        int64.
    """

    vertices: Tensor
    triangles: Tensor
    colors: Tensor | None = None
    texture: Tensor | None = None
    uv: Tensor | None = None
    uv_triangles: Tensor | None = None

    def __len__(self) -> int:
        return self.vertices.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Mesh:
        """Some faces of the batch (a slice or an index tensor, so the batch dimension stays)."""
        return replace(
            self,
            vertices=self.vertices[index],
            colors=None if self.colors is None else self.colors[index],
            texture=None if self.texture is None else self.texture[index],
        )

"""The reference backend: plain torch, any device.

Its rasterizer's memory is bounded by the candidates of one chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.render.backends.interface import Backend
from facegpt.render.camera import project
from facegpt.render.interpolate import barycentric_weights, interpolate
from facegpt.render.lighting import shade_at
from facegpt.render.pixels import covered_pixels
from facegpt.render.surface import texture_at, vertex_normals

CANDIDATES_PER_CHUNK = 1 << 21  # about 300 MB of float64 and int64 work space


def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Triangle ids (B,H,W) int64 by the rules of `facegpt.render.rasterize`, -1 on the background.

    vertices (B,V,3) float64: snapped pixels and depth. triangles (F,3) int64.

    Every triangle lists the pixels of its bounding box as candidates; a candidate inside its triangle offers
    the key (depth, triangle) to its pixel, and the smallest key of a pixel wins.
    """
    batch, device = len(vertices), vertices.device
    keys = torch.full((batch * height * width,), torch.iinfo(torch.int64).max, device=device)
    corners = vertices[:, triangles].flatten(0, 1)  # (B*F, 3, 3)
    corners = torch.where(_doubled_area(corners)[:, None, None] < 0, corners[:, [0, 2, 1]], corners)
    size = vertices.new_tensor([width, height])
    first = torch.ceil(corners[..., :2].amin(dim=1) - 0.5).clamp(min=0)  # (B*F, 2): column, row
    last = torch.minimum(torch.floor(corners[..., :2].amax(dim=1) - 0.5), size - 1)
    box = (last - first + 1).clamp(min=0).long()
    candidates = box.prod(dim=1) * (_doubled_area(corners) > 0)
    live = candidates.nonzero().flatten()
    for chunk in _chunks(live, candidates[live]):
        count = candidates[chunk]
        owner = chunk.repeat_interleave(count)
        local = torch.arange(len(owner), device=device) - (count.cumsum(0) - count).repeat_interleave(count)
        column = first[owner, 0].long() + local % box[owner, 0]
        row = first[owner, 1].long() + local // box[owner, 0]
        inside, depth = _coverage(corners[owner], column + 0.5, row + 0.5)
        face, triangle = owner // len(triangles), owner % len(triangles)
        key = (_sortable(depth) << 32) | triangle
        pixel = (face * height + row) * width + column
        keys.scatter_reduce_(0, pixel[inside], key[inside], reduce="amin")
    ids = torch.where(keys == torch.iinfo(torch.int64).max, -1, keys & 0xFFFFFFFF)
    return ids.reshape(batch, height, width)


def _doubled_area(corners: Tensor) -> Tensor:
    (ax, ay), (bx, by), (cx, cy) = (corner.unbind(-1) for corner in corners[..., :2].unbind(-2))
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


def _coverage(corners: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Whether centres (N,) are inside triangles (N,3,3) of positive area, and the depth there in float32."""
    inside = torch.ones_like(x, dtype=torch.bool)
    weighted = []
    for start, end, opposite in ((1, 2, 0), (2, 0, 1), (0, 1, 2)):
        dx = corners[:, end, 0] - corners[:, start, 0]
        dy = corners[:, end, 1] - corners[:, start, 1]
        edge = dx * (y - corners[:, start, 1]) - dy * (x - corners[:, start, 0])
        top_left = (dy < 0) | ((dy == 0) & (dx > 0))
        inside &= (edge > 0) | ((edge == 0) & top_left)
        weighted.append(edge * corners[:, opposite, 2])
    depth = (weighted[0] + weighted[1] + weighted[2]) / _doubled_area(corners)
    return inside, depth.float()


def _sortable(depth: Tensor) -> Tensor:
    """float32 as int64 of the same order: negative floats count their magnitude bits backwards."""
    bits = (depth + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


def _chunks(items: Tensor, sizes: Tensor) -> list[Tensor]:
    """Split items so that the sizes of a chunk sum to at most the limit (or the chunk is a single item)."""
    number = (sizes.cumsum(0) - 1) // CANDIDATES_PER_CHUNK
    return list(items.split(torch.unique_consecutive(number, return_counts=True)[1].tolist()))


def project_surface(
    vertices: Tensor, camera: Tensor, triangles: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Projected vertices (B,V,3) and their unit normals (B,V,3) in the world's frame."""
    return project(vertices, camera, height, width), vertex_normals(vertices, triangles)


BACKEND = Backend(
    name="torch",
    cannot_use=lambda device: "",
    waits=True,
    triangle_ids=triangle_ids,
    project=project_surface,
    covered_pixels=covered_pixels,
    barycentric_weights=barycentric_weights,
    interpolate=interpolate,
    shade_at=shade_at,
    texture_at=texture_at,
)

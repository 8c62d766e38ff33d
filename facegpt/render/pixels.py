"""The covered pixels of a batch of images as one list.

They are gathered once over all B images; everything per pixel works on that list and goes back into images at
the end. Lists are channel-first, (C,P): torch then runs through contiguous memory instead of rows of three,
which is several times faster on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass
class Pixels:
    """The P pixels of B images that see a triangle, in image order.

    For triton the list holds all pixels, as counting the covered ones would make the host wait; face and rows
    are -1, and triangle 0, where nothing is seen.

    index (P,): position in a flat (B,H,W) image. face (P,): image of the batch. triangle (P,): triangle seen.
    rows (3,P): its corners, as columns of a flat (C,B*V) vertex table. centers (2,P): x, y in pixels.
    shape: (B, H, W).
    """

    index: Tensor
    face: Tensor
    triangle: Tensor
    rows: Tensor
    centers: Tensor
    shape: tuple[int, int, int]

    @cached_property
    def padded_position(self) -> tuple[Tensor, int]:
        """Positions (P,) of the pixels in a flat (B,N) block, one row per face, and its N (at least 1)."""
        counts = torch.bincount(self.face, minlength=self.shape[0])
        longest = max(counts.tolist(), default=1) or 1
        offset = torch.arange(len(counts), device=counts.device) * longest - (counts.cumsum(0) - counts)
        order = torch.arange(len(self.face), device=counts.device)
        return order + offset.index_select(0, self.face), longest


def covered_pixels(triangle_ids: Tensor, triangles: Tensor, vertex_count: int, dtype: torch.dtype) -> Pixels:
    """List the covered pixels of (B,H,W) triangle ids (-1 is background).

    vertex_count is V of the meshes, dtype that of the pixel centres.
    """
    batch, height, width = triangle_ids.shape
    face, row, column = (triangle_ids >= 0).nonzero().t().contiguous()
    index = (face * height + row) * width + column
    triangle = triangle_ids.flatten().index_select(0, index)
    centers = torch.stack([column, row]).to(dtype) + 0.5
    rows = triangles.t().contiguous().index_select(1, triangle) + face * vertex_count
    return Pixels(index, face, triangle, rows, centers, (batch, height, width))


def vertex_table(attributes: Tensor) -> Tensor:
    """Vertex attributes (B,V,C) as the table (C,B*V) that `Pixels.rows` points into."""
    return attributes.permute(2, 0, 1).flatten(1)


def to_image(values: Tensor, pixels: Pixels) -> Tensor:
    """Spread a list (C,P) into images (B,C,H,W), 0 on the background."""
    batch, height, width = pixels.shape
    if len(pixels.index) == batch * height * width:  # every pixel is there, in order
        return values.reshape(len(values), batch, height, width).transpose(0, 1)
    flat = values.new_zeros(len(values), batch * height * width)
    return flat.index_copy(1, pixels.index, values).reshape(len(values), batch, height, width).transpose(0, 1)


def pack(values: Tensor, pixels: Pixels) -> Tensor:
    """A list (C,P) as a block (B,N,C), one row per face, so that faces can be processed as a batch.

    The block is zero where a face has fewer pixels than N.
    """
    position, longest = pixels.padded_position
    batch = pixels.shape[0]
    block = values.new_zeros(len(values), batch * longest).index_copy(1, position, values)
    return block.reshape(len(values), batch, longest).permute(1, 2, 0)


def unpack(block: Tensor, pixels: Pixels) -> Tensor:
    """The list (C,P) of a block (B,N,C) that `pack` laid out."""
    return block.permute(2, 0, 1).flatten(1).index_select(1, pixels.padded_position[0])

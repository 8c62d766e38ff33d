"""A gradient for the outline: coverage of pixels that it cuts, antialiased analytically.

Which triangle a pixel sees does not change smoothly, so colours and masks carry no gradient of where the
outline runs. Here a pixel inside the outline and its neighbour outside are blended by how far between their
centres the outline crosses, like the antialiasing of Laine et al. 2020, "Modular primitives for
high-performance differentiable rendering". Unlike there, the crossing is looked for among the edges of all
triangles, not only of the one that the inner pixel sees: on the rim of a head triangles are narrower than a
pixel.

Only the outline against the background is blended; where a nose stands before a cheek nothing changes. The
number of crossings depends on the data, so a GPU is waited for here, which it is not elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from facegpt.render.renderer import Rendering


def soften_outline(rendering: Rendering, vertices: Tensor, triangles: Tensor) -> Rendering:
    """The rendering with image and mask antialiased along the outline: see `antialias`.

    vertices (B,V,3): projected, pixels and depth. The image is blended with the background it was given; the
    other parts stay as they are.
    """
    both = torch.cat([rendering.image, rendering.mask[:, None]], dim=1)
    soft = antialias(both, rendering.triangle, vertices, triangles)
    return replace(rendering, image=soft[:, :-1], mask=soft[:, -1])


def antialias(image: Tensor, triangle_ids: Tensor, vertices: Tensor, triangles: Tensor) -> Tensor:
    """Blend the images along the outline of what is seen; differentiable in the images and the vertices.

    image (B,C,H,W): colours over their background, or the mask as one channel. triangle_ids (B,H,W): -1 is
    background. vertices (B,V,3): as for `rasterize`, pixels (depth is not used). triangles (F,3).
    Returns (B,C,H,W). Crossings are measured along rows where the outline is steeper than 45 degrees, else
    along columns, so that every piece counts once: the sum of a mask is the area of its shape, but for the
    ends of edges. Shapes thinner than a pixel can be missed, and their coverage can leave [0,1].
    """
    covered = triangle_ids >= 0
    corners = vertices[..., :2][:, triangles]  # (B, F, 3, 2)
    edges = torch.stack([corners, corners.roll(-1, dims=2)], dim=3).flatten(1, 2)  # (B, 3F, 2 ends, 2)
    along_rows = _blend(image, covered, edges)
    flipped = _blend(image.transpose(2, 3), covered.transpose(1, 2), edges.flip(-1), shallow=True)
    return image + along_rows + flipped.transpose(2, 3)


def _blend(image: Tensor, covered: Tensor, edges: Tensor, shallow: bool = False) -> Tensor:
    """What blending neighbours of a row adds to the image, for edges (B,E,2,2) that are steep (|dy| >= |dx|).

    shallow: rows and columns have changed places; edges of exactly 45 degrees had their turn then.
    """
    batch, channels, height, width = image.shape
    added = torch.zeros_like(image).permute(1, 0, 2, 3).reshape(channels, -1)  # (C, B*H*W)
    pair, inner, share = _crossings(covered, edges, shallow)
    flat = image.permute(1, 0, 2, 3).reshape(channels, -1)
    left, right = flat.index_select(1, pair), flat.index_select(1, pair + 1)
    inside, outside = torch.where(inner, left, right), torch.where(inner, right, left)
    place_inside = torch.where(inner, pair, pair + 1)
    place_outside = torch.where(inner, pair + 1, pair)
    # Beyond the half-way point the outer pixel is covered in part, before it the inner one is bared in part.
    beyond = share > 0.5
    step = (share - 0.5) * (inside - outside)
    added = added.index_add(1, torch.where(beyond, place_outside, place_inside), step)
    return added.reshape(channels, batch, height, width).transpose(0, 1)


def _crossings(covered: Tensor, edges: Tensor, shallow: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Where the outline crosses rows, between two centres of which it covers one.

    Returns N flat positions of left pixels, whether the left one is the covered one, and the outline's
    distance (N,) from the covered centre, in [0,1].
    """
    _, height, width = covered.shape
    with torch.no_grad():
        (ax, ay), (bx, by) = (end.unbind(-1) for end in edges.unbind(2))  # (B, E) each
        steep = (by - ay).abs() > (bx - ax).abs() if shallow else (by - ay).abs() >= (bx - ax).abs()
        # Rows whose centre lies in the half-open span, so that two edges in a chain do not both cross.
        first = torch.ceil(torch.minimum(ay, by) - 0.5).clamp(0, height).long()
        last = torch.ceil(torch.maximum(ay, by) - 0.5).clamp(0, height).long()
        left = torch.floor(torch.minimum(ax, bx) - 0.5).clamp(0, width - 1).long()
        right = torch.floor(torch.maximum(ax, bx) - 0.5).clamp(-1, width - 2).long() + 1
        near = steep & (_changes(covered, first, last, left, torch.maximum(left, right)) > 0)
        live = near.flatten().nonzero().flatten()
        first, count = first.flatten()[live], (last - first).flatten()[live]
        owner = torch.arange(len(live), device=live.device).repeat_interleave(count)
        row = first[owner] + torch.arange(len(owner), device=live.device) - (count.cumsum(0) - count)[owner]
    a, b, c, d = edges.flatten(0, 1).index_select(0, live).flatten(1).index_select(0, owner).unbind(1)
    x = a + (row + 0.5 - b) * ((c - a) / (d - b)) - 0.5  # in pixels to the right of the first centre
    with torch.no_grad():
        column = x.floor().clamp(-1, width)
        face = live[owner] // max(edges.shape[1], 1)
        pair = (face * height + row) * width + column.long().clamp(0, max(width - 2, 0))
        flat = torch.nn.functional.pad(covered.flatten(), (0, 1))
        real = (column >= 0) & (column < width - 1) & (flat[pair] != flat[pair + 1])
        chosen = real.nonzero().flatten()
    pair, beside = pair[chosen], (x - column)[chosen]
    share = torch.where(flat[pair], beside, 1 - beside)
    # Of several crossings the outermost is the outline: outside of it nothing is covered any more. Both
    # triangles at an edge bring it; they divide the gradient equally.
    places, slot = pair.unique(return_inverse=True)
    outermost = share.new_zeros(len(places)).scatter_reduce(0, slot, share, "amax", include_self=False)
    return places, flat[places], outermost


def _changes(covered: Tensor, first: Tensor, last: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """How many neighbours in a row differ, the left one of them in rows first:last and columns left:right.

    covered (B,H,W), bounds (B,E) -> (B,E), by a summed-area table: most edges are nowhere near the outline.
    """
    changes = (covered[:, :, 1:] != covered[:, :, :-1]).int()
    table = torch.nn.functional.pad(changes, (1, 1, 1, 0)).cumsum(1).cumsum(2)  # (B, H+1, W+1)
    columns, table = table.shape[2], table.flatten(1)

    def until(row: Tensor, column: Tensor) -> Tensor:
        return table.gather(1, row * columns + column)

    return until(last, right) - until(first, right) - until(last, left) + until(first, left)

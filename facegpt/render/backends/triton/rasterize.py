"""The GPU rasterizer: triton kernels, in which every triangle offers its depth to its pixels at once.

A pixel's key holds depth in its upper and the triangle's index in its lower 32 bits; 64-bit atomic minima
keep the smallest. A minimum does not depend on order, so the result is the same in every run. Nothing waits
for the GPU and no shape depends on data, so a CUDA graph can record it. With TRITON_INTERPRET=1 set before
Python starts the same kernels run on the CPU, slowly, which is how they are tested.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

# Triangles per program. The interpreter pays per operation and hardly for its width.
BLOCK = 128
INTERPRETED_BLOCK = 1 << 16
# A lane walks through its own triangle's bounding box up to this many pixels; larger ones are shared.
SMALL = 256
_BACKGROUND = 2**63 - 1
# Edge functions of snapped coordinates are multiples of 2**-24, so at least half of that means positive.
_POSITIVE = tl.constexpr(2.0**-25)


def is_interpreted() -> bool:
    """Whether the kernels run through triton's interpreter; both they and triton's own functions must."""
    return isinstance(_draw, InterpretedFunction) and isinstance(tl.sum, InterpretedFunction)


def block(count: int, gpu: int = BLOCK) -> int:
    """How many of `count` items one program takes: `gpu`, or through the interpreter as many as there are."""
    if is_interpreted():
        return min(triton.next_power_of_2(max(count, 1)), INTERPRETED_BLOCK)
    return gpu


def triangle_ids(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Triangle ids (B,H,W) int64 by the rules of `facegpt.render.rasterize`, -1 on the background.

    vertices (B,V,3) float64: snapped pixels and depth. triangles (F,3) int64.
    Triangles with a corner that is not finite draw nothing.
    """
    batch, count = len(vertices), len(triangles)
    keys = torch.full((batch, height, width), _BACKGROUND, dtype=torch.int64, device=vertices.device)
    if keys.numel() and count:
        size = block(count)
        _draw[(triton.cdiv(count, size), batch)](
            vertices.contiguous(),
            triangles.contiguous(),
            keys,
            count,
            vertices.shape[1],
            height,
            width,
            SMALL=SMALL,
            STEP=max(INTERPRETED_BLOCK // size, 1) if is_interpreted() else 1,
            BLOCK=size,
        )
    return torch.where(keys == _BACKGROUND, -1, keys & 0xFFFFFFFF)


# From here on triton compiles; coordinates are float64, in which edge functions are exact.


@triton.jit
def _draw(  # type: ignore[no-untyped-def]
    vertices,
    triangles,
    keys,
    count,
    vertex_count,
    height,
    width,
    SMALL: tl.constexpr,
    STEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (i, b) draws triangles i BLOCK to (i+1) BLOCK - 1 of face b."""
    lane = tl.arange(0, BLOCK)
    start = tl.program_id(0) * BLOCK
    face = tl.program_id(1).to(tl.int64)
    points = vertices + face * vertex_count * 3
    image = keys + face * height * width

    number = start + lane
    ax, ay, az, bx, by, bz, cx, cy, cz = _corners(points, triangles, number, number < count)
    left, right, top, bottom = _box(ax, ay, bx, by, cx, cy, height, width)
    pixels = (right - left + 1) * (bottom - top + 1)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    drawn = (number < count) & (area > 0) & (right >= left) & (bottom >= top)

    small = drawn & (pixels <= SMALL)
    # One row per triangle, STEP of its pixels at a time.
    number, left, top, columns = number[:, None], left[:, None], top[:, None], (right - left + 1)[:, None]
    ax, ay, az, bx, by, bz = ax[:, None], ay[:, None], az[:, None], bx[:, None], by[:, None], bz[:, None]
    cx, cy, cz = cx[:, None], cy[:, None], cz[:, None]
    within = tl.where(small, pixels, 0)[:, None]
    for offset in range(0, tl.max(tl.where(small, pixels, 0)), STEP):
        place = offset + tl.arange(0, STEP)[None, :]
        candidate = place < within
        row, column = top + place // tl.maximum(columns, 1), left + place % tl.maximum(columns, 1)
        _offer(image, width, number, row, column, candidate, ax, ay, az, bx, by, bz, cx, cy, cz)

    large = drawn & (pixels > SMALL)
    for _ in range(tl.sum(large.to(tl.int32))):
        first = tl.min(tl.where(large, lane, BLOCK))
        large = large & (lane != first)
        _draw_large(points, triangles, start + first, image, height, width, BLOCK)


@triton.jit
def _draw_large(points, triangles, number, image, height, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """All lanes draw one triangle."""
    ax, ay, az, bx, by, bz, cx, cy, cz = _corners(points, triangles, number, True)
    left, right, top, bottom = _box(ax, ay, bx, by, cx, cy, height, width)
    columns = right - left + 1
    for offset in range(0, columns * (bottom - top + 1), BLOCK):
        place = offset + tl.arange(0, BLOCK)
        row, column = top + place // columns, left + place % columns
        _offer(image, width, number, row, column, row <= bottom, ax, ay, az, bx, by, bz, cx, cy, cz)


@triton.jit
def _corners(points, triangles, number, real):  # type: ignore[no-untyped-def]
    """Corners of triangles, turned so that their area is positive; all zero where one is not finite."""
    a = tl.load(triangles + 3 * number, mask=real, other=0)
    b = tl.load(triangles + 3 * number + 1, mask=real, other=0)
    c = tl.load(triangles + 3 * number + 2, mask=real, other=0)
    ax, ay, az = tl.load(points + 3 * a), tl.load(points + 3 * a + 1), tl.load(points + 3 * a + 2)
    bx, by, bz = tl.load(points + 3 * b), tl.load(points + 3 * b + 1), tl.load(points + 3 * b + 2)
    cx, cy, cz = tl.load(points + 3 * c), tl.load(points + 3 * c + 1), tl.load(points + 3 * c + 2)
    total = tl.abs(ax) + tl.abs(ay) + tl.abs(az) + tl.abs(bx) + tl.abs(by) + tl.abs(bz)
    total += tl.abs(cx) + tl.abs(cy) + tl.abs(cz)
    finite = total < 1e300  # also false for NaN
    ax, ay, az = tl.where(finite, ax, 0.0), tl.where(finite, ay, 0.0), tl.where(finite, az, 0.0)
    bx, by, bz = tl.where(finite, bx, 0.0), tl.where(finite, by, 0.0), tl.where(finite, bz, 0.0)
    cx, cy, cz = tl.where(finite, cx, 0.0), tl.where(finite, cy, 0.0), tl.where(finite, cz, 0.0)
    turned = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) < 0
    bx, cx = tl.where(turned, cx, bx), tl.where(turned, bx, cx)
    by, cy = tl.where(turned, cy, by), tl.where(turned, by, cy)
    bz, cz = tl.where(turned, cz, bz), tl.where(turned, bz, cz)
    return ax, ay, az, bx, by, bz, cx, cy, cz


@triton.jit
def _box(ax, ay, bx, by, cx, cy, height, width):  # type: ignore[no-untyped-def]
    """First and last column and row with centres in the bounding box, clamped before they are integers."""
    # (width and height may be constants, which have no type to convert: hence the floats)
    left = tl.maximum(tl.minimum(tl.minimum(ax, bx), cx) - 0.5, 0.0)
    right = tl.maximum(tl.maximum(tl.maximum(ax, bx), cx) - 0.5, -1.0)
    top = tl.maximum(tl.minimum(tl.minimum(ay, by), cy) - 0.5, 0.0)
    bottom = tl.maximum(tl.maximum(tl.maximum(ay, by), cy) - 0.5, -1.0)
    left, right = tl.ceil(tl.minimum(left, width * 1.0)), tl.floor(tl.minimum(right, width - 1.0))
    top, bottom = tl.ceil(tl.minimum(top, height * 1.0)), tl.floor(tl.minimum(bottom, height - 1.0))
    return left.to(tl.int32), right.to(tl.int32), top.to(tl.int32), bottom.to(tl.int32)


@triton.jit
def _offer(  # type: ignore[no-untyped-def]
    image, width, number, row, column, candidate, ax, ay, az, bx, by, bz, cx, cy, cz
):
    """Lower the keys of those candidate pixels whose centre is inside: a top or left edge runs left or up."""
    x, y = column.to(tl.float64) + 0.5, row.to(tl.float64) + 0.5
    dx, dy = cx - bx, cy - by
    ea = dx * (y - by) - dy * (x - bx)
    inside = candidate & (ea >= tl.where((dy < 0) | ((dy == 0) & (dx > 0)), 0.0, _POSITIVE))
    dx, dy = ax - cx, ay - cy
    eb = dx * (y - cy) - dy * (x - cx)
    inside &= eb >= tl.where((dy < 0) | ((dy == 0) & (dx > 0)), 0.0, _POSITIVE)
    dx, dy = bx - ax, by - ay
    ec = dx * (y - ay) - dy * (x - ax)
    inside &= ec >= tl.where((dy < 0) | ((dy == 0) & (dx > 0)), 0.0, _POSITIVE)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    depth = ((ea * az + eb * bz + ec * cz) / tl.where(area > 0, area, 1.0)).to(tl.float32)
    depth = tl.where(depth == 0, 0.0, depth)  # -0.0 has other bits
    bits = depth.to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats count their magnitude backwards
    key = (bits.to(tl.int64) << 32) | number.to(tl.int64)
    tl.atomic_min(image + row * width + column, key, mask=inside, sem="relaxed")

"""Spherical harmonics lighting with DECA's constants.

27 coefficients are 9 bands x RGB, band-major. The basis is [1, x, y, z, xy, xz, yz, x²-y², 3z²-1] of the
world normal (x to the subject's left, y up, z towards the viewer), each times a constant that contains the
real harmonic's norm and, from band 1 on, the clamped cosine's factor (2π/3, π/4; Ramamoorthi and Hanrahan
2001, eq. 8). Band 0 lacks its factor π, so unit ambient light is √(4π) = 3.5449.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from facegpt.render.pixels import Pixels, pack, unpack

BAND_CONSTANTS = (
    1 / math.sqrt(4 * math.pi),
    *[2 * math.pi / 3 * math.sqrt(3 / (4 * math.pi))] * 3,
    *[3 * math.pi / 4 * math.sqrt(5 / (12 * math.pi))] * 3,
    3 * math.pi / 8 * math.sqrt(5 / (12 * math.pi)),
    math.pi / 8 * math.sqrt(5 / (4 * math.pi)),
)
# What the clamped cosine's projection keeps of each band once the constants above hold their share.
_COSINE_FACTORS = (math.pi, *[3 / (2 * math.pi)] * 3, *[4 / math.pi] * 5)


def sh_basis(normals: Tensor) -> Tensor:
    """The nine basis functions at unit normals (...,3), as (...,9)."""
    return torch.stack(_bands(normals), dim=-1) * normals.new_tensor(BAND_CONSTANTS)


def shade(normals: Tensor, lighting: Tensor) -> Tensor:
    """Shading that multiplies the albedo, linear in the light and not clamped.

    normals (B,...,3): unit, world frame. lighting (B,27). Returns (B,...,3) RGB.
    """
    constants = lighting.new_tensor(BAND_CONSTANTS)[:, None]
    light = (lighting.reshape(-1, 9, 3) * constants).transpose(1, 2)  # (B, 3, 9)
    bands = torch.stack(_bands(normals.flatten(1, -2)), dim=1)  # (B, 9, N): channel-first is the fast way
    return torch.bmm(light, bands).transpose(1, 2).reshape(normals.shape)


def shade_at(normals: Tensor, lighting: Tensor, pixels: Pixels) -> Tensor:
    """`shade` for a list of pixels: unit normals (3,P) under their face's lighting (B,27) -> (3,P)."""
    return unpack(shade(pack(normals, pixels), lighting), pixels)


def _bands(normals: Tensor) -> list[Tensor]:
    x, y, z = normals.unbind(-1)
    return [torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1]


def ambient(strength: float = 1.0, batch: int = 1) -> Tensor:
    """White light from everywhere, (batch,27): shading is `strength` whatever the normal."""
    lighting = torch.zeros(batch, 27)
    lighting[:, :3] = strength * math.sqrt(4 * math.pi)
    return lighting


def directional(direction: Tensor, strength: Tensor, ambient_color: Tensor) -> Tensor:
    """A distant light plus ambient light, as (B,27).

    direction (B,3): from the face towards the light, world frame, any length. strength (B,3): RGB of the
    light, before the clamped cosine. ambient_color (B,3): RGB added everywhere.
    The clamped cosine is projected on the nine bands: for t = cos of the angle between normal and light the
    shading is strength (1/4 + t/2 + 5/32 (3t²-1)) + ambient_color; it stays above -0.04 strength.
    """
    toward = torch.nn.functional.normalize(direction, dim=-1)
    # A basis constant is (cosine factor) x (harmonic's norm); the light's own harmonic needs the norm alone.
    share = sh_basis(toward) * direction.new_tensor(_COSINE_FACTORS)
    lighting = share[:, :, None] * strength[:, None, :]  # (B, 9, 3)
    constant = torch.zeros_like(lighting)
    constant[:, 0] = ambient_color * math.sqrt(4 * math.pi)
    return (lighting + constant).flatten(1)

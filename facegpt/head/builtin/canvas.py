"""Every texel of the albedo texture with its place on the mean head, and noise that lives in space.

All patterns are functions of the place in millimetres, never of the texture coordinates: another unwrapping
shows the same face, and nothing has a seam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, median_filter

from facegpt.head.builtin.assemble import HeadMesh
from facegpt.head.builtin.rig import smoothstep
from facegpt.head.builtin.unwrap import texel_triangles

Array = np.ndarray

SIZE = 256
FRONT = ("skin", "inner_lids")


@dataclass
class Canvas:
    """points (H,W,3) in mm; part (H,W): index into part_names; texel (H,W): a texel's size on the head in mm.

    x is the signed, ax the absolute coordinate.
    """

    points: Array
    part: Array
    part_names: list[str]
    texel: Array

    @property
    def x(self) -> Array:
        """Texels' x (H,W) in mm, to the subject's left."""
        return self.points[..., 0]

    @property
    def ax(self) -> Array:
        """Distance (H,W) from the midline in mm."""
        return np.abs(self.points[..., 0])

    @property
    def y(self) -> Array:
        """Height (H,W) in mm."""
        return self.points[..., 1]

    @property
    def z(self) -> Array:
        """Depth (H,W) in mm, out of the face."""
        return self.points[..., 2]

    def on(self, *names: str) -> Array:
        """1 on texels of the parts with one of these names (sides left out), else 0."""
        plain = [part.removeprefix("left_").removeprefix("right_") for part in self.part_names]
        return np.isin(self.part, [code for code, part in enumerate(plain) if part in names]).astype(float)

    def spot(self, x: float, y: float, wide: float, high: float) -> Array:
        """Soft spot (H,W) on the front of the skin around (+-x, y), with these standard deviations in mm."""
        near = np.exp(-0.5 * (((self.ax - x) / wide) ** 2 + ((self.y - y) / high) ** 2))
        return near * smoothstep((self.z - 25) / 25) * self.on(*FRONT)

    def noise(self, length: float, seed: int) -> Array:
        """Noise (H,W) of unit variance, blotches about `length` mm wide; flat where texels are too coarse."""
        return volume_noise(self.points, length, seed) * self._resolved(length)

    def strands(self, flow: Array, width: float, length: float, seed: int) -> Array:
        """Noise (H,W) of unit variance drawn out along the directions `flow` (H,W,3), like combed hair."""
        steps = np.linspace(-0.5, 0.5, 7)[:, None, None, None] * length
        drawn = _standard(volume_noise(self.points + steps * flow, width, seed).mean(0))
        return drawn * self._resolved(width)

    def _resolved(self, length: float) -> Array:
        """1 where a texel is much smaller than `length` mm, falling to 0 where it is larger."""
        shown: Array = 1 / (1 + (0.8 * self.texel / length) ** 3)
        return shown


def canvas(head: HeadMesh, uv: Array, uv_triangles: Array) -> Canvas:
    """Positions of all texels; those outside every triangle take the nearest texel's."""
    triangle, weights = texel_triangles(uv, uv_triangles, SIZE)
    corners = head.vertices[head.triangles[np.maximum(triangle, 0)]]  # (H, W, 3, 3)
    points = (weights[..., None] * corners).sum(2)
    _, nearest = distance_transform_edt(triangle < 0, return_indices=True)
    points = points[nearest[0], nearest[1]]
    names = list(dict.fromkeys(head.triangle_part.tolist()))
    code = {name: number for number, name in enumerate(names)}
    triangle_code = np.array([code[name] for name in head.triangle_part.tolist()])
    part = triangle_code[np.maximum(triangle, 0)][nearest[0], nearest[1]]
    steps = np.stack([np.linalg.norm(step, axis=-1) for step in np.gradient(points, axis=(0, 1))])
    texel = np.minimum(median_filter(steps.max(0), 3), 20.0)
    return Canvas(points, part, names, texel)


def volume_noise(points: Array, length: float, seed: int) -> Array:
    """Noise (...) at points (...,3) mm from a periodic block of random numbers `length` / 2 mm apart."""
    block = np.random.default_rng(seed).normal(size=(64, 64, 64))
    block = gaussian_filter(block, 0.8, mode="wrap")
    places = np.moveaxis(points, -1, 0) * (2.0 / length) + 32.0
    return _standard(map_coordinates(block, places, order=1, mode="grid-wrap"))


def _standard(values: Array) -> Array:
    standard: Array = (values - values.mean()) / values.std()
    return standard

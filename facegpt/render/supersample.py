"""Pictures without stairs: several pixels rendered for each one that is shown."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from torch import Tensor
from torch.nn.functional import avg_pool2d

from facegpt.render.rendering import Fragments, Geometry, Rendering
from facegpt.render.surface import unit


def downsample(rendering: Rendering, factor: int) -> Rendering:
    """A rendering at 1/factor of its size, each pixel the mean of its factor x factor samples.

    image is averaged with its background, mask and skin_mask become coverage in [0,1]; normals (made unit
    again) and depth are averaged over the samples that see the face; landmarks are in coarse pixels.
    triangle and fragments are those of one sample: at the pixel's centre or else right and below of it.
    """

    def mean(images: Tensor) -> Tensor:
        flat = images if images.ndim == 4 else images[:, None]
        pooled = avg_pool2d(flat, factor)
        return pooled if images.ndim == 4 else pooled[:, 0]

    mask = mean(rendering.mask)

    @cache
    def geometry() -> Geometry:
        fine, middle = rendering.fragments, slice(factor // 2, None, factor)
        return Geometry(
            normals=unit(mean(rendering.normals).transpose(0, 1)).transpose(0, 1),
            depth=mean(rendering.depth * rendering.mask) / mask.clamp(min=1e-6),
            fragments=Fragments(
                fine.triangle[:, middle, middle],
                fine.barycentric[:, middle, middle],
                fine.depth[:, middle, middle],
            ),
        )

    return replace(
        rendering,
        image=mean(rendering.image),
        mask=mask,
        skin_mask=mean(rendering.skin_mask),
        landmarks=rendering.landmarks / factor,
        triangle=rendering.triangle[:, factor // 2 :: factor, factor // 2 :: factor],
        geometry=geometry,
    )


def upsample_background(background: Tensor | None, factor: int) -> Tensor | None:
    """A background for the fine rendering: images (B,3,H,W) with every pixel repeated, a colour as it is."""
    if background is None or background.ndim == 1:
        return background
    return background.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)

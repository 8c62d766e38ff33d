"""Errors in the image plane: landmarks and colours."""

from __future__ import annotations

from torch import Tensor

from facegpt.sample import REFERENCE_SIZE


def landmark_error(predicted: Tensor, target: Tensor, size: int, valid: Tensor | None = None) -> Tensor:
    """Mean distance of the landmarks per face, (B,), in pixels of a 224 crop.

    predicted, target (B,L,2): pixels of an image of side `size`. valid (B,L) bool: the landmarks that count,
    None for all; NaN for a face without any. Those that count do so alike.
    """
    distance = (predicted - target).norm(dim=2)
    mean = distance.mean(dim=1) if valid is None else (distance * valid).sum(dim=1) / valid.sum(dim=1)
    return mean * (REFERENCE_SIZE / size)


def photometric_error(image: Tensor, rendering_image: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask of the colour distance per pixel, (B,).

    image, rendering_image (B,3,H,W): RGB in [0,1]. mask (B,H,W): weights, usually the photograph's soft skin
    mask times the rendered skin mask. Returns sum_p A_p |I_p - R_p| / sum_p A_p with |.| the L2 norm over RGB
    (0 to sqrt(3)); NaN where the mask is empty, so that a face that was never compared cannot count as
    perfect. This is the norm that FOCUS's pixel loss sums; the source's tables (0.07 to 0.2) do not define
    theirs further than "masked L2 in RGB".
    """
    distance = (image - rendering_image).square().sum(dim=1).sqrt()
    return (mask * distance).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))  # 0 / 0 is NaN

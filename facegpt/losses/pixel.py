"""Photometric loss on skin."""

from __future__ import annotations

from torch import Tensor


def pixel_loss(image: Tensor, rendering_image: Tensor, mask: Tensor) -> Tensor:
    """Squared L2 of A * (image - rendering), per face, divided by the size of the face's mask.

    image, rendering_image (F,3,S,S): RGB, the rendering unclamped. mask (F,S,S): A in [0,1], the target's
    soft skin mask times the rendered skin mask. Returns (F,): sum_p |A_p (I_p - R_p)|^2 / max(sum_p A_p, 1).
    Differentiable in both images; the mask is taken as a constant, or the rendering could shrink away from
    its errors.

    Formula: FaceGPT, method section (squared L2). FOCUS's code differs twice: it sums unsquared norms, and it
    divides by the mask of the whole batch, so that a large face outweighs a small one; here each face counts
    the same.
    """
    mask = mask.detach()
    error = (mask[:, None] * (image - rendering_image)).square().sum(dim=(1, 2, 3))
    return error / mask.sum(dim=(1, 2)).clamp(min=1.0)

"""A frozen detector of skin: how much the color of each pixel looks like it, with nothing learnt here.

It is a fixed mixture of Gaussians in YCbCr, the one that Deep3D (Deng et al. 2019, "Accurate 3D Face
Reconstruction with Weakly-Supervised Learning") publishes and FOCUS uses for its skin masks: four Gaussians
for skin, four for everything else. It knows colors only, so wood and sand may count as skin too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SKIN_PRIOR = 0.8

# One row per Gaussian: weight, mean (Y, Cb, Cr), determinant of the covariance,
# inverse covariance as (11, 12, 13, 22, 23, 33).
_SKIN = (
    (0.24063933, 113.71862, 103.39613, 164.08226, 5692842.5,
     0.0019472069, 0.0020450759, -0.00060243998, 0.017700525, 0.0051420014, 0.0081308950),
    (0.16365987, 150.19858, 105.18467, 155.51428, 5851930.5,
     0.0027110141, 0.0011036990, 0.0023122299, 0.010707724, 0.010742856, 0.017481629),
    (0.26034665, 183.92976, 107.62468, 152.71820, 2329131.0,
     0.0048026871, 0.00022935172, 0.0077668377, 0.011729696, 0.0081661865, 0.025374353),
    (0.33535415, 114.90524, 113.59782, 151.38217, 1585971.0,
     0.0011989699, 0.0022453172, -0.0010748957, 0.047758564, 0.020332102, 0.024502251),
)  # fmt: skip
_OTHER = (
    (0.12791070, 99.200851, 112.07533, 140.20602, 458703648.0,
     0.00085371657, 0.00071197288, 0.00023958916, 0.0025935620, 0.00076557708, 0.0015042332),
    (0.31130761, 110.91392, 125.52969, 130.19237, 6466488.0,
     0.00024650150, 0.00045542428, 0.00015019422, 0.026412144, 0.018419769, 0.037497383),
    (0.34245777, 129.75864, 129.96107, 126.96808, 90611376.0,
     0.00037054974, 0.00038146760, 0.00040408765, 0.0085505722, 0.0079136286, 0.010982352),
    (0.21832393, 112.29587, 128.85121, 129.05431, 133097.63,
     0.00013709733, 0.00051228428, 0.00012777430, 0.28237113, 0.10528370, 0.23468947),
)  # fmt: skip

# ITU-R BT.601 studio range, for RGB in [0, 1].
_RGB_TO_YCBCR = ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214))
_YCBCR_OFFSET = (16.0, 128.0, 128.0)


def skin_probability(image: Tensor) -> Tensor:
    """Posterior probability that each pixel shows skin, judged by its colour alone.

    image (B,3,H,W): RGB in [0,1]. Returns (B,H,W) in [0,1]: 0.8 p_skin / (0.8 p_skin + 0.2 p_other).
    The reference quantises the result to 8 bits; here it stays exact. Computed from log densities, because
    both densities underflow for saturated colours.
    """
    matrix = image.new_tensor(_RGB_TO_YCBCR)
    offset = image.new_tensor(_YCBCR_OFFSET)
    color = image.movedim(1, -1) @ matrix.T + offset  # (B, H, W, 3)
    log_skin = _log_density(color, _SKIN) + math.log(SKIN_PRIOR)
    log_other = _log_density(color, _OTHER) + math.log(1 - SKIN_PRIOR)
    return torch.sigmoid(log_skin - log_other)


def _log_density(color: Tensor, gaussians: tuple[tuple[float, ...], ...]) -> Tensor:
    terms = []
    for weight, y, cb, cr, determinant, l11, l12, l13, l22, l23, l33 in gaussians:
        dy, db, dr = (color - color.new_tensor((y, cb, cr))).unbind(-1)
        distance = (
            l11 * dy * dy
            + l22 * db * db
            + l33 * dr * dr
            + 2 * (l12 * dy * db + l13 * dy * dr + l23 * db * dr)
        )
        terms.append(
            math.log(weight) - 0.5 * (3 * math.log(2 * math.pi) + math.log(determinant)) - 0.5 * distance
        )
    return torch.logsumexp(torch.stack(terms), dim=0)

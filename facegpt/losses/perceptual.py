"""Perceptual loss: distance of the recogniser's features of photograph and rendering."""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.perception.align import align_face
from facegpt.perception.recognizer import Recognizer


def perceptual_loss(
    recognizer: Recognizer,
    image: Tensor,
    landmarks: Tensor,
    rendering_image: Tensor,
    rendering_landmarks: Tensor,
) -> Tensor:
    """1 - cosine of the recogniser's features of the photograph and of the rendering, (F,) in [0,2].

    image, rendering_image (F,3,S,S): RGB in [0,1]; the rendering stands on black, not on the photograph.
    landmarks, rendering_landmarks (F,68,2): pixels. Each image is aligned by its own landmarks: the
    photograph by the detected ones, the rendering by its predicted ones (FOCUS), so a misplaced rendering is
    still recognised. Differentiable in `rendering_image` only; the warps carry no gradient.
    """
    with torch.no_grad():
        target = recognizer(align_face(image, landmarks))
    feature = recognizer(align_face(rendering_image, rendering_landmarks))
    return 1 - (feature * target).sum(dim=1)

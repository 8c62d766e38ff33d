"""Which pixels of a photograph the fit of its face should explain."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from facegpt.perception.skin import skin_probability

WITHIN = 0.5  # the least weight of a pixel within the face
OUTLINE = (*range(17), *range(26, 16, -1))  # jaw from ear to ear, then back along the brows


def evidence(image: Tensor, landmarks: Tensor) -> Tensor:
    """Weights (S,S) in [0,1] of the pixels of a crop: skin by its color, anything within the face by half.

    image (3,S,S): RGB in [0,1]. landmarks (68,2): pixels of it. Teeth, lips, brows and beards do not look
    like skin. Were they left out, a smile that shows teeth would be explained best by lips that cover them.
    """
    size = image.shape[-1]
    inside = Image.new("L", (size, size))
    outline = landmarks.clamp(-size, 2 * size)[list(OUTLINE)] - 0.5  # PIL counts pixels from their centers
    ImageDraw.Draw(inside).polygon([(x, y) for x, y in outline.tolist()], fill=1)
    face = torch.from_numpy(np.array(inside)).to(image)
    return torch.maximum(skin_probability(image[None])[0], WITHIN * face)

"""Prior on the face parameters."""

from __future__ import annotations

from torch import Tensor

from facegpt.head.parameters import FaceParameters


def regularization(parameters: FaceParameters) -> Tensor:
    """(sum shape^2 + sum expression^2 + sum albedo^2) / 224 per face, (F,).

    The squared distance to the head's mean in standard deviations; pose, camera and lighting are free.
    Formula: FOCUS's code, which divides by batch x 224 (an image width, of no meaning here, kept so that the
    published weight 0.1 means the same). FOCUS regularises colour coefficients that its network scales by 3;
    ours are standard deviations already.
    """
    groups = (parameters.shape, parameters.expression, parameters.albedo)
    total = sum((group.square().sum(dim=1) for group in groups[1:]), start=groups[0].square().sum(dim=1))
    return total / 224

"""What MediaPipe's blendshape network says of a photograph, in the components of a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facegpt.head.parameters import FaceParameters
from facegpt.perception.face_points import BLENDSHAPES

# Component, or jawOpen for the jaw's angle in radians -> offset, slope and spread: by least squares over 250
# renderings of the built-in head, coefficient = offset + slope * blendshape, off by the spread (correlation
# 0.83 for blinks, 0.90 for smiles, 0.80 for the jaw). The network tells little about the rest of that head.
SEEN: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys(("eyeBlinkLeft", "eyeBlinkRight"), (-0.05, 1.24, 0.10)),
    **dict.fromkeys(("mouthSmileLeft", "mouthSmileRight"), (0.01, 1.12, 0.12)),
    "jawOpen": (0.026, 0.465, 0.05),
}


@dataclass(frozen=True)
class Expected:
    """A guess of the expression: value and spread (E + 1,) of its components and, last, of the jaw's opening
    in radians; the spread is infinite where nothing is known.
    """

    value: Tensor
    spread: Tensor

    def start(self, parameters: FaceParameters) -> FaceParameters:
        """The same face with what is known of the expression."""
        known = self.spread.isfinite()
        pose = parameters.pose.clone()
        if known[-1]:
            pose[:, 3] = self.value[-1]
        expression = torch.where(known[:-1], self.value[:-1], parameters.expression)
        return parameters.replace(expression=expression, pose=pose)

    def surprise(self, parameters: FaceParameters) -> Tensor:
        """Sum of squared standard deviations from the guess per face, (F,)."""
        found = torch.cat([parameters.expression, parameters.pose[:, 3:4]], dim=1)
        return ((found - self.value) / self.spread).square().sum(dim=1)


def expected_expression(blendshapes: Tensor, names: Sequence[str], size: int) -> Expected:
    """The guess of blendshapes (52,) for `size` components of these names.

    Nothing is known of the jaw where opening it is one of the components.
    """
    value, spread = torch.zeros(size + 1), torch.full((size + 1,), torch.inf)
    for place, name in enumerate([*names[:size], "jawOpen"]):
        if name in SEEN and (name != "jawOpen" or name not in names):
            offset, slope, deviation = SEEN[name]
            seen = float(blendshapes[BLENDSHAPES.index(name)])
            value[place] = min(max(offset + slope * seen, 0.0), 1.0)
            spread[place] = deviation
    return Expected(value, spread)

"""The objective: the weighted sum of the face losses, each part kept for the log."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from facegpt.errors import ConfigError, SampleError
from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.losses.landmark import landmark_loss
from facegpt.losses.perceptual import perceptual_loss
from facegpt.losses.pixel import pixel_loss
from facegpt.losses.regularization import regularization
from facegpt.perception.recognizer import Recognizer, check_recognizer
from facegpt.render.rendering import Rendering
from facegpt.sample import FaceTargets

# About how far faces differ, so that an error of one spread weighs the same in every group: standard
# deviations (expressions of named movements are full at 1 and mostly rest), radians, half-widths per metre,
# metres.
PARAMETER_SPREADS: dict[str, tuple[float, ...]] = {
    "shape": (1.0,),
    "albedo": (1.0,),
    "expression": (0.15,),
    "pose": (0.15,),
    "camera": (0.5, 0.01, 0.01),
    "lighting": (0.15,),
    "neck": (0.15,),
    "eyes": (0.15,),
}


@dataclass
class ObjectiveWeights:
    """Weights of L_face; the first four are FaceGPT's. A part of weight 0 is not computed.

    parameters: weight of the mean squared error to the true parameters in units of PARAMETER_SPREADS, for
        supervision by synthetic faces, whose parameters are known; 0 in self-supervised training.
    landmark_delta: distance in pixels of a 224 crop beyond which the landmark part grows linearly, see
        `landmark_loss`; 0: the published square.
    """

    pixel: float = 0.5
    perceptual: float = 0.25
    landmark: float = 5e-4
    regularization: float = 0.1
    parameters: float = 0.0
    landmark_delta: float = 0.0


class FaceObjective:
    """L_face of every face of a batch.

    Raises ConfigError when the perceptual part is weighted but there is no recogniser, or one that cannot
    read the aligned faces it is fed.
    """

    def __init__(
        self, weights: ObjectiveWeights, recognizer: Recognizer | None, layout: ParameterLayout
    ) -> None:
        if weights.perceptual > 0:
            if recognizer is None:
                raise ConfigError("the perceptual loss has a weight but no recogniser: give one, or weight 0")
            check_recognizer(recognizer)
        self.weights = weights
        self.recognizer = recognizer
        self.layout = layout

    def __call__(
        self, rendering: Rendering, parameters: FaceParameters, targets: FaceTargets
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare a rendering of `parameters` (on black) with its targets, both F faces at side S.

        Returns the weighted sum (F,) and the unweighted parts by the names of `ObjectiveWeights`, each (F,).
        Raises ValueError when the sizes differ, SampleError when the parameter part is weighted and the
        targets have no parameters of this layout.
        """
        if rendering.image.shape != targets.image.shape:
            raise ValueError(
                f"the rendering is {tuple(rendering.image.shape)}, the targets {tuple(targets.image.shape)}: "
                "render as many faces as there are targets, at their size"
            )
        parts: dict[str, Tensor] = {}
        if self.weights.pixel > 0:
            # The soft skin mask of the photograph, where the rendering shows the front of the face.
            mask = targets.skin_mask * rendering.skin_mask.detach()
            parts["pixel"] = pixel_loss(targets.image, rendering.image, mask)
        if self.weights.perceptual > 0 and self.recognizer is not None:
            parts["perceptual"] = perceptual_loss(
                self.recognizer, targets.image, targets.landmarks, rendering.image, rendering.landmarks
            )
        if self.weights.landmark > 0:
            parts["landmark"] = landmark_loss(
                rendering.landmarks,
                targets.landmarks,
                targets.image.shape[-1],
                targets.landmark_valid,
                self.weights.landmark_delta,
            )
        if self.weights.regularization > 0:
            parts["regularization"] = regularization(parameters)
        if self.weights.parameters > 0:
            parts["parameters"] = self._parameter_error(parameters, targets)
        total = rendering.image.new_zeros(len(targets))
        for name, value in parts.items():
            total = total + getattr(self.weights, name) * value
        return total, parts

    def _parameter_error(self, parameters: FaceParameters, targets: FaceTargets) -> Tensor:
        truth = targets.parameters
        if truth is None or truth.shape[1] != self.layout.total:
            found = "none" if truth is None else f"{truth.shape[1]} numbers"
            raise SampleError(
                f"the parameter loss needs the {self.layout.total} true parameters of every face, the "
                f"targets have {found}: train on synthetic faces or set the weight `parameters` to 0"
            )
        return parameter_error(parameters, truth)


def parameter_error(parameters: FaceParameters, truth: Tensor) -> Tensor:
    """Mean squared error to true parameter vectors (F,N) of the same layout in PARAMETER_SPREADS, (F,)."""
    sizes = parameters.layout.sizes
    spreads = [torch.tensor(PARAMETER_SPREADS[name]).expand(size) for name, size in sizes.items()]
    return ((parameters.to_vector() - truth) / torch.cat(spreads).to(truth)).square().mean(dim=1)

"""Errors of faces in the image plane, every face judged on the same pixels.

The evaluation recipes and the validation of training measure with this, so their numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from facegpt.errors import SampleError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.image import landmark_error, photometric_error
from facegpt.render.renderer import render
from facegpt.sample import FaceTargets

MASK = (
    "photograph's soft skin mask times the skin that the true face covers (synthetic faces) or the outline "
    "of the true landmarks (photographs), never the prediction's own mask, so a face cannot win by shrinking"
)


@dataclass
class ImageErrors:
    """Per face (N,): landmark distance in pixels of a 224 crop, colour distance of RGB in [0,1]."""

    landmark: Tensor
    photometric: Tensor


@torch.no_grad()
def image_errors(
    names: Sequence[str],
    targets: Iterable[FaceTargets],
    faces: Mapping[str, FaceParameters],
    head: HeadModel,
    truth: FaceParameters | None,
) -> dict[str, ImageErrors]:
    """Errors of several sets of N faces, by name, against N targets, at the side of the targets.

    names (N): what errors call the targets. targets: groups of them, together N (`target_groups`).
    truth (N): the known parameters of synthetic faces, for the mask. A single face is compared with every
    target.
    Raises SampleError, naming the target, when it shows no skin to compare.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in faces}
    start = 0
    for group in targets:
        group = group.to(head.v_template.device)
        rows, size = slice(start, start + len(group)), group.image.shape[-1]
        start += len(group)
        mask = comparison_mask(group, head, None if truth is None else truth[rows])
        for name, pixels in zip(names[rows], mask.sum(dim=(1, 2)).tolist(), strict=True):
            if pixels < 1:
                raise SampleError(f"{name} shows no skin to compare; check its skin mask and landmarks")
        for name, parameters in faces.items():
            shown = render(head, parameters if len(parameters) == 1 else parameters[rows], size)
            points = shown.landmarks.expand(len(group), -1, -1)
            image = shown.image.clamp(0, 1).expand_as(group.image)
            found[name].append(
                (
                    landmark_error(points, group.landmarks, size, group.landmark_valid).cpu(),
                    photometric_error(group.image, image, mask).cpu(),
                )
            )
    return {
        name: ImageErrors(*(torch.cat(values) for values in zip(*parts, strict=True)))
        for name, parts in found.items()
    }


def comparison_mask(targets: FaceTargets, head: HeadModel, truth: FaceParameters | None) -> Tensor:
    """Weights (F,S,S) of the pixels that count; see `MASK`."""
    size = targets.image.shape[-1]
    if truth is not None:
        return targets.skin_mask * render(head, truth, size).skin_mask
    outlines = torch.stack([outline(points, size) for points in targets.landmarks.cpu()])
    return targets.skin_mask * outlines.to(targets.skin_mask.device)


def outline(landmarks: Tensor, size: int) -> Tensor:
    """1 inside contour and brows (iBUG 0-16, 26-17) of landmarks (68,2) in pixels, as (size, size)."""
    order = [*range(17), *range(26, 16, -1)]
    canvas = Image.new("L", (size, size))
    # Pillow's coordinates name pixel centres by whole numbers.
    corners = [(float(x) - 0.5, float(y) - 0.5) for x, y in landmarks[order]]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return torch.from_numpy(np.array(canvas)).float() / 255

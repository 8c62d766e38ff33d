"""Errors of faces in the image plane, every face judged on the same pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from facegpt.data.collate import stack_targets
from facegpt.data.targets import face_target
from facegpt.errors import SampleError
from facegpt.head.landmarks import facing_yaw
from facegpt.head.lbs import rotation_matrices
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.image import landmark_error, photometric_error
from facegpt.render.renderer import render
from facegpt.sample import FaceRecord

AT_ONCE = 16
YAW_BINS = (0.0, 10.0, 20.0, 90.0)  # degrees to either side
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
    records: Sequence[FaceRecord],
    faces: Mapping[str, FaceParameters],
    head: HeadModel,
    truth: FaceParameters | None,
    size: int,
) -> dict[str, ImageErrors]:
    """Errors of several sets of N faces, by name, against N records at side `size`.

    truth (N): the known parameters of synthetic faces, for the mask. A single face is compared with every
    record.
    Raises SampleError, naming the record, when it shows no skin to compare.
    """
    device = head.v_template.device
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in faces}
    for start in range(0, len(records), AT_ONCE):
        rows = slice(start, min(start + AT_ONCE, len(records)))
        targets = [face_target(record, size) for record in records[rows]]
        stacked = stack_targets(targets)
        assert stacked is not None  # a group has at least one record
        stacked = stacked.to(device)
        image, landmarks, mask = stacked.image, stacked.landmarks, stacked.skin_mask
        if truth is None:
            mask = mask * torch.stack([outline(points, size) for points in landmarks.cpu()]).to(device)
        else:
            mask = mask * render(head, truth[rows], size).skin_mask
        for record, pixels in zip(records[rows], mask.sum(dim=(1, 2)).tolist(), strict=True):
            if pixels < 1:
                raise SampleError(f"{record.id} shows no skin to compare; check its skin mask and landmarks")
        for name, parameters in faces.items():
            shown = render(head, parameters if len(parameters) == 1 else parameters[rows], size)
            count = len(targets)
            found[name].append(
                (
                    landmark_error(
                        shown.landmarks.expand(count, -1, -1), landmarks, size, stacked.landmark_valid
                    ).cpu(),
                    photometric_error(image, shown.image.clamp(0, 1).expand_as(image), mask).cpu(),
                )
            )
    return {
        name: ImageErrors(*(torch.cat(values) for values in zip(*parts, strict=True)))
        for name, parts in found.items()
    }


def outline(landmarks: Tensor, size: int) -> Tensor:
    """1 inside contour and brows (iBUG 0-16, 26-17) of landmarks (68,2) in pixels, as (size, size)."""
    order = [*range(17), *range(26, 16, -1)]
    canvas = Image.new("L", (size, size))
    # Pillow's coordinates name pixel centres by whole numbers.
    corners = [(float(x) - 0.5, float(y) - 0.5) for x, y in landmarks[order]]
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return torch.from_numpy(np.array(canvas)).float() / 255


def yaw_degrees(parameters: FaceParameters) -> Tensor:
    """How far each head (N,) is turned to its left, in degrees."""
    return facing_yaw(rotation_matrices(parameters.pose[:, :3]))


def yaw_groups(truth: FaceParameters) -> dict[str, Tensor]:
    """Label such as "10-20" (degrees to either side) -> bool (N,); empty groups are left out."""
    turned = yaw_degrees(truth).abs().cpu()
    groups = {f"{low:.0f}-{high:.0f}": (turned >= low) & (turned < high) for low, high in pairwise(YAW_BINS)}
    return {label: members for label, members in groups.items() if bool(members.any())}

"""The mean face at its best place and size: the baseline that shows what misplacement alone costs."""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.placement import shift_and_scale
from facegpt.render.camera import project


@torch.no_grad()
def placed_mean_face(
    head: HeadModel, landmarks: Tensor, size: int, valid: Tensor | None = None
) -> FaceParameters:
    """(N) mean faces, each with the camera that brings its landmarks nearest to landmarks (N,68,2).

    landmarks: pixels of an image of side `size`, nearest by least squares over the valid (N,68) ones. Shift
    and scale in the image are the three numbers of a scaled orthographic camera, so the closed form of
    `shift_and_scale` gives it: s' = a s, t' = t + d / (s' size / 2), about the camera's own center.
    """
    mean = head.mean_parameters(len(landmarks))
    target = landmarks.to(mean.camera)
    valid = None if valid is None else valid.to(target.device)
    points = project(head(mean[0]).landmarks, mean.camera[:1], size, size)[..., :2].expand(
        len(target), -1, -1
    )
    # About the image's center: there a scale of the camera is a scale of the pixels.
    middle = size / 2
    factor, shift = shift_and_scale(points - middle, target - middle, valid)
    scale, tx, ty = mean.camera.unbind(dim=1)
    new = factor * scale
    move = shift / (new * middle)[:, None]  # metres, y down
    return mean.replace(camera=torch.stack([new, tx + move[:, 0], ty - move[:, 1]], dim=1))

"""From a face record to the face target that the losses compare with."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from facegpt.errors import LandmarkError, SampleError
from facegpt.perception.skin import skin_probability
from facegpt.sample import FaceRecord, FaceTarget


def face_target(record: FaceRecord, size: int) -> FaceTarget:
    """The record at side `size`: image and skin mask resampled, landmarks scaled, parameters as they are.

    A missing skin mask is computed from the colours at the record's own resolution. The parameters need no
    scaling, because a camera is relative to the image's width.

    Raises LandmarkError or SampleError, naming the record, when a number is missing or not finite, or when
    the image is not square.
    """
    check_record(record)
    width = record.image.width
    image = to_tensor(record.image)
    mask = skin_probability(image[None])[0] if record.skin_mask is None else record.skin_mask.float()
    if size != width:
        resized = record.image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        image = to_tensor(resized)
        mask = F.interpolate(mask[None, None], (size, size), mode="bilinear", antialias=True)[0, 0]
    landmarks = record.landmarks.float() * (size / width)
    return FaceTarget(image, landmarks, mask.clamp(0, 1), record.parameters, record.landmark_valid)


def check_record(record: FaceRecord) -> None:
    """Raise LandmarkError or SampleError, naming the record, unless a face target can be made of it.

    Its landmarks may lie beside the image, by no more than one image width, but their middle must be in it.
    """
    width, height = record.image.size
    if width != height:
        raise SampleError(f"the face crop of {record.id} is {width} x {height} pixels; it must be square")
    check_landmarks(record.landmarks, record.id)
    center = (record.landmarks.amin(0) + record.landmarks.amax(0)) / 2
    beside = (record.landmarks < -width) | (record.landmarks > 2 * width)
    if bool((center < 0).any()) or bool((center > width).any()) or bool(beside.any()):
        raise LandmarkError(f"the landmarks of {record.id} lie outside of its image; detect them again")
    if record.skin_mask is not None:
        if tuple(record.skin_mask.shape) != (height, width):
            raise SampleError(
                f"the skin mask of {record.id} is {tuple(record.skin_mask.shape)} for an image of "
                f"{height} x {width}; they must have the same size"
            )
        if not bool(torch.isfinite(record.skin_mask).all()):
            raise SampleError(f"the skin mask of {record.id} has values that are not finite; make it again")
    if record.parameters is not None and not bool(torch.isfinite(record.parameters).all()):
        raise SampleError(f"the face parameters of {record.id} are not all finite; make the record again")


def check_landmarks(landmarks: Tensor, name: str) -> None:
    """Raise LandmarkError, naming `name`, unless there are 68 finite landmarks that span some pixels."""
    if tuple(landmarks.shape) != (68, 2):
        raise LandmarkError(f"{name} has landmarks of shape {tuple(landmarks.shape)} instead of (68, 2)")
    if not bool(torch.isfinite(landmarks).all()):
        raise LandmarkError(f"a landmark of {name} is not a finite number; detect them again")
    span = float((landmarks.amax(0) - landmarks.amin(0)).mean())
    if span < 4:
        raise LandmarkError(
            f"the landmarks of {name} span {span:.2g} pixels; they must be in pixels of its image"
        )


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image as (3,H,W) float32 RGB in [0,1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255

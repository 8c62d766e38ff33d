"""Faces with known parameters, sorted by how the head is turned, how it is lit, and how dark its skin is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from facegpt.head.landmarks import facing_yaw
from facegpt.head.lbs import rotation_matrices
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.lighting import shade
from facegpt.render.renderer import render

YAW_BINS = (0.0, 10.0, 20.0, 90.0)  # degrees to either side
SIDES_BINS = (1.0, 1.5, 2.5, math.inf)  # brighter over darker side of the face
# Individual typology angle in degrees (Chardon et al. 1991; Del Bino and Bernerd 2013), dark to light.
TONE_BINS = (-math.inf, -30.0, 10.0, 28.0, 41.0, 55.0, math.inf)
TONES = ("dark", "brown", "tan", "intermediate", "light", "very light")
DARKEST = 0.05  # of shading: what is darker counts as this dark
PATCH = 64  # pixels a side of the pictures that skin tones are taken from
DEFINITION = (
    "yaw_degrees: how far the true head is turned to either side; light_from_a_side: how much brighter the "
    "true light makes one side of a face than the other, by the shading of normals 45 degrees to both sides; "
    "skin_tone: by the individual typology angle atan((L* - 50) / b*) of the true skin in white light"
)


def face_groups(truth: FaceParameters, head: HeadModel) -> dict[str, dict[str, Tensor]]:
    """Kind of group -> label -> bool (N,); every face is in one group of each kind."""
    return {
        "yaw_degrees": yaw_groups(truth),
        "light_from_a_side": _grouped(light_ratio(truth), SIDES_BINS, ["1-1.5", "1.5-2.5", "above 2.5"]),
        "skin_tone": _grouped(typology_angle(skin_colors(truth, head)), TONE_BINS, TONES),
    }


def yaw_degrees(parameters: FaceParameters) -> Tensor:
    """How far each head (N,) is turned to its left, in degrees."""
    return facing_yaw(rotation_matrices(parameters.pose[:, :3]))


def yaw_groups(truth: FaceParameters) -> dict[str, Tensor]:
    """Label such as "10-20" (degrees to either side) -> bool (N,); empty groups are left out."""
    labels = [f"{low:.0f}-{high:.0f}" for low, high in pairwise(YAW_BINS)]
    return _grouped(yaw_degrees(truth).abs(), YAW_BINS, labels)


def light_ratio(parameters: FaceParameters) -> Tensor:
    """Shading of the brighter over that of the darker side of each face (N,), mean over the colors, >= 1."""
    side = math.sqrt(0.5)
    normals = parameters.lighting.new_tensor([[side, 0.0, side], [-side, 0.0, side]])
    shading = shade(normals.expand(len(parameters), -1, -1), parameters.lighting).mean(dim=2)  # (N, 2)
    shading = shading.clamp(min=DARKEST)
    return shading.amax(dim=1) / shading.amin(dim=1)


@torch.no_grad()
def skin_colors(parameters: FaceParameters, head: HeadModel, chunk: int = 32) -> Tensor:
    """Mean color (N,3) of the skin of each face in white light, display-coded RGB in [0,1]."""
    parts = []
    for start in range(0, len(parameters), chunk):
        some = parameters.albedo[start : start + chunk]
        shown = render(head, head.mean_parameters(len(some)).replace(albedo=some), PATCH)
        mask = shown.skin_mask[:, None]
        parts.append((mask * shown.image.clamp(0, 1)).sum(dim=(2, 3)) / mask.sum(dim=(2, 3)))
    return torch.cat(parts)


def typology_angle(colors: Tensor) -> Tensor:
    """Individual typology angle (N,) in degrees of sRGB colors (N,3) in [0,1], under D65; large is light."""
    colors = colors.double()
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    # IEC 61966-2-1: to XYZ; X is not needed for L* and b*.
    luminance = linear @ linear.new_tensor([0.2126, 0.7152, 0.0722])
    z = linear @ linear.new_tensor([0.0193, 0.1192, 0.9505]) / 1.0890
    y, z = (torch.where(v > 216 / 24389, v ** (1 / 3), (24389 / 27 * v + 16) / 116) for v in (luminance, z))
    lightness, yellowness = 116 * y - 16, 200 * (y - z)
    return torch.rad2deg(torch.atan2(lightness - 50, yellowness))


def _grouped(values: Tensor, edges: Sequence[float], labels: Sequence[str]) -> dict[str, Tensor]:
    """Label -> bool (N,) on the CPU: the values (N,) from one edge up to the next; no empty groups."""
    values = values.cpu()
    groups = {
        label: (values >= low) & (values < high)
        for label, (low, high) in zip(labels, pairwise(edges), strict=True)
    }
    return {label: members for label, members in groups.items() if bool(members.any())}

"""The 68 landmarks (iBUG order) as points of the surface, with a contour that follows the yaw.

A face turned sideways shows another outline than the frontal one, so the detector's 17 contour points lie on
other places of the surface. FLAME's tables give those places for each degree of yaw.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_YAW = 39


def head_yaw(rotation: Tensor) -> Tensor:
    """Yaw in degrees (B,) within +-90 of head rotations (B,3,3), as DECA takes it to choose the contour.

    Positive turns the nose to the subject's left (+x). It is the angle of the subject's left side to the
    image plane, so a roll does not change it; `facing_yaw` says where the nose points.
    """
    return torch.rad2deg(torch.atan2(-rotation[:, 2, 0], rotation[:, :2, 0].norm(dim=1)))


def facing_yaw(rotation: Tensor) -> Tensor:
    """Where the nose points, in degrees (B,) within +-180, for head rotations (B,3,3); positive towards +x.

    The turn about the vertical axis when pitch and roll come before it: what people mean by "turned by 20
    degrees". Equal to `head_yaw` without pitch and roll; the contour tables were made with that one.
    """
    return torch.rad2deg(torch.atan2(rotation[:, 0, 2], rotation[:, 2, 2]))


def contour_row(yaw: Tensor) -> Tensor:
    """Row (B,) int64 of the contour tables for a yaw (B,) in degrees, with DECA's sign.

    Rows 0..39 are yaw 0..39, rows 40..78 are yaw -1..-39; beyond +-39 the last row of its side is taken. The
    choice is piecewise constant: no gradient goes through it.
    """
    degrees = yaw.detach().nan_to_num().clamp(-_MAX_YAW, _MAX_YAW).round().long()
    return torch.where(degrees >= 0, degrees, _MAX_YAW - degrees)


def surface_points(vertices: Tensor, triangles: Tensor, index: Tensor, barycentric: Tensor) -> Tensor:
    """Points (B,N,3) at barycentric (N,3) or (B,N,3) of the triangles index (N,) or (B,N).

    vertices (B,V,3), triangles (F,3) int64.
    """
    corners = triangles[index].expand(len(vertices), -1, 3)  # (B, N, 3)
    batch = torch.arange(len(vertices), device=vertices.device)[:, None, None]
    return (vertices[batch, corners] * barycentric[..., None]).sum(-2)

"""MediaPipe's 478 points of a face: which of them are iBUG's 68 landmarks, and what its blendshapes read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COUNT = 478
# The outer corners of the eyes, left in the image first.
EYE_CORNERS = (33, 263)
FOREHEAD, CHIN = 10, 152

# iBUG's landmark k is the mean of the two points of row k, moved along the axes of the face (`face_axes`) by
# hundredths of the distance between the outer corners of the eyes. The moves are what 240 renderings of the
# built-in head ask for, or as much of it as does not raise the error on dlib's annotated photographs. The
# jaw's lie toward the camera, because the outline of a turned face does.
_TABLE: tuple[tuple[int, int, int, int, int], ...] = (
    # jaw
    (127, 162, 0, 4, -9), (234, 234, 1, 2, -21), (132, 93, 2, -3, -26), (58, 132, 3, -1, -25),
    (172, 172, 2, -1, -15), (150, 150, -2, -1, 2), (176, 149, -3, -1, 5), (148, 148, -2, -3, 2),
    (152, 152, 0, 0, 0), (377, 377, 2, -3, 2), (400, 378, 3, -1, 5), (379, 379, 2, -1, 2),
    (397, 397, -2, -1, -15), (288, 361, -3, -1, -25), (361, 323, -2, -3, -26), (454, 454, -1, 2, -21),
    (356, 389, 0, 4, -9),
    # brows
    (70, 70, 1, 2, -1), (63, 63, 3, 1, -2), (105, 105, 5, 2, -1), (66, 66, 6, 2, 1), (107, 107, 3, 3, 3),
    (336, 336, -3, 3, 3), (296, 296, -6, 2, 1), (334, 334, -5, 2, -1), (293, 293, -3, 1, -2),
    (300, 300, -1, 2, -1),
    # nose
    (168, 6, 0, -1, 5), (197, 197, 0, -2, 5), (5, 195, 0, 0, 0), (4, 4, 0, 0, 0), (75, 98, 1, 1, 3),
    (97, 97, 0, 0, 0), (2, 2, 0, 0, 0), (326, 326, 0, 0, 0), (305, 327, -1, 1, 3),
    # eyes
    (33, 33, 0, 0, 0), (160, 160, 0, 0, 0), (158, 158, 0, 1, -2), (133, 133, -2, 0, 2),
    (153, 153, -1, 0, -2), (144, 144, 0, 0, 0), (362, 362, 2, 0, 2), (385, 385, 0, 1, -2),
    (387, 387, 0, 0, 0), (263, 263, 0, 0, 0), (373, 373, 0, 0, 0), (380, 380, 1, 0, -2),
    # lips, outside and inside
    (61, 61, 0, 0, 0), (39, 40, 0, 0, 0), (37, 37, 0, 0, 0), (0, 0, 0, 0, 0), (267, 267, 0, 0, 0),
    (269, 270, 0, 0, 0), (291, 291, 0, 0, 0), (405, 321, 1, 1, 1), (314, 314, 0, 0, 0), (17, 17, 0, 1, 2),
    (84, 84, 0, 0, 0), (181, 91, -1, 1, 1), (78, 78, 0, 0, -1), (82, 82, -1, 0, 1), (13, 13, 0, 1, 1),
    (312, 312, 1, 0, 1), (308, 308, 0, 0, -1), (317, 317, 1, 0, 1), (14, 14, 0, 1, 2), (87, 87, -1, 0, 1),
)  # fmt: skip

# The points that the blendshape network reads, in its order (face_blendshapes_graph.cc of MediaPipe).
BLENDSHAPE_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70,
    78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149,
    150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195,
    197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300,
    308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375,
    377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454,
    466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip

# Names of the network's 52 outputs, in its order; all but the first are ARKit's (which also has tongueOut).
BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip


def face_axes(points: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of (B,3,3): a face's own right (in the image), down and away; and its eyes' distance (B,).

    points (B,478,3) in pixels. Right goes along the outer corners of the eyes, down from forehead to chin.
    """
    right = points[:, EYE_CORNERS[1]] - points[:, EYE_CORNERS[0]]
    down = points[:, CHIN] - points[:, FOREHEAD]
    eyes = right.norm(dim=1)
    right = F.normalize(right, dim=1)
    down = F.normalize(down - (down * right).sum(dim=1, keepdim=True) * right, dim=1)
    return torch.stack([right, down, torch.linalg.cross(right, down)], dim=1), eyes


def to_landmarks(points: Tensor) -> Tensor:
    """iBUG's 68 landmarks (B,68,2) of points (B,478,3), in their pixels; differentiable."""
    axes, eyes = face_axes(points)
    table = torch.tensor(_TABLE, device=points.device)
    moves = (table[:, 2:] / 100).to(points) @ axes * eyes[:, None, None]  # (B, 68, 3)
    return (points[:, table[:, :2]].mean(dim=2) + moves)[..., :2]

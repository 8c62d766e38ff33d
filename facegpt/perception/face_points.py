"""MediaPipe's 478 points of a face: which of them are iBUG's 68 landmarks, and what its blendshapes read."""

from __future__ import annotations

import torch
from torch import Tensor

COUNT = 478
# The outer corners of the eyes, left in the image first.
EYE_CORNERS = (33, 263)

# iBUG's landmark k is the mean of the two points of row k.
_PAIRS: tuple[tuple[int, int], ...] = (
    # jaw, from the silhouette
    (127, 127), (234, 234), (93, 93), (132, 132), (58, 58), (136, 136), (150, 150), (176, 176), (152, 152),
    (400, 400), (379, 379), (365, 365), (288, 288), (361, 361), (323, 323), (454, 454), (356, 356),
    # brows
    (70, 70), (63, 63), (105, 105), (66, 66), (107, 107), (336, 336), (296, 296), (334, 334), (293, 293),
    (300, 300),
    # nose
    (168, 168), (197, 197), (5, 5), (4, 4), (75, 75), (97, 97), (2, 2), (326, 326), (305, 305),
    # eyes
    (33, 33), (160, 160), (158, 158), (133, 133), (153, 153), (144, 144),
    (362, 362), (385, 385), (387, 387), (263, 263), (373, 373), (380, 380),
    # lips, outside and inside
    (61, 61), (39, 39), (37, 37), (0, 0), (267, 267), (269, 269), (291, 291), (405, 405), (314, 314), (17, 17),
    (84, 84), (181, 181), (78, 78), (82, 82), (13, 13), (312, 312), (308, 308), (317, 317), (14, 14), (87, 87),
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


def to_landmarks(points: Tensor) -> Tensor:
    """iBUG's 68 landmarks (B,68,2) of points (B,478,3) in pixels."""
    return points[:, torch.tensor(_PAIRS, device=points.device)].mean(dim=2)[..., :2]

"""Fifty expression components with ARKit's names; coefficient 1 is the full expression, left is the
subject's left.

Jaw opening belongs to the jaw joint. Peaks and directions are those of anatomy.md, in millimetres. Lids
turn about
the eyeballs' horizontal axes, so that they slide over them.
"""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import MIRROR_X, HeadMesh
from facegpt.head.builtin.fields import Bump, bumps
from facegpt.head.builtin.rig import jaw_weights, lip_side, smoothstep

Array = np.ndarray

# Bumps of the left side: name -> [(which lip: 0 both, 1 upper, -1 lower; bump)].
Terms = list[tuple[int, Bump]]

SIDED: dict[str, Terms] = {
    "browDown": [
        (0, ((38, 25, 97), (17, 10, 18), (-4.0, -4.2, 2.2))),
        (0, ((14, 20, 106), (8, 10, 14), (-2.2, -3.2, 0.6))),
    ],
    "browOuterUp": [(0, ((47, 22, 94), (15, 13, 20), (1.5, 8.2, -2.2)))],
    "cheekSquint": [
        (0, ((50, -31, 89), (15, 14, 18), (-0.8, 5.8, 2.2))),
        (0, ((34, -17, 94), (13, 6, 12), (0, 1.6, 0.8))),
    ],
    "noseSneer": [
        (0, ((21, -45, 103), (8, 10, 12), (-0.5, 6.8, 0.4))),
        (0, ((13, -18, 103), (6, 9, 10), (-0.6, 2.6, 1.2))),
    ],
    "mouthDimple": [(0, ((26, -74, 101), (8, 11, 12), (3.6, 3.2, -6.5)))],
    "mouthFrown": [
        (0, ((26, -71, 102), (9, 9, 12), (1.4, -5.8, -2.4))),
        (0, ((27, -86, 99), (10, 9, 14), (0, -2.4, -0.6))),
    ],
    "mouthLowerDown": [(-1, ((11, -77, 112), (9, 9, 14), (1.0, -5.4, -1.0)))],
    "mouthPress": [
        (-1, ((15, -76, 109), (9, 6, 12), (0, 1.5, -1.8))),
        (1, ((15, -65, 112), (9, 5, 12), (0, -1.6, -1.8))),
        (0, ((17, -100, 104), (12, 12, 16), (-0.3, 3.4, 1.2))),
    ],
    "mouthSmile": [
        (0, ((25, -71, 101), (11, 12, 15), (7.8, 9.2, -6.4))),
        (0, ((40, -45, 94), (15, 14, 18), (2.0, 5.5, 2.4))),
    ],
    "mouthStretch": [
        (0, ((24, -72, 101), (12, 12, 16), (7.5, -2.6, -5.2))),
        (0, ((30, -95, 95), (14, 14, 20), (1.5, -2.0, -1))),
    ],
    "mouthUpperUp": [
        (1, ((11, -63, 116), (9, 8, 14), (0.6, 6.0, 0.4))),
        (1, ((22, -52, 104), (9, 10, 14), (1.6, 5.2, -0.6))),
    ],
}
SIDED_INNER_BROW: Terms = [
    (0, ((17, 21, 105), (11, 13, 16), (0.4, 6.1, 0.2))),
    (0, ((0, 34, 106), (14, 12, 16), (0, 2.6, 0.2))),
]
CENTRAL: dict[str, Terms] = {
    "browInnerUp": SIDED_INNER_BROW,
    "cheekPuff": [
        (0, ((37, -64, 95), (15, 16, 18), (5.0, 0.6, 9.4))),
        (0, ((0, -66, 116), (18, 12, 14), (0, 0, 2.2))),
    ],
    "mouthFunnel": [
        (-1, ((6, -74, 114), (10, 8, 14), (-0.4, -5.2, 4.6))),
        (1, ((6, -66, 115), (10, 8, 14), (-0.4, 3.6, 4.2))),
        (0, ((23, -71, 102), (9, 11, 14), (-5.5, 0, 4.5))),
    ],
    "mouthPucker": [
        (0, ((22, -71, 102), (10, 12, 15), (-6.6, 0.8, 7.0))),
        (0, ((0, -70, 116), (11, 9, 13), (0, 0, 5.5))),
    ],
    "mouthRollLower": [(-1, ((0, -73.5, 116), (19, 4.2, 9), (0, 2.2, -6.4)))],
    "mouthRollUpper": [(1, ((0, -66, 117), (19, 4.0, 9), (0, -2.2, -6.4)))],
    "mouthShrugLower": [
        (0, ((0, -97, 110), (17, 11, 22), (0, 7.8, 2.2))),
        (-1, ((0, -77, 114), (18, 8, 12), (0, 2.6, 2.6))),
    ],
    "mouthShrugUpper": [
        (1, ((0, -64, 118), (18, 8, 14), (0, 4.2, 2.2))),
        (-1, ((0, -74, 116), (18, 6, 12), (0, 3.4, 1.8))),
    ],
}
# Lid turns in degrees at the widest part of the opening: (upper, lower); positive is upwards.
LIDS = {
    "eyeWide": (11.0, -3.0),
    "eyeSquint": (-2.5, 10.0),
    "eyeLookUp": (8.0, 3.0),
    "eyeLookDown": (-15.0, -4.0),
}
LID_SKIN: dict[str, Terms] = {"eyeSquint": [(0, ((30, -16, 95), (13, 6, 12), (-1.8, 2.4, 0.5)))]}

EXPRESSION_NAMES = [
    *(f"{n}{s}" for n in ("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint",
    "eyeWide") for s in ("Left", "Right")),
    "jawForward", "jawLeft", "jawRight", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft",
    "mouthRight",
    "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight",
]  # fmt: skip


def mouth_share(head: HeadMesh) -> Array:
    """0 on the upper lip and above, 1 on the lower lip and below, 0.5 at the corners of the mouth; (V,)."""
    x, y, z = np.abs(head.vertices[:, 0]), head.vertices[:, 1], head.vertices[:, 2]
    line = np.interp(x, anatomy.LIP_LINE[:, 0], anatomy.LIP_LINE[:, 1])
    apart = np.maximum(1 - (x / 24.5) ** 4, 0) * (z > 40)
    return np.clip(0.5 + (line - y) / 30 - 0.5 * lip_side(head) * apart, 0, 1)


def expression_basis(head: HeadMesh) -> tuple[Array, list[str]]:
    """Displacements (V, 3, 50) in mm of the full expressions, and their names."""
    low = mouth_share(head)
    jaw = jaw_weights(head)
    left: dict[str, Array] = {name: _lip_bumps(head, terms, low) for name, terms in SIDED.items()}
    left["eyeBlink"] = _lid_turn(head, None)
    for name, turns in LIDS.items():
        left[name] = _lid_turn(head, turns) + _lip_bumps(head, LID_SKIN.get(name, []), low)
    left["eyeLookIn"], left["eyeLookOut"] = _lid_shift(head, -4.0), _lid_shift(head, 4.0)
    fields = {f"{name}Left": field for name, field in left.items()}
    fields |= {f"{name}Right": mirror_field(head, field) for name, field in left.items()}
    fields |= {name: _lip_bumps(head, terms, low, mirrored=True) for name, terms in CENTRAL.items()}

    fields["jawForward"] = jaw[:, None] * [0, -1.2, 8.5]
    fields["jawLeft"] = jaw[:, None] * [8.9, 0.2, -0.2]
    shift: list[Bump] = [((0, -71, 112), (26, 13, 22), (12.0, 0, 0)), ((-24, -72, 102), (12, 12, 16), (3.0,
    -0.3, 6.0)),
                         ((26, -71, 101), (11, 12, 15), (1.5, 0, -4.5))]  # fmt: skip
    fields["mouthLeft"] = bumps(head.vertices, shift, mirrored=False) * _soft_skin(head)[:, None]
    for name in ("jaw", "mouth"):
        fields[f"{name}Right"] = mirror_field(head, fields[f"{name}Left"])
    # Closes the lips of a jaw opened by about 0.2 rad; alone it presses the lower lip over the upper one.
    close: Terms = [
        (-1, ((0, -74, 114), (20, 9, 18), (0, 13.0, 3.0))),
        (1, ((0, -66, 116), (20, 8, 16), (0, -3.0, -0.5))),
    ]
    fields["mouthClose"] = _lip_bumps(head, close, low, mirrored=True)
    return np.stack([fields[name] for name in EXPRESSION_NAMES], -1), list(EXPRESSION_NAMES)


def mirror_field(head: HeadMesh, field: Array) -> Array:
    """The displacement (V,3) of the mirrored expression."""
    return field[head.mirror] * MIRROR_X


def _soft_skin(head: HeadMesh) -> Array:
    """1 where the skin is soft, 0 on teeth and eyeballs, falling off into the mouth."""
    soft = np.ones(len(head.vertices))
    for name in ("upper_teeth", "lower_teeth", "left_eyeball", "right_eyeball"):
        soft[head.parts[name]] = 0
    rows = head.grids["cavity"].ids
    for row, share in zip(rows[1:], (1.0, 0.8, 0.45, 0.1, 0.0, 0.0), strict=True):
        soft[row] = share
    soft[head.parts["cavity"][-1]] = 0
    return soft


def _lip_bumps(head: HeadMesh, terms: Terms, low: Array, mirrored: bool = False) -> Array:
    total = np.zeros_like(head.vertices)
    # Cavity vertices behind the lips move with the rim they hang on, whatever their own position.
    points = head.vertices.copy()
    rows = head.grids["cavity"].ids
    points[rows[1:4]] = points[rows[0]]
    for lip, term in terms:
        share = np.ones(len(low)) if lip == 0 else (1 - low if lip > 0 else low)
        total += share[:, None] * bumps(points, [term], mirrored)
    hold = _lid_hold_left(head)
    return total * _soft_skin(head)[:, None] * (1 - hold)[:, None]


def _lid_hold_left(head: HeadMesh) -> Array:
    """1 on lid margins, which only lid terms may move, fading out over the lids' skin."""
    hold = np.zeros(len(head.vertices))
    for ring, share in zip(head.skin.eye_rings, (1.0, 0.9, 0.6, 0.25), strict=False):
        hold[ring] = hold[head.skin.mirror[ring]] = share
    for side in ("left", "right"):
        hold[head.parts[f"{side}_inner_lids"]] = 1
    return hold


def _lid_angles(head: HeadMesh) -> tuple[Array, Array, Array, Array, Array]:
    """For the left eye: away (V,3) from its centre, elevation (V,), elevation of the upper and of the lower
    rim at
    each vertex's x (V,), and which vertices (V,) the lids' turn may move."""
    away = head.vertices - anatomy.EYE_CENTER
    elevation = np.arctan2(away[:, 1], away[:, 2])
    loop = head.skin.eye_loop
    outer = int(np.argmax(head.vertices[loop, 0]))
    lower = loop[: outer + 1]
    upper = np.concatenate([loop[:1], loop[: outer - 1 : -1]])
    top = np.interp(away[:, 0], away[upper, 0], elevation[upper])
    bottom = np.interp(away[:, 0], away[lower, 0], elevation[lower])
    near = (np.linalg.norm(away, axis=1) < 32) & (away[:, 2] > 0)
    near[head.parts["left_eyeball"]] = False
    return away, elevation, top, bottom, near


def _lid_turn(head: HeadMesh, degrees: tuple[float, float] | None) -> Array:
    """Displacement (V,3) of the left lids turned by (upper, lower) degrees; None closes the eye."""
    away, elevation, top, bottom, near = _lid_angles(head)
    opening = np.maximum(top - bottom, 0)
    if degrees is None:
        meet = bottom + 0.18 * opening - 0.002
        turn_up, turn_down = meet - top, meet - bottom + 0.004 * (opening > 0.02)
    else:
        share = opening / opening.max()
        turn_up, turn_down = (np.radians(d) * share for d in degrees)
    middle = 0.5 * (top + bottom)
    inner = np.zeros(len(away), bool)
    inner[head.parts["left_inner_lids"]] = True
    reach = 1 - smoothstep((np.linalg.norm(away, axis=1) - 19.0) / 9.0)
    fade_up = (1 - smoothstep((elevation - top) / 0.62)) * reach
    fade_down = (1 - smoothstep((bottom - elevation) / 0.75)) * reach
    fade_up[inner], fade_down[inner] = 1, 1
    turn = np.where(elevation >= middle, fade_up * turn_up, fade_down * turn_down) * near
    # Skin beyond the corners has no opening and stays.
    cos, sin = np.cos(turn), np.sin(turn)
    moved = np.stack(
        [away[:, 0], cos * away[:, 1] + sin * away[:, 2], cos * away[:, 2] - sin * away[:, 1]], 1
    )
    return moved - away


def _lid_shift(head: HeadMesh, degrees: float) -> Array:
    """Displacement (V,3) of the left lids turned sideways about the eyeball, positive outwards."""
    away, _, _, _, near = _lid_angles(head)
    distance = np.hypot(away[:, 0] / 17, (away[:, 1] + 1) / 12)
    turn = np.radians(degrees) * np.exp(-(distance**3)) * near
    moved = np.stack([np.cos(turn) * away[:, 0] + np.sin(turn) * away[:, 2], away[:, 1],
                      np.cos(turn) * away[:, 2] - np.sin(turn) * away[:, 0]], 1)  # fmt: skip
    return moved - away

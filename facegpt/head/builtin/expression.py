"""Fifty expression components with ARKit's names; coefficient 1 is the full expression.

Left is the subject's left. Jaw opening belongs to the jaw joint. Peaks and directions are after those of
ICT-FaceKit's expressions (`anatomy.py`), in millimetres.
"""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import MIRROR_X, HeadMesh
from facegpt.head.builtin.fields import Bump, bumps
from facegpt.head.builtin.lids import lid_hold_left, lid_shift, lid_turn
from facegpt.head.builtin.mouth import front_teeth
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
        (1, ((25, -49, 102), (9, 12.5, 13), (-1.5, 10.0, -0.2))),
        (1, ((22, -29, 99), (9, 9, 13), (-0.4, 2.6, 0.4))),
        (0, ((13, -19, 103), (7, 10, 11), (-0.6, 3.4, 1.3))),
    ],
    "mouthDimple": [(0, ((26, -74, 101), (8, 11, 12), (1.6, 5.6, -6.4)))],
    "mouthFrown": [
        (0, ((26, -71, 102), (9, 9, 12), (1.8, -4.9, -2.5))),
        (0, ((27, -86, 99), (10, 9, 14), (0.2, -1.8, -0.4))),
    ],
    "mouthLowerDown": [(-1, ((11, -77, 112), (9, 9, 14), (0.9, -4.6, -1.2)))],
    "mouthPress": [
        (-1, ((14, -77, 110), (10, 3.4, 12), (0, 1.6, -2.0))),
        (1, ((14, -63.5, 113), (10, 3.2, 12), (0, -1.6, -2.0))),
        (0, ((17, -102, 104), (12, 12, 16), (-0.3, 4.1, 1.4))),
    ],
    "mouthSmile": [
        (0, ((25, -71, 101), (11, 12, 15), (7.2, 10.0, -8.4))),
        (0, ((40, -45, 94), (15, 14, 18), (2.0, 5.5, 2.4))),
    ],
    "mouthStretch": [
        (0, ((24, -72, 101), (12, 12, 16), (7.3, -2.3, -6.0))),
        (0, ((30, -95, 95), (14, 14, 20), (1.5, -2.0, -1))),
    ],
    "mouthUpperUp": [
        (1, ((11, -63, 116), (9, 8, 14), (0.6, 4.6, 0.2))),
        (1, ((23, -52, 104), (9, 10, 14), (2.0, 7.6, -2.6))),
    ],
}
SIDED_INNER_BROW: Terms = [
    (0, ((17, 21, 105), (11, 13, 16), (0.5, 5.5, 0.2))),
    (0, ((0, 34, 106), (14, 12, 16), (0, 2.6, 0.2))),
]
CENTRAL: dict[str, Terms] = {
    "browInnerUp": SIDED_INNER_BROW,
    "cheekPuff": [
        (0, ((28, -71, 100), (14, 15, 18), (-2.6, 1.0, 11.4))),
        (0, ((44, -66, 90), (14, 17, 18), (6.0, 0.6, 6.4))),
        (0, ((0, -68, 116), (18, 12, 14), (0, 0, 1.6))),
    ],
    "mouthFunnel": [
        (-1, ((6, -74, 114), (10, 8, 14), (-0.4, -5.2, 4.6))),
        (1, ((6, -66, 115), (10, 8, 14), (-0.4, 3.6, 4.2))),
        (0, ((23, -71, 102), (9, 11, 14), (-5.5, 0, 4.5))),
    ],
    "mouthPucker": [
        (0, ((22, -71, 102), (10, 12, 15), (-5.6, 2.0, 10.2))),
        (0, ((0, -70, 116), (11, 9, 13), (0, 0, 5.5))),
    ],
    "mouthShrugLower": [
        (0, ((0, -100, 110), (17, 12, 22), (0, 10.6, 2.2))),
        (0, ((0, -72, 114), (18, 9, 14), (0, 2.8, 1.2))),
        (-1, ((0, -76, 114), (18, 7, 12), (0, 0.6, 2.0))),
    ],
    "mouthShrugUpper": [
        (1, ((0, -65, 118), (18, 8, 14), (0, 6.0, 1.4))),
        (-1, ((0, -73, 116), (18, 6, 12), (0, 5.2, 1.2))),
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

CLOSED_ANGLE = 0.15  # jaw opening in radians that mouthClose closes the lips of
CAVITY_REACH = 32.0  # mm behind the lips' rim where the cavity no longer moves with it
SLOPE = 0.15  # by how much sliding lips part per way

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
    left["eyeBlink"] = lid_turn(head, None)
    for name, turns in LIDS.items():
        left[name] = lid_turn(head, turns) + _lip_bumps(head, LID_SKIN.get(name, []), low)
    left["eyeLookIn"], left["eyeLookOut"] = lid_shift(head, -4.0), lid_shift(head, 4.0)
    fields = {f"{name}Left": field for name, field in left.items()}
    fields |= {f"{name}Right": mirror_field(head, field) for name, field in left.items()}
    fields |= {name: _lip_bumps(head, terms, low, mirrored=True) for name, terms in CENTRAL.items()}

    fields["jawForward"] = jaw[:, None] * [0, -1.7, 11.0]
    fields["jawLeft"] = jaw[:, None] * [8.9, 0.2, -0.2]
    shift: list[Bump] = [((-3, -71, 111), (26, 14, 22), (15.0, 0, 0.5)),
                         ((-24, -73, 102), (12, 12, 16), (5.0, -0.4, 7.0)),
                         ((26, -71, 101), (11, 12, 15), (1.5, 0, -4.5))]  # fmt: skip
    fields["mouthLeft"] = bumps(head.vertices, shift, mirrored=False) * _soft_skin(head)[:, None]
    for name in ("jaw", "mouth"):
        fields[f"{name}Right"] = mirror_field(head, fields[f"{name}Left"])
    for name, field in fields.items():
        if not name.startswith("jaw"):  # whose weights reach into the cavity
            fields[name] = _follow_lips(head, field)
    for name, lip in (("mouthRollUpper", 1), ("mouthRollLower", -1)):
        fields[name] = _lip_roll(head, lip)
    for name, field in fields.items():
        if not name.startswith(("eye", "brow")):
            fields[name] = _keep_apart(head, field)
    fields["mouthClose"] = _follow_lips(head, _lip_closure(head, jaw))
    return np.stack([fields[name] for name in EXPRESSION_NAMES], -1), list(EXPRESSION_NAMES)


def mirror_field(head: HeadMesh, field: Array) -> Array:
    """The displacement (V,3) of the mirrored expression."""
    return field[head.mirror] * MIRROR_X


def _soft_skin(head: HeadMesh) -> Array:
    """1 where the skin is soft, 0 on what the skull and the jaw carry; the cavity follows the lips later."""
    soft = np.ones(len(head.vertices))
    for name in ("upper_teeth", "lower_teeth", "tongue", "cavity", "left_eyeball", "right_eyeball"):
        soft[head.parts[name]] = 0
    return soft


def _lip_bumps(head: HeadMesh, terms: Terms, low: Array, mirrored: bool = False) -> Array:
    total = np.zeros_like(head.vertices)
    for lip, term in terms:
        share = np.ones(len(low)) if lip == 0 else (1 - low if lip > 0 else low)
        total += share[:, None] * bumps(head.vertices, [term], mirrored)
    return total * (_soft_skin(head) * (1 - lid_hold_left(head)))[:, None]


def _follow_lips(head: HeadMesh, field: Array) -> Array:
    """The field (V,3) with the cavity hanging on the lips' rim.

    Each column moves with its rim, less and less with the way from there. The way is longer than any rim
    moves, so no ring overtakes the next, wherever the lips are pulled.
    """
    rows = head.grids["cavity"].ids
    steps = np.linalg.norm(np.diff(head.vertices[rows], axis=0), axis=2)
    share = np.clip((CAVITY_REACH - np.cumsum(steps, 0)) / (CAVITY_REACH - 4), 0, 1)
    followed = field.copy()
    followed[rows[1:]] = share[..., None] * field[rows[0]]
    return followed


def _lip_closure(head: HeadMesh, jaw: Array) -> Array:
    """Displacement (V,3) that takes the lips back to where they rest when the jaw is open by CLOSED_ANGLE."""
    cos, sin = np.cos(CLOSED_ANGLE), np.sin(CLOSED_ANGLE)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    weight = jaw[:, None, None]
    blend = (1 - weight) * np.eye(3) + weight * turn
    shift = jaw[:, None] * (anatomy.JAW_PIVOT - turn @ anatomy.JAW_PIVOT)
    before = np.linalg.solve(blend, (head.vertices - shift)[..., None])[..., 0]
    x, y, z = np.abs(head.vertices[:, 0]), head.vertices[:, 1], head.vertices[:, 2]
    line = np.interp(x, anatomy.LIP_LINE[:, 0], anatomy.LIP_LINE[:, 1])
    near = np.exp(-((np.maximum(np.abs(y - line) - 4, 0) / 15) ** 2) - (np.maximum(x - 22, 0) / 16) ** 2)
    near *= smoothstep((z - 60) / 25) * _soft_skin(head)
    return near[:, None] * (before - head.vertices)


def _lip_roll(head: HeadMesh, lip: int) -> Array:
    """Displacement (V,3) that tucks the upper (1) or lower (-1) lip in.

    It flattens the lip against the front teeth: all of it, inner side included, comes nearer to the dental
    arch by the same share of its distance, so that nothing gets into the teeth or past its neighbour.
    """
    x, y, z = np.abs(head.vertices[:, 0]), head.vertices[:, 1], head.vertices[:, 2]
    border = anatomy.UPPER_LIP if lip > 0 else anatomy.LOWER_LIP
    line = np.interp(x, anatomy.LIP_LINE[:, 0], anatomy.LIP_LINE[:, 1])
    edge = np.interp(x, border[:, 0], border[:, 1])
    # 0 on the border of the red, 1 on the rim
    depth = (y - edge) * -lip / np.maximum((edge - line) * lip, 1.5)
    share = np.interp(depth, [-0.8, -0.3, 0.0, 0.25, 0.5], [0, 0.05, 0.18, 0.72, 1.0])
    side = lip_side(head)
    share *= (z > 90) * (side == lip) * _soft_skin(head)
    across = smoothstep((23.0 - x) / 10.0)
    rows = head.grids["cavity"].ids
    share[rows[1:4]] = side[rows[1:4]] == lip
    across[rows] = across[rows[0]]
    most = 0.81 if lip < 0 else 0.72
    away = np.maximum(z - front_teeth(x), 0)
    return (most * share * across * away)[:, None] * np.array([0, -0.06 * lip, -1.0])


def _keep_apart(head: HeadMesh, field: Array) -> Array:
    """The field (V,3) without what would push one lip through the other.

    Lips that slide sideways along one another part by SLOPE times the way: the line between them is not
    straight.
    """
    rows = head.grids["cavity"].ids
    loop = rows[0]
    half = np.arange(len(loop) // 2 + 1)  # from corner to corner
    upper, lower = loop[half], loop[-half]
    slip = field[lower] - field[upper]
    cross = np.maximum(slip[:, 1] + SLOPE * np.abs(slip[:, 0]), 0)
    order = np.argsort(head.vertices[upper, 0])
    amount = np.interp(head.vertices[:, 0], head.vertices[upper[order], 0], cross[order], left=0, right=0)
    line = np.interp(np.abs(head.vertices[:, 0]), anatomy.LIP_LINE[:, 0], anatomy.LIP_LINE[:, 1])
    near = np.exp(-np.maximum(np.abs(head.vertices[:, 1] - line) - 0.3, 0) / 4.0) * (head.vertices[:, 2] > 85)
    near[np.concatenate([head.parts[p] for p in ("upper_teeth", "lower_teeth", "tongue")])] = 0
    for row, share in zip(rows[1:], (1.0, 0.9, 0.5, 0, 0, 0, 0), strict=True):
        near[row] = share
        amount[row] = amount[rows[0]]
    fixed = field.copy()
    fixed[:, 1] += 0.5 * amount * near * lip_side(head)
    return fixed

"""Joints, skinning weights and the joint regressor, in FLAME's joint order. Millimetres."""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import MIRROR_X, HeadMesh

Array = np.ndarray

PARENTS = np.array([-1, 0, 1, 1, 1])
ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = range(5)
# The root turns the whole head; near the head's middle, so that a turned face stays in the picture.
JOINTS = np.array(
    [
        [0.0, -60.0, 10.0],
        [0.0, -105.0, -8.0],
        anatomy.JAW_PIVOT,
        anatomy.EYE_CENTER,
        anatomy.EYE_CENTER * MIRROR_X,
    ]
)


def smoothstep(x: Array) -> Array:
    """0 below 0, 1 above 1, and 3 x^2 - 2 x^3 between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def lip_side(head: HeadMesh) -> Array:
    """+1 for vertices above the line between the lips, -1 below, 0 in the corners; the cavity included."""
    line = np.interp(np.abs(head.vertices[:, 0]), anatomy.LIP_LINE[:, 0], anatomy.LIP_LINE[:, 1])
    side = np.sign(head.vertices[:, 1] - line)
    grid = head.grids["cavity"]
    count = grid.ids.shape[1]
    around = np.sin(np.arange(count) * 2 * np.pi / count)
    side[grid.ids] = np.where(np.abs(around) < 1e-9, 0, np.sign(around))
    side[head.parts["upper_teeth"]], side[head.parts["lower_teeth"]] = 1, -1
    side[head.parts["tongue"]] = -1
    return side


def jaw_weights(head: HeadMesh) -> Array:
    """How far (0..1) each vertex follows the jaw, (V,)."""
    x, y, z = np.abs(head.vertices[:, 0]), head.vertices[:, 1], head.vertices[:, 2]
    # The border between skull and jaw runs from the corner of the mouth up to the jaw joint.
    border = np.interp(z, [15, 60, 98, 112], [-30, -52, -70.5, -69.7])
    below = border - y
    soft = smoothstep(0.5 + below / 44)
    # Between the lips the border is a cut that closes at the corner.
    apart = np.maximum(1 - (x / anatomy.LIP_LINE[-1, 0]) ** 2.2, 0) * np.exp(-np.abs(below) / 16) * (z > 40)
    weight = np.clip(soft - 0.5 * lip_side(head) * apart, 0, 1)
    weight *= smoothstep((z - 4) / 66)  # fades towards the ear
    weight *= smoothstep((y + 0.25 * (z - 104) + 172) / 60)  # and down the throat
    weight[head.parts["upper_teeth"]] = 0
    weight[head.parts["lower_teeth"]] = weight[head.parts["tongue"]] = 1
    for side in ("left", "right"):
        for part in ("eyeball", "inner_lids", "nostril"):
            weight[head.parts[f"{side}_{part}"]] = 0
        # The ear's root follows the skin it grows out of.
        rows = head.grids[f"{side}_ear"].ids
        weight[head.parts[f"{side}_ear"]] = 0
        for row, share in zip(rows[1:], (0.75, 0.5, 0.25), strict=False):
            weight[row] = share * weight[rows[0]]
    ids = head.grids["cavity"].ids[1:]
    count = ids.shape[1]
    around = np.sin(np.arange(count) * 2 * np.pi / count)
    rim = weight[head.grids["cavity"].ids[0]]
    deep = np.clip(0.5 - 0.7 * np.sign(around) * np.abs(around) ** 0.5, 0, 1)
    for row, share in zip(ids, np.linspace(0.0, 1.0, len(ids)), strict=True):
        weight[row] = (1 - share) * rim + share * deep
    return weight


def skinning_weights(head: HeadMesh) -> Array:
    """(V, 5), rows sum to 1."""
    y = head.vertices[:, 1]
    weights = np.zeros((len(y), 5))
    jaw = jaw_weights(head)
    root = 0.95 * smoothstep((-98 - y) / 58)
    weights[:, JAW] = jaw
    weights[:, ROOT] = (1 - jaw) * root
    weights[:, NECK] = (1 - jaw) * (1 - root)
    for name, joint in (("left_eyeball", LEFT_EYE), ("right_eyeball", RIGHT_EYE)):
        weights[head.parts[name]] = np.eye(5)[joint]
    for name in ("cavity", "upper_teeth", "tongue"):
        ids = head.parts[name]
        weights[ids, NECK] += weights[ids, ROOT]
        weights[ids, ROOT] = 0
    return weights


def joint_regressor(head: HeadMesh) -> Array:
    """(5, V) sparse averages of vertices that give the joints exactly; rows sum to 1."""
    x, y, z = head.vertices.T
    skin = np.zeros(len(x), bool)
    skin[head.parts["skin"]] = True
    sets = [
        skin & (np.abs(y + 55) < 14) & (z < 75),
        skin & (np.abs(y + 108) < 14) & (z < 60),
        skin & (np.abs(y + 40) < 16) & (np.abs(z - 22) < 40) & (np.abs(x) > 50),
        *(np.isin(np.arange(len(x)), head.parts[name]) for name in ("left_eyeball", "right_eyeball")),
    ]
    regressor = np.zeros((5, len(x)))
    for row, (chosen, joint) in enumerate(zip(sets, JOINTS, strict=True)):
        # The even average, corrected as little as possible to hit the joint.
        ids = np.flatnonzero(chosen)
        rows = np.concatenate([head.vertices[ids].T / 100.0, np.ones((1, len(ids)))])
        even = np.full(len(ids), 1.0 / len(ids))
        target = np.append(joint / 100.0, 1.0)
        regressor[row, ids] = even + np.linalg.pinv(rows) @ (target - rows @ even)
    return regressor


def pose_basis(head: HeadMesh) -> Array:
    """Pose correctives (V, 3, 36) in mm per entry of R_j - I, neck, jaw, left eye, right eye.

    Blending a rotation R with weight w pulls a vertex at the offset r from the joint towards the axis, to
    second order by w (1 - w) (I - (R + R^T) / 2) r. That is linear in R - I, so the corrective gives exactly
    it back; a factor above 1 accounts for the higher orders at the angles that matter (50 and 28 degrees).
    """
    weights = skinning_weights(head)
    basis = np.zeros((len(weights), 3, 4, 3, 3))
    for block, joint, follows, factor in (
        (0, NECK, 1 - weights[:, ROOT], 1.15),
        (1, JAW, weights[:, JAW], 1.06),
    ):
        offset = (factor * follows * (1 - follows))[:, None] * (head.vertices - JOINTS[joint])
        for row in range(3):
            basis[:, row, block, row, :] -= 0.5 * offset
            basis[:, row, block, :, row] -= 0.5 * offset
    return basis.reshape(len(weights), 3, 36)

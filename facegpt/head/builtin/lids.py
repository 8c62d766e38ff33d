"""How eyelids move: they turn about the eyeballs' horizontal axes, so that they slide over them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import HeadMesh
from facegpt.head.builtin.rig import smoothstep

Array = np.ndarray


def lid_hold_left(head: HeadMesh) -> Array:
    """1 on lid margins, which only lid terms may move, fading out over the lids' skin."""
    hold = np.zeros(len(head.vertices))
    for ring, share in zip(head.skin.eye_rings, (1.0, 0.9, 0.6, 0.25), strict=False):
        hold[ring] = hold[head.skin.mirror[ring]] = share
    for side in ("left", "right"):
        hold[head.parts[f"{side}_inner_lids"]] = 1
    return hold


class LidAngles(NamedTuple):
    """For the left eye: away (V,3) from its centre, elevation (V,), elevation of the upper and lower rim.

    top, bottom (V,): of the rims, at each vertex's x. near (V,) bool: what the lids' turn may move.
    """

    away: Array
    elevation: Array
    top: Array
    bottom: Array
    near: Array


def _lid_angles(head: HeadMesh) -> LidAngles:
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
    return LidAngles(away, elevation, top, bottom, near)


def lid_turn(head: HeadMesh, degrees: tuple[float, float] | None) -> Array:
    """Displacement (V,3) of the left lids turned by (upper, lower) degrees; None closes the eye."""
    away, elevation, top, bottom, near = _lid_angles(head)
    opening = np.maximum(top - bottom, 0)
    # Away from the rim the skin follows a wider stretch of it, so that nothing folds above the corners.
    grid = np.arange(-40.0, 40.0, 0.5)
    rim_x = away[head.skin.eye_loop, 0]
    order = np.argsort(rim_x)
    along = np.interp(grid, rim_x[order], opening[head.skin.eye_loop][order], left=0, right=0)
    blurred = np.interp(away[:, 0], grid, gaussian_filter1d(along, 8.0))
    apart = smoothstep(np.maximum(elevation - top, bottom - elevation) / 0.3)
    opening = (1 - apart) * opening + apart * blurred
    if degrees is None:
        turn_up, turn_down = -0.82 * opening, 0.18 * opening - 0.002  # a hair's breadth stays between them
    else:
        share = opening / opening.max()
        turn_up, turn_down = (np.radians(d) * share for d in degrees)
    middle = 0.5 * (top + bottom)
    reach = 1 - smoothstep((np.linalg.norm(away, axis=1) - 19.0) / 9.0)
    fade_up = (1 - smoothstep((elevation - top) / 0.62)) * reach
    fade_down = (1 - smoothstep((bottom - elevation) / 0.75)) * reach
    turn = np.where(elevation >= middle, fade_up * turn_up, fade_down * turn_down) * near
    # The lids' inner sides turn with their rims.
    rim, *rows = head.grids["left_inner_lids"].ids
    outer = int(np.argmax(head.vertices[rim, 0]))
    turn[rim] = np.where(np.arange(len(rim)) > outer, turn_up[rim], turn_down[rim])
    turn[rim[[0, outer]]] = 0
    for row in rows:
        turn[row] = turn[rim]
    # Skin beyond the corners has no opening and stays.
    cos, sin = np.cos(turn), np.sin(turn)
    moved = np.stack(
        [away[:, 0], cos * away[:, 1] + sin * away[:, 2], cos * away[:, 2] - sin * away[:, 1]], 1
    )
    return moved - away


def lid_shift(head: HeadMesh, degrees: float) -> Array:
    """Displacement (V,3) of the left lids turned sideways about the eyeball, positive outwards."""
    lids = _lid_angles(head)
    away, near = lids.away, lids.near
    distance = np.hypot(away[:, 0] / 17, (away[:, 1] + 1) / 12)
    turn = np.radians(degrees) * np.exp(-(distance**3)) * near
    moved = np.stack([np.cos(turn) * away[:, 0] + np.sin(turn) * away[:, 2], away[:, 1],
                      np.cos(turn) * away[:, 2] - np.sin(turn) * away[:, 0]], 1)  # fmt: skip
    return moved - away

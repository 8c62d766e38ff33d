"""Where hair grows: scalp, brows, lashes and beard as opacities over the skin, (H,W) in 0..1. Millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.canvas import FRONT, Canvas
from facegpt.head.builtin.rig import smoothstep
from facegpt.head.builtin.surface import CAPSULE_RADIUS, to_capsule

Array = np.ndarray

# Azimuth (degrees) -> arc (mm) of the border of the hair: forehead, corner above the temple, temple,
# sideburn, over and behind the ear, nape.
HAIR_BORDER = np.array([
    (0, 77), (10, 78), (20, 80), (30, 82.5), (38, 82), (45, 75), (51, 63), (57, 50), (63, 40), (68, 28),
    (72, 13), (75, -3), (78, -15), (81, -18), (85, -13), (90, 2), (100, 9), (110, 3), (118, -14), (130, -42),
    (145, -62), (160, -72), (180, -76),
], dtype=float)  # fmt: skip
WHORL = np.array([0.0, 96.0, -48.0])


@dataclass
class ScalpHair:
    """Short hair of the scalp, all (H,W).

    opacity; strands: unit noise along the hair; front, temples, crown, sides: the opacity that a receding
    hairline, receding temples, a bald crown and shorn sides take away each.
    """

    opacity: Array
    strands: Array
    front: Array
    temples: Array
    crown: Array
    sides: Array


def border_depth(points: Array) -> Array:
    """Distance (mm) of points (...,3) inside the border of the hair, along the skin; negative outside."""
    azimuth, arc, _ = to_capsule(points)
    degrees = np.abs(np.degrees(azimuth))
    border = PchipInterpolator(HAIR_BORDER[:, 0], HAIR_BORDER[:, 1])
    slope = border.derivative()(degrees) / np.radians(CAPSULE_RADIUS)  # mm of arc per mm across
    depth: Array = (arc - border(degrees)) / np.hypot(1.0, slope)
    return depth


def scalp_hair(c: Canvas) -> ScalpHair:
    """Short hair, combed away from the whorl, thinner towards its border and shorn at the sides and nape."""
    azimuth, arc, _ = to_capsule(c.points)
    degrees = np.abs(np.degrees(azimuth))
    skin = c.on("skin")
    away = c.points - WHORL
    normal = c.points - np.array([0.0, 20.0, 5.0])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    flow = away - (away * normal).sum(-1, keepdims=True) * normal
    flow = flow / np.maximum(np.linalg.norm(flow, axis=-1, keepdims=True), 1e-6)
    fine = c.strands(flow, 1.8, 8.0, 32)
    strands = 0.8 * c.strands(flow, 3.0, 14.0, 31) + 0.6 * c.strands(flow, 6.5, 28.0, 33) + 0.4 * fine

    depth = border_depth(c.points) + 1.6 * c.noise(16.0, 35)
    aside = smoothstep((degrees - 42) / 30)
    width = 30 - 20 * aside + 12 * smoothstep((degrees - 108) / 40)
    ragged = (2.0 - 1.0 * aside) * strands + 1.5 * fine
    edge = smoothstep(0.5 + (depth + ragged) / width)
    # Shorn shorter where ears and collar are, long on top.
    shorn = aside * (1 - smoothstep((arc - 18) / 60))
    opacity = 0.84 * edge * (1 - 0.34 * shorn * (1 + 0.25 * fine)) * skin

    forehead = 1 - smoothstep((degrees - 45) / 25)
    front = forehead * (1 - smoothstep((depth - 12) / 22))
    corner = np.exp(-0.5 * (((degrees - 38) / 11) ** 2 + ((arc - 92) / 17) ** 2))
    vertex = np.exp(-0.5 * ((c.points - [0.0, 104.0, -28.0]) ** 2).sum(-1) / 30.0**2)
    opacity = np.clip(opacity, 0, 1)
    # What two standard deviations less can take away, and two more add without painting it black.
    room = 0.5 * np.minimum(opacity, np.maximum(0.98 - opacity, 0.05))
    return ScalpHair(opacity, strands, room * front, room * corner, opacity * vertex, room * shorn)


def brows(c: Canvas) -> tuple[Array, Array]:
    """Opacity of the brows, and of the fringe that thick brows have in addition."""
    line = np.array([anatomy.LEFT_LANDMARKS[k][:2] for k in range(22, 27)])
    ends = np.array([(line[0, 0] - 4.5, line[0, 1] - 2.6), (line[4, 0] + 3.0, line[4, 1] - 4.0)])
    line = np.concatenate([ends[:1], line - [0.0, 1.2], ends[1:]])
    middle = PchipInterpolator(line[:, 0], line[:, 1])
    x = np.clip(c.ax, line[0, 0], line[-1, 0])
    share = (x - line[0, 0]) / np.ptp(line[:, 0])
    half = np.interp(share, [0, 0.12, 0.35, 0.62, 0.85, 1.0], [2.2, 3.6, 3.9, 3.1, 1.9, 0.7])
    # Hairs stand up at the inner end and lie along the brow outside.
    lift = np.interp(share, [0, 0.25, 0.6, 1.0], [1.3, 0.75, 0.25, -0.35])
    flow = np.stack([np.sign(c.x), lift, -0.35 * np.ones_like(lift)], -1)
    flow /= np.linalg.norm(flow, axis=-1, keepdims=True)
    hairs = c.strands(flow, 2.0, 6.0, 41)
    across = np.abs(c.y - middle(x)) / half
    ends = smoothstep((c.ax - line[0, 0] + 2) / 9) * smoothstep((line[-1, 0] + 2 - c.ax) / 10)
    front = (c.z > 45) * c.on(*FRONT)
    brow = smoothstep(1.32 - across + 0.16 * hairs) * ends * (0.80 + 0.11 * hairs)
    thick = smoothstep(1.75 - across + 0.25 * hairs) * ends * (0.75 + 0.2 * hairs)
    return np.clip(brow, 0, 1) * front, np.clip(thick - brow, 0, 1) * front


def beard(c: Canvas, lips: Array) -> Array:
    """Opacity of a full beard: moustache, chin, jaw and cheek below a line from the sideburn to the mouth."""
    cheek_line = np.interp(c.ax, [0, 12, 22, 34, 48, 60, 70, 78], [-49, -49, -53, -62, -63, -52, -36, -14])
    grows = smoothstep(0.5 + (cheek_line - c.y + 1.5 * c.noise(9.0, 51)) / 13)
    throat = np.interp(c.ax, [0, 30, 60, 80], [-126, -122, -100, -70])
    grows *= smoothstep((c.y - throat) / 20) * smoothstep((c.z - 16) / 16)
    # Bare below the lower lip beside its tuft, and thin in the philtrum.
    bare = 0.7 * np.exp(-0.5 * (((c.ax - 10) / 5.5) ** 2 + ((c.y + 86) / 3.2) ** 2))
    bare += 0.35 * np.exp(-0.5 * ((c.ax / 3) ** 2 + ((c.y + 55) / 5) ** 2))
    nose = np.exp(-0.5 * ((c.ax / 13) ** 2 + ((c.y + 44) / 4) ** 2))
    flow = np.stack([0.35 * np.sign(c.x), -np.ones_like(c.x), np.zeros_like(c.x)], -1) / np.hypot(1, 0.35)
    grain = 1 + 0.14 * c.strands(flow, 1.8, 4.0, 52)
    grows = grows * np.clip(1 - bare, 0, 1) * np.clip(1 - 1.2 * nose, 0, 1)
    return np.clip(grows * grain, 0, 1) * (1 - lips) * c.on("skin")


def lashes(c: Canvas) -> Array:
    """The lines of the lashes, stronger above."""
    upper = np.interp(c.ax, anatomy.UPPER_LID[:, 0], anatomy.UPPER_LID[:, 1], left=-9, right=-9)
    lower = np.interp(c.ax, anatomy.LOWER_LID[:, 0], anatomy.LOWER_LID[:, 1], left=99, right=99)
    line = np.exp(-(((c.y - upper - 0.4) / 1.0) ** 2)) + 0.35 * np.exp(-(((c.y - lower + 0.3) / 0.9) ** 2))
    outward = smoothstep((c.ax - 18.5) / 10) * (c.ax < anatomy.UPPER_LID[-1, 0])
    return np.clip(line, 0, 1) * outward * (c.z > 70) * c.on("skin")

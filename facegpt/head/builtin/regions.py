"""Named vertex sets of the built-in head."""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import HeadMesh

Array = np.ndarray


def hairline(azimuth: Array) -> Array:
    """Arc (mm) above which the head carries hair, by azimuth (rad)."""
    degrees = np.abs(np.degrees(azimuth))
    return np.interp(
        degrees,
        [0, 15, 30, 42, 52, 60, 67, 74, 80, 86, 92, 104, 116, 130, 150, 180],
        [57, 58, 60, 56, 46, 34, 22, 8, -12, -18, 2, 6, -12, -45, -72, -80],
    )


def inside_curve(x: Array, y: Array, upper: Array, lower: Array) -> Array:
    """Signed depth (mm, positive inside) of points between two polylines over x."""
    top = np.interp(x, upper[:, 0], upper[:, 1], left=-1e3, right=-1e3)
    bottom = np.interp(x, lower[:, 0], lower[:, 1], left=1e3, right=1e3)
    return np.minimum(top - y, y - bottom)


def regions(head: HeadMesh) -> dict[str, Array]:
    """Name -> (V,) bool."""
    x, y, z = np.abs(head.vertices[:, 0]), head.vertices[:, 1], head.vertices[:, 2]
    part = {name: np.isin(np.arange(len(x)), ids) for name, ids in head.parts.items()}
    skin = part["skin"]
    azimuth, arc = np.full(len(x), np.pi), np.full(len(x), 0.0)
    azimuth[: len(head.skin.capsule)], arc[: len(head.skin.capsule)] = head.skin.capsule.T
    left, right = part["left_eyeball"], part["right_eyeball"]
    mouth_inside = part["cavity"] | part["upper_teeth"] | part["lower_teeth"] | part["tongue"]
    scalp = skin & (arc > hairline(azimuth))
    jaw_line = np.interp(np.abs(azimuth), [0, 0.3, 0.6, 0.9, 1.2, 1.35], [-114, -112, -102, -84, -62, -30])
    face = skin & ~scalp & (np.abs(azimuth) < np.radians(80)) & (arc > jaw_line)
    lips = skin & (z > 80) & (inside_curve(x, y, anatomy.UPPER_LIP, anatomy.LOWER_LIP) > -0.3)
    nose_width = np.interp(y, [-50, -46, -40, -30, -12, 6], [13, 19, 20, 16, 13, 9])
    nose = skin & (z > 90) & (x < nose_width) & (y > -50) & (y < 6)
    nose |= part["left_nostril"] | part["right_nostril"]
    eye_region = skin & (z > 60) & (((x - 32) / 24) ** 2 + ((y - 1) / 17) ** 2 < 1) & ~nose
    eye_region |= part["left_inner_lids"] | part["right_inner_lids"]
    return {
        "face": face | lips | part["left_inner_lids"] | part["right_inner_lids"],
        "eyes": left | right,
        "eye_region": eye_region,
        "nose": nose,
        "lips": lips,
        "ears": part["left_ear"] | part["right_ear"],
        "scalp": scalp,
        "neck": skin & ~scalp & ~face & ~lips & (arc < -20),
        "mouth_interior": mouth_inside,
        "left_eyeball": left,
        "right_eyeball": right,
    }

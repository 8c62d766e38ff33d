"""The skin as a smooth height field over a capsule.

A capsule stands around the vertical axis x = 0, z = AXIS_Z: a cylinder below DOME_Y, a half sphere above it.
A point of it is (azimuth, arc): azimuth 0 in front, positive to the subject's left; arc is the height in mm
below DOME_Y and the length along the meridian above it. The skin lies at the distance `SkinField.radius` from
the axis (cylinder) or the dome's centre (sphere): a smooth base fitted to profile and widths, a thin-plate
spline through the landmarks and the points between them, and small carved details.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator, RBFInterpolator

from facegpt.head.builtin import anatomy

AXIS_Z, DOME_Y, CAPSULE_RADIUS = 10.0, 30.0, 80.0
CROWN_ARC = DOME_Y + CAPSULE_RADIUS * np.pi / 2

Array = np.ndarray

_PROFILE = CubicSpline(anatomy.PROFILE[::-1, 0], anatomy.PROFILE[::-1, 1:])


def to_capsule(points: Array) -> tuple[Array, Array, Array]:
    """Azimuth (rad), arc (mm) and radius (mm) of points (..., 3) in mm."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2] - AXIS_Z
    flat = np.hypot(x, z)
    elevation = np.arctan2(np.maximum(y - DOME_Y, 0.0), flat)
    arc = np.where(y > DOME_Y, DOME_Y + CAPSULE_RADIUS * elevation, y)
    return np.arctan2(x, z), arc, np.hypot(flat, np.maximum(y - DOME_Y, 0.0))


def from_capsule(azimuth: Array, arc: Array, radius: Array) -> Array:
    """Points (..., 3) in mm at a distance `radius` along the capsule's normals; inverse of `to_capsule`."""
    elevation = np.maximum(arc - DOME_Y, 0.0) / CAPSULE_RADIUS
    flat = radius * np.cos(elevation)
    y = np.minimum(arc, DOME_Y) + radius * np.sin(elevation)
    return np.stack([flat * np.sin(azimuth), y, AXIS_Z + flat * np.cos(azimuth)], axis=-1)


def base_radius(azimuth: Array, arc: Array) -> Array:
    """Radius (mm) of a head without features: superellipses through the profile's front, back and width."""
    y = np.clip(arc, anatomy.PROFILE[-1, 0], DOME_Y)
    front, back, width = np.moveaxis(_PROFILE(y), -1, 0)
    cos, sin = np.cos(azimuth), np.abs(np.sin(azimuth))
    depth = np.where(cos > 0, front - AXIS_Z, AXIS_Z - back)
    exponent = np.where(cos > 0, 2.25, 2.15)
    flat = ((sin / width) ** exponent + (np.abs(cos) / depth) ** exponent) ** (-1 / exponent)
    elevation = np.maximum(arc - DOME_Y, 0.0) / CAPSULE_RADIUS
    dome = ((np.cos(elevation) / flat) ** 2.1 + (np.sin(elevation) / (anatomy.CROWN_Y - DOME_Y)) ** 2.1) ** (
        -1 / 2.1
    )
    return np.where(arc > DOME_Y, dome, flat)


def _control_points() -> tuple[Array, Array, Array]:
    """Azimuth, arc and radius offset from the base of everything the spline has to pass."""
    lids_and_slit = {42, 43, 44, 45, 46, 47, 62, 63, 64, 65, 66}  # these are carved, not interpolated
    marks = [p for k, p in anatomy.LEFT_LANDMARKS.items() if k not in lids_and_slit]
    eye = np.array([(19.5, -4, 95.5), (31, 0, 96.2), (25, 0, 96.4), (38, -1, 93.2), (45.5, -2, 87.6)])
    points = np.concatenate([np.array(marks), anatomy.SKIN_POINTS, eye])
    points = np.concatenate([points, points[points[:, 0] > 0] * [-1, 1, 1]])
    azimuth, arc, radius = to_capsule(points)
    offset = radius - base_radius(azimuth, arc)
    rest_azimuth, rest_arc = np.meshgrid(np.radians(np.arange(100, 181, 20)), np.arange(-160, 156, 35.0))
    dome_azimuth, dome_arc = np.meshgrid(np.radians(np.arange(0, 91, 30)), np.array([95.0, 125.0, 155.0]))
    rest = np.stack([np.concatenate([rest_azimuth.ravel(), dome_azimuth.ravel()]),
                     np.concatenate([rest_arc.ravel(), dome_arc.ravel()])])  # fmt: skip
    rest = np.concatenate([rest, rest * [[-1], [1]]], axis=1)
    rest = np.unique(np.round(rest, 9), axis=1)
    return (
        np.concatenate([azimuth, rest[0]]),
        np.concatenate([arc, rest[1]]),
        np.concatenate([offset, np.zeros(rest.shape[1])]),
    )


def _curve(points: Array) -> Callable[[Array], Array]:
    """y of a polyline with smooth corners as a function of x; constant outside."""
    curve = PchipInterpolator(points[:, 0], points[:, 1])
    return lambda x: curve(np.clip(x, points[0, 0], points[-1, 0]))


def _bump(x: Array, center: Array | float, width: float) -> Array:
    return np.exp(-(((x - center) / width) ** 2))


class SkinField:
    """The fitted height field. `radius(azimuth, arc)` and `point(azimuth, arc)` take arrays of one shape."""

    def __init__(self) -> None:
        azimuth, arc, offset = _control_points()
        # The face follows its points closely; towards the sides and below the jaw they are only a guide.
        aside = np.clip((np.abs(azimuth) - 0.45) / 0.5, 0, 1) + np.clip((-105 - arc) / 12, 0, 1)
        places = np.stack([azimuth * CAPSULE_RADIUS, arc], 1)
        self._spline = RBFInterpolator(places, offset, kernel="thin_plate_spline", smoothing=0.6 + 40 * aside)
        self._lip_line, self._upper_lid = _curve(anatomy.LIP_LINE), _curve(anatomy.UPPER_LID)
        self._upper_lip, self._lower_lip = _curve(anatomy.UPPER_LIP), _curve(anatomy.LOWER_LIP)

    def point(self, azimuth: Array, arc: Array) -> Array:
        """Positions (..., 3) in mm of the skin."""
        return from_capsule(azimuth, arc, self.radius(azimuth, arc))

    def radius(self, azimuth: Array, arc: Array) -> Array:
        """Distance (mm) of the skin from the capsule's axis or dome centre."""
        shape = np.shape(azimuth)
        azimuth, arc = np.ravel(azimuth), np.ravel(arc)
        spline = self._spline(np.stack([azimuth * CAPSULE_RADIUS, arc], 1))
        radius = base_radius(azimuth, arc) + spline
        point = from_capsule(azimuth, arc, radius)
        radius = radius + self._lips(point) + self._nose(point)
        return self._lids(azimuth, arc, radius, point).reshape(shape)

    def at(self, xy: Array) -> Array:
        """(azimuth, arc) (..., 2) of the front skin point at the frontal position xy (..., 2) in mm.

        y must lie below DOME_Y.
        """
        azimuth = np.arctan2(xy[..., 0], 90.0)
        for _ in range(12):
            z = self.point(azimuth, xy[..., 1])[..., 2]
            azimuth = 0.3 * azimuth + 0.7 * np.arctan2(xy[..., 0], np.maximum(z - AXIS_Z, 5.0))
        return np.stack([azimuth, xy[..., 1]], axis=-1)

    def _lips(self, point: Array) -> Array:
        """The crease between the lips, the rim of the lip red and the fold beside the corner."""
        x, y = np.abs(point[:, 0]), point[:, 1]
        front = (point[:, 2] > 70).astype(float)
        across = y - self._lip_line(x)
        taper = 1 / (1 + np.exp((x - 24.5) / 0.9))
        crease = -4.6 * np.exp(-np.abs(across) / 2.0) * taper
        corner = -1.6 * _bump(x, 25.5, 3.0) * _bump(y, -71.2, 3.0)
        rim = 0.45 * (_bump(y, self._upper_lip(x), 1.2) + 0.6 * _bump(y, self._lower_lip(x), 1.5)) * taper
        philtrum = -0.7 * _bump(x, 0, 2.6) * _bump(y, -55.5, 4.5)
        ridges = 0.5 * _bump(x, 5.2, 2.0) * _bump(y, -56, 4.5)
        return front * (crease + corner + rim + philtrum + ridges)

    def _nose(self, point: Array) -> Array:
        """Nostrils, the crease around the wing and the fold from the wing to the mouth."""
        x, y = np.abs(point[:, 0]), point[:, 1]
        front = (point[:, 2] > 70).astype(float)
        nostril = -0.8 * np.exp(-(((x - 7.8) / 3.1) ** 2) - (((y + 46.0 - 0.12 * (x - 7.8)) / 1.5) ** 2))
        crease_x = 18.8 - 0.06 * (y + 41.5) ** 2
        crease = -1.5 * _bump(x, crease_x, 1.5) * _bump(y, -41, 5.0)
        fold_x = 22 + 0.42 * np.maximum(-44 - y, 0)
        fold = -0.9 * _bump(x, fold_x, 3.0) * _bump(y, -53, 9.0)
        return front * (nostril + crease + fold)

    def _lids(self, azimuth: Array, arc: Array, radius: Array, point: Array) -> Array:
        """Raise the skin over the eyeballs and carve the crease of the upper lid."""
        x, y = np.abs(point[:, 0]), point[:, 1]
        front = point[:, 2] > 70
        center_x, center_y, center_z = anatomy.EYE_CENTER
        cover = anatomy.LID_RADIUS + 1.1
        # Distance along the horizontal ray of this azimuth to the sphere that covers the eyeball.
        direction = np.stack([np.sin(np.abs(azimuth)), np.cos(azimuth)])
        middle = direction[0] * center_x + direction[1] * (center_z - AXIS_Z)
        gap = center_x**2 + (center_z - AXIS_Z) ** 2 - middle**2 + (y - center_y) ** 2
        inside = cover**2 - gap
        sphere = middle + np.sqrt(np.maximum(inside, 1e-6))
        near = front & (inside > 0)
        soft = 1.2
        raised = radius + soft * np.logaddexp(0, np.clip((sphere - radius) / soft, -30, 30))
        radius = np.where(near, raised, radius)
        along = np.clip((x - 19) / 4, 0, 1) * np.clip((49 - x) / 4, 0, 1)
        crease_y = self._upper_lid(x) * 0.75 + 6.3 - 0.02 * (x - 31) ** 2
        return radius - 1.3 * front * along * _bump(y, crease_y, 1.5)

"""Joints and skinning weights for ICT-FaceKit, which has none.

Measured on the meshes: the eyes' centres (spheres through the eyeballs), the jaw's axis (the rigid motion of
the lower teeth in jawOpen) and how far each vertex follows the jaw. Authored: root and neck joint, at the
built-in head's places relative to the eyes, and the fade from neck to trunk.

Shape legend: V vertices, J = 5 joints: root, neck, jaw, left eye, right eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PARENTS = np.array([-1, 0, 1, 1, 1])
ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = range(5)
# Metres from the point between the eyes. The root lies near the head's middle, so that a turned face stays in
# the picture.
ROOT_OFFSET, NECK_OFFSET = np.array([0.0, -0.060, -0.070]), np.array([0.0, -0.105, -0.088])
# The trunk's share begins this far below the eyes and is whole FADE lower; the border rises towards the back,
# so that the chin stays with the head.
TRUNK_BELOW, FADE, SLOPE = 0.098, 0.070, 0.35
DAMPING = 0.001  # metres of motion below which a vertex counts as not following the jaw
NEAR, STILL = 300, 100  # a joint is regressed from the STILL least mobile of the NEAR nearest skin vertices


@dataclass(frozen=True)
class Rig:
    """joints (5,3) in metres, regressor (5,V), weights (V,5), parents (5,); jaw_angle of jawOpen, radians."""

    joints: np.ndarray
    regressor: np.ndarray
    weights: np.ndarray
    parents: np.ndarray
    jaw_angle: float


def measure_rig(
    mean: np.ndarray, parts: dict[str, np.ndarray], opening: np.ndarray, motion: np.ndarray
) -> Rig:
    """Joints, regressor and weights of the toolkit's mean head.

    mean (V,3) and opening (V,3), the displacement of jawOpen, in metres; motion (V,): how far expressions
    move a vertex at most; parts: part -> vertex numbers, as in `ict_facekit.PARTS`.
    """
    lower = parts["lower_teeth"]
    rotation, translation = rigid_motion(mean[lower], mean[lower] + opening[lower])
    angle = np.arctan2(rotation[2, 1] - rotation[1, 2], rotation[1, 1] + rotation[2, 2])  # about +x
    pivot = np.linalg.pinv(np.eye(3) - rotation) @ translation  # the axis' point nearest the origin
    pivot[0] = 0
    eyes = [sphere_center(mean[parts[f"{side}_eyeball"]]) for side in ("left", "right")]
    middle = (eyes[0] + eyes[1]) / 2
    joints = np.stack([middle + ROOT_OFFSET, middle + NECK_OFFSET, pivot, *eyes])

    turned = _about_x(angle, mean, pivot) - mean
    follow = (opening * turned).sum(1) / ((turned**2).sum(1) + DAMPING**2)
    jaw = follow.clip(0, 1)
    jaw[lower], jaw[parts["upper_teeth"]] = 1, 0
    depth = middle[1] - mean[:, 1] - SLOPE * (mean[:, 2] - joints[NECK, 2])
    trunk = _smoothstep((depth - TRUNK_BELOW) / FADE)
    for part in ("mouth_socket", "gums", "upper_teeth", "lower_teeth"):
        trunk[parts[part]] = 0
    weights = np.zeros((len(mean), len(joints)))
    weights[:, ROOT], weights[:, JAW] = (1 - jaw) * trunk, jaw
    weights[:, NECK] = (1 - jaw) * (1 - trunk)
    for part, joint in (("left_eyeball", LEFT_EYE), ("right_eyeball", RIGHT_EYE)):
        weights[parts[part]] = np.eye(len(joints))[joint]

    skin = np.union1d(parts["face"], parts["head"])
    regressor = np.zeros((len(joints), len(mean)))
    for joint in (ROOT, NECK, JAW):
        away = np.linalg.norm((mean[skin] - joints[joint])[:, 1:], axis=1)  # from the line along x
        near = skin[np.argsort(away, kind="stable")[: min(NEAR, len(skin) // 2)]]
        chosen = near[np.argsort(motion[near], kind="stable")[: min(STILL, len(skin) // 4)]]
        regressor[joint, chosen] = affine_weights(mean[chosen], joints[joint])
    for part, joint in (("left_eyeball", LEFT_EYE), ("right_eyeball", RIGHT_EYE)):
        regressor[joint, parts[part]] = affine_weights(mean[parts[part]], joints[joint])
    return Rig(joints, regressor, weights, PARENTS, float(angle))


def undo_jaw(rig: Rig, posed: np.ndarray) -> np.ndarray:
    """Vertices (V,3) that skinning with the jaw opened by `rig.jaw_angle` carries to `posed` (V,3)."""
    weight, pivot = rig.weights[:, JAW, None], rig.joints[JAW]
    rotation = _rotation_x(rig.jaw_angle)
    blended = (1 - weight[..., None]) * np.eye(3) + weight[..., None] * rotation  # (V, 3, 3)
    rest: np.ndarray = np.linalg.solve(blended, (posed - weight * (pivot - rotation @ pivot))[..., None])
    return rest[..., 0]


def rigid_motion(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3,3) and translation (3,) that carry points (N,3) to others best (Kabsch 1976)."""
    center, target = before.mean(0), after.mean(0)
    u, _, vt = np.linalg.svd((before - center).T @ (after - target))
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u @ flip @ vt).T
    return rotation, target - rotation @ center


def sphere_center(points: np.ndarray) -> np.ndarray:
    """Centre (3,) of the sphere through points (N,3), by linear least squares on |p|^2 = 2 c.p + k."""
    origin = points.mean(0)
    local = points - origin
    system = np.concatenate([2 * local, np.ones((len(local), 1))], 1)
    solution: np.ndarray = np.linalg.lstsq(system, (local**2).sum(1), rcond=None)[0]
    return origin + solution[:3]


def affine_weights(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights (N,) that sum to 1 and give target (3,) from points (N,3): the ones nearest to an average."""
    local = points - points.mean(0)
    size = np.abs(local).max()
    system = np.concatenate([local.T / size, np.ones((1, len(points)))])
    wanted = np.append((target - points.mean(0)) / size, 1.0)
    even = np.full(len(points), 1 / len(points))
    corrected: np.ndarray = even + np.linalg.pinv(system) @ (wanted - system @ even)
    return corrected


def _rotation_x(angle: float) -> np.ndarray:
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def _about_x(angle: float, points: np.ndarray, pivot: np.ndarray) -> np.ndarray:
    turned: np.ndarray = (points - pivot) @ _rotation_x(angle).T + pivot
    return turned


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = x.clip(0, 1)
    return x * x * (3 - 2 * x)

"""A small head for tests: an ellipsoid of head size with everything a head file can hold.

306 vertices, FLAME's five joints, S=6, E=4, A=3, 68 landmarks with yaw contours, a 32x32 texture. Seeded.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from facegpt.head.files.format import CONTOUR_ROWS, HeadData
from facegpt.head.model import HeadModel

AXES = np.array([0.075, 0.115, 0.095])  # half widths in metres
LATITUDES, LONGITUDES = 16, 19
Angles = list[tuple[float, float]]  # (longitude to the subject's left, latitude) in degrees, 0 in front

# the subject's right half of the 68 landmarks
CONTOUR: Angles = [
    (-74, 8),
    (-74, -2),
    (-72, -12),
    (-69, -21),
    (-64, -29),
    (-56, -36),
    (-44, -41),
    (-24, -44),
    (0, -46),
]
BROW: Angles = [(-50, 20), (-42, 25), (-32, 27), (-22, 26), (-12, 24)]
EYE: Angles = [(-37, 12), (-31, 14.5), (-23, 14.5), (-16, 11), (-23, 8.5), (-31, 8.5)]
NOSE: Angles = [(0, 13), (0, 8), (0, 3), (0, -3), (-10, -10), (-5, -11), (0, -12)]
MOUTH: tuple[Angles, Angles] = (
    [(-20, -21), (-13, -18.5), (-6, -17), (0, -17.5)],
    [(-13, -25), (-6, -26.5), (0, -27)],
)
INNER: tuple[Angles, Angles] = [(-17, -21), (-6, -20.5), (0, -20.7)], [(-6, -22.5), (0, -22.8)]


@cache
def small_head_data(seed: int = 0) -> HeadData:
    random = np.random.default_rng(seed)
    vertices, triangles, uv, uv_triangles = _ellipsoid()
    x, y, z = (vertices / AXES).T
    eyes = [np.linalg.norm(vertices - _point(side * 27, 11.5), axis=1) < 0.012 for side in (1, -1)]
    angles = {0: _landmark_angles(0)} | {yaw: _landmark_angles(yaw) for yaw in range(-39, 40)}
    rows = [*range(0, 40), *range(-1, -40, -1)]
    landmark_triangles, landmark_barycentric = _embed(vertices, triangles, angles[0])
    contours = [_embed(vertices, triangles, angles[yaw][:17]) for yaw in rows]
    assert len(contours) == CONTOUR_ROWS
    lower = _step((-0.25 - y) / 0.1) * _step(z / 0.2)
    texture_mean, texture_basis = _texture(random)
    return HeadData(
        v_template=vertices,
        triangles=triangles,
        shape_basis=_smooth_fields(random, vertices, 6) * 0.003,
        expression_basis=_smooth_fields(random, vertices, 4) * 0.004 * lower[:, None, None],
        pose_basis=_smooth_fields(random, vertices, 36) * 0.0005,
        joint_regressor=_regressor(vertices),
        parents=np.array([-1, 0, 1, 1, 1]),
        skinning_weights=_weights(y, z, eyes),
        uv=uv,
        uv_triangles=uv_triangles,
        texture_mean=texture_mean,
        texture_basis=texture_basis,
        landmark_triangles=landmark_triangles,
        landmark_barycentric=landmark_barycentric,
        contour_triangles=np.stack([index for index, _ in contours]),
        contour_barycentric=np.stack([weight for _, weight in contours]),
        regions={
            "face": (z > 0.25) & (np.abs(y) < 0.75),
            "eyes": eyes[0] | eyes[1],
            "left_eyeball": eyes[0],
            "right_eyeball": eyes[1],
            "nose": (z > 0.85) & (np.abs(y) < 0.2),
            "lips": (z > 0.7) & (np.abs(y + 0.37) < 0.12) & (np.abs(x) < 0.35),
            "scalp": (y > 0.6) | (z < -0.2),
            "neck": y < -0.8,
        },
        shape_names=[f"size {k}" for k in range(6)],
        expression_names=["smile", "frown", "open", "pout"],
        metadata={"name": "small test head", "licence": "same as the code", "source": "tests/small_head.py"},
    )


def small_head(seed: int = 0) -> HeadModel:
    """A fresh model of the small head."""
    return HeadModel(small_head_data(seed))


def _point(longitude: float, latitude: float) -> np.ndarray:
    """Point of the ellipsoid; longitude towards the subject's left, latitude up, degrees."""
    return AXES * _directions(np.array([[longitude, latitude]]))[0]


def _directions(angles: np.ndarray) -> np.ndarray:
    longitude, latitude = np.deg2rad(np.asarray(angles, float)).T
    flat = np.cos(latitude)
    return np.stack([flat * np.sin(longitude), np.sin(latitude), flat * np.cos(longitude)], 1)


def _ellipsoid() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A closed latitude-longitude mesh; its texture is cut at the back of the head."""
    latitudes = np.linspace(-90, 90, LATITUDES + 2)[1:-1]
    longitudes = np.linspace(-180, 180, LONGITUDES + 1)
    grid = np.array([(lon, lat) for lat in latitudes for lon in longitudes[:-1]])
    vertices = np.concatenate([_directions(grid), [[0, -1, 0], [0, 1, 0]]]) * AXES
    columns, south, north = LONGITUDES, len(grid), len(grid) + 1
    triangles: list[list[int]] = []
    uv_triangles: list[list[int]] = []
    uv: list[tuple[float, float]] = []
    ids: list[int] = []

    def add(corners: list[tuple[int, int]]) -> None:  # (row, column), row -1 and LATITUDES are the poles
        uv_triangles.append([len(uv) + k for k in range(3)])
        for row, column in corners:
            pole = {-1: south, LATITUDES: north}.get(row)
            uv.append((longitudes[column] / 360 + 0.5, (row + 1) / (LATITUDES + 1)))
            ids.append(row * columns + column % columns if pole is None else pole)
        triangles.append(ids[-3:])

    for column in range(columns):
        add([(-1, column), (0, column + 1), (0, column)])
        add([(LATITUDES, column), (LATITUDES - 1, column), (LATITUDES - 1, column + 1)])
        for row in range(LATITUDES - 1):
            add([(row, column), (row, column + 1), (row + 1, column + 1)])
            add([(row, column), (row + 1, column + 1), (row + 1, column)])
    unique, inverse = np.unique(np.array(uv), axis=0, return_inverse=True)
    return vertices, np.array(triangles), unique, inverse.reshape(-1)[np.array(uv_triangles)]


def _landmark_angles(yaw: float) -> np.ndarray:
    """68 (longitude, latitude); the side of the contour that turns away moves towards the face."""

    def mirror(points: Angles) -> Angles:
        return [(-lon, lat) for lon, lat in reversed(points)]

    def across(points: Angles) -> Angles:
        return points + mirror(points[:-1])

    def left_eye(points: Angles) -> Angles:
        right = [(-lon, lat) for lon, lat in points]
        return [right[k] for k in (3, 2, 1, 0, 5, 4)]

    contour = [(lon - yaw * max(0.0, np.sign(yaw * lon)), lat) for lon, lat in across(CONTOUR)]
    lower_lip = across(MOUTH[1])[::-1]
    inner = across(INNER[0]) + across(INNER[1])[::-1]
    nose = NOSE[:4] + across(NOSE[4:])
    points = contour + BROW + mirror(BROW) + nose + EYE + left_eye(EYE) + across(MOUTH[0]) + lower_lip + inner
    assert len(points) == 68
    return np.array(points)


def _embed(vertices: np.ndarray, triangles: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle and barycentric weights where rays from the centre leave the mesh."""
    weights = np.einsum(
        "fij,nj->nfi", np.linalg.inv(vertices[triangles].transpose(0, 2, 1)), _directions(angles) * AXES
    )
    index = weights.min(2).argmax(1)
    chosen = weights[np.arange(len(index)), index].clip(0)
    return index, chosen / chosen.sum(1, keepdims=True)


def _smooth_fields(random: np.random.Generator, vertices: np.ndarray, count: int) -> np.ndarray:
    """(V, 3, count) random low-frequency vector fields of about unit size."""
    frequency = random.normal(size=(3, 3 * count)) * 1.2
    phase = random.uniform(0, 2 * np.pi, size=3 * count)
    return np.sin(vertices / AXES.mean() @ frequency + phase).reshape(len(vertices), 3, count)


def _regressor(vertices: np.ndarray) -> np.ndarray:
    """(5, V) weights that sum to 1 and give the wanted joints (the smallest such weights)."""
    joints = [
        (0, -0.11, -0.03),
        (0, -0.08, -0.03),
        (0, -0.01, 0.0),
        0.8 * _point(27, 11.5),
        0.8 * _point(-27, 11.5),
    ]
    system = np.concatenate([vertices.T, np.ones((1, len(vertices)))])
    return (np.linalg.pinv(system) @ np.concatenate([np.array(joints).T, np.ones((1, 5))])).T


def _weights(y: np.ndarray, z: np.ndarray, eyes: list[np.ndarray]) -> np.ndarray:
    root = _step((-0.9 - y) / 0.05)
    jaw = _step((-0.35 - y) / 0.04) * _step((z - 0.1) / 0.1) * (1 - root)
    weights = np.stack([root, 1 - root - jaw, jaw, 0 * y, 0 * y], 1)
    for joint, mask in zip((3, 4), eyes, strict=True):
        weights[mask] = np.eye(5)[joint]
    return weights


def _texture(random: np.random.Generator, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    u = (np.arange(size) + 0.5) / size
    v, u = np.meshgrid(1 - u, u, indexing="ij")  # row 0 is v = 1
    mean = np.ones((size, size, 3)) * (0.72, 0.55, 0.47) + 0.04 * np.sin(6 * u + 4 * v)[..., None]
    lips = np.exp(-(((u - 0.5) / 0.05) ** 2) - ((v - 0.38) / 0.03) ** 2)[..., None]
    eyes = np.exp(-(((abs(u - 0.5) - 0.075) / 0.03) ** 2) - ((v - 0.564) / 0.03) ** 2)[..., None]
    mean = mean * (1 - 0.7 * eyes) + lips * (0.05, -0.2, -0.15)
    basis = np.stack([np.ones_like(mean) * 0.06, mean * (0.08, 0.0, -0.06), 0 * mean], 3)
    basis[..., 2] = 0.05 * np.sin(9 * u[..., None] + 7 * v[..., None] + random.uniform(0, 6, 3))
    return mean.clip(0.02, 0.98), basis


def _step(value: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-value))

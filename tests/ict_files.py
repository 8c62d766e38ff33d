"""A miniature ICT-FaceKit folder for tests, in the true layout: OBJ files in centimetres with quads, texture
coordinates in tiles, materials, parts in the toolkit's order, irises that are left out, an unlisted shape.

The skin is the small head's; eyes are spheres, teeth and the rest boxes. `write_ict_facekit` returns what is
true of it; tests patch `ict_facekit.PARTS` and `NARROW_FACE` with its numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation
from small_head import small_head_data

PIVOT, ANGLE = np.array([0.0, -1.0, 1.5]), np.radians(20.0)  # cm
EYE, EYE_RADIUS = np.array([3.0, 2.5, 6.0]), 1.5
NAMES = ["browDown_L", "jawOpen", "mouthClose", "mouthSmile_L"]
UV_TILES = {"face": 0, "head": 1, "mouth_socket": 1, "left_eye_socket": 1, "right_eye_socket": 1, "gums": 2}
NOTICE = (
    "MIT License\n\nCopyright (c) 2020 USC Institute for Creative Technologies\n\nPermission is hereby ..."
)


@dataclass
class Miniature:
    """What was written, in centimetres and the files' vertex order."""

    neutral: np.ndarray
    shapes: dict[str, np.ndarray]  # file stem -> vertices
    landmarks: np.ndarray
    parts: dict[str, tuple[int, int]]  # polygons [start, stop)
    part_vertices: dict[str, np.ndarray]
    narrow: int
    polygons: list[list[int]] = field(default_factory=list)


def write_ict_facekit(folder: Path) -> Miniature:
    mini = _assemble()
    model = folder / "FaceXModel"
    model.mkdir(parents=True)
    (folder / "LICENSE").write_text(NOTICE)
    for name, vertices in {"generic_neutral_mesh": mini.neutral, **mini.shapes}.items():
        _write_obj(model / f"{name}.obj", vertices, mini)
    table = {"expressions": NAMES, "incompatibilities": [], "idx_to_landmark_verts": mini.landmarks.tolist()}
    (model / "vertex_indices.json").write_text(json.dumps(table))
    return mini


def _assemble() -> Miniature:
    skin = small_head_data()
    front = skin.v_template[skin.triangles].mean(1)[:, 2]
    triangles = skin.triangles[np.argsort(-front, kind="stable")]
    face = int((front > -0.02).sum())
    pieces = {  # in the toolkit's order
        "face": (skin.v_template * 100.0, triangles[:face].tolist()),
        "head": (np.zeros((0, 3)), triangles[face:].tolist()),
        "mouth_socket": _box((0, -4.0, 6.0), (2.0, 1.0, 2.0)),
        "left_eye_socket": _box((3, 2.5, 5), (1, 1, 1)),
        "right_eye_socket": _box((-3, 2.5, 5), (1, 1, 1)),
        "gums": _box((0, -4, 5), (1, 1, 1)),
        "upper_teeth": _box((0, -3.4, 6), (2, 0.4, 1)),
        "lower_teeth": _box((0, -4.6, 6), (2, 0.4, 1)),
        "left_eyeball": _sphere(EYE),
        "left_iris": _box(EYE, (0.3, 0.3, 0.1)),
        "right_eyeball": _sphere(EYE * (-1, 1, 1)),
        "right_iris": _box(EYE * (-1, 1, 1), (0.3, 0.3, 0.1)),
    }
    vertices, polygons = np.zeros((0, 3)), []
    parts, part_vertices = {}, {}
    for name, (points, faces) in pieces.items():
        first = 0 if name == "head" else len(vertices)  # the back of the head shares the skin's numbers
        parts[name] = (len(polygons), len(polygons) + len(faces))
        moved = [[corner + first for corner in corners] for corners in faces]
        part_vertices[name] = np.unique([corner for corners in moved for corner in corners])
        polygons += moved
        vertices = np.concatenate([vertices, points])
    neutral = np.round(vertices, 5)
    assert skin.landmark_triangles is not None and skin.landmark_barycentric is not None
    corners = skin.v_template[skin.triangles[skin.landmark_triangles]]
    points = (corners * skin.landmark_barycentric[..., None]).sum(1) * 100
    on_face = np.unique(polygons[: face - 40])
    landmarks = on_face[np.linalg.norm(neutral[on_face, None] - points, axis=2).argmin(0)]
    kept = {name: span for name, span in parts.items() if "iris" not in name}
    shapes = _shapes(neutral, part_vertices)
    return Miniature(neutral, shapes, landmarks, kept, part_vertices, face - 40, polygons)


def _shapes(neutral: np.ndarray, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x, y, z = neutral.T
    bump = np.exp(-((neutral - (3, 4, 8)) ** 2).sum(1) / 4)[:, None]
    low = 1 / (1 + np.exp((y + 3.5) / 0.8)) * (z > 2)  # how far a vertex goes with the jaw
    low[parts["lower_teeth"]], low[parts["upper_teeth"]] = 1, 0
    for part in ("left_eyeball", "right_eyeball"):
        low[parts[part]] = 0
    turned = Rotation.from_rotvec([ANGLE, 0, 0]).apply(neutral - PIVOT) + PIVOT
    soft = 0.3 * low[:, None] * (np.abs(x) < 3)[:, None] * (1, 0, 0) * np.sign(x)[:, None]
    soft[np.union1d(parts["lower_teeth"], parts["upper_teeth"])] = 0
    opened = neutral + low[:, None] * (turned - neutral) + soft
    shapes = {
        "identity000": neutral * 1.03,
        "identity001": neutral + 0.2 * np.sin(neutral[:, [1, 2, 0]] / 5),
        "browDown_L": neutral - bump * (0, 0.4, 0),
        "jawOpen": opened,
        "mouthClose": neutral - 0.5 * soft + low[:, None] * (0, 0.5, 0),
        "mouthSmile_L": neutral + np.exp(-((neutral - (3, -4, 8)) ** 2).sum(1) / 4)[:, None] * (0.3, 0.5, 0),
        "PupilDilate_L": neutral + 0.01,
    }
    return {name: np.round(vertices, 5) for name, vertices in shapes.items()}


def _box(center: object, half: object) -> tuple[np.ndarray, list[list[int]]]:
    """Eight vertices, six quads seen counter-clockwise from outside."""
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    return np.asarray(center) + signs * np.asarray(half), quads


def _sphere(center: np.ndarray, rings: int = 9, columns: int = 12) -> tuple[np.ndarray, list[list[int]]]:
    """Quads around the z axis, triangles at its poles; the front pole is the last vertex."""
    polar = np.linspace(np.pi, 0, rings + 2)[1:-1]
    around = np.arange(columns) * 2 * np.pi / columns
    grid = [(np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)) for p in polar for a in around]
    points = np.array([*grid, (0, 0, -1), (0, 0, 1)]) * EYE_RADIUS + center
    faces = []
    for k in range(columns):
        after = (k + 1) % columns
        faces.append([len(grid), after, k])
        faces.append([len(grid) + 1, (rings - 1) * columns + k, (rings - 1) * columns + after])
        for ring in range(rings - 1):
            low, high = ring * columns, (ring + 1) * columns
            faces.append([low + k, low + after, high + after, high + k])
    return points, faces


def _uv(mini: Miniature) -> np.ndarray:
    """One texture vertex per vertex and part, in the part's tile: the frontal view; cut for head and face."""
    rows = []
    for name, span in mini.parts.items():
        ids = mini.part_vertices[name]
        flat = mini.neutral[ids, :2]
        low, high = flat.min(0), flat.max(0)
        tile = 3 if "teeth" in name else UV_TILES.get(name, 0)
        rows += [
            (ids[k], span, *uv) for k, uv in enumerate((flat - low) / (high - low) * 0.98 + 0.01 + (tile, 0))
        ]
    return np.array([(vertex, span[0], u, v) for vertex, span, u, v in rows])


def _write_obj(path: Path, vertices: np.ndarray, mini: Miniature) -> None:
    table = _uv(mini)
    number = {(int(vertex), int(start)): k + 1 for k, (vertex, start, _, _) in enumerate(table)}
    lines = ["# ICT FaceKit", "", "mtllib ICTFaceModelMaterial.mtl"]
    lines += [f"v {x:g} {y:g} {z:g}" for x, y, z in np.round(vertices, 5).tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for _, _, u, v in table.tolist()]
    starts = {span[0]: name for name, span in mini.parts.items()}
    start = 0
    for k, corners in enumerate(mini.polygons):
        if k in starts:
            lines.append(f"usemtl M_{starts[k]}")
            start = k
        lines.append("f " + " ".join(f"{c + 1}/{number.get((c, start), 1)}" for c in corners))
    path.write_text("\n".join(lines) + "\n")

"""Landmarks and the contour tables as triangles with barycentric coordinates."""

from __future__ import annotations

import numpy as np

from facegpt.head.builtin import anatomy
from facegpt.head.builtin.assemble import HeadMesh
from facegpt.head.builtin.eyes import IRIS_ANGLE, POLAR_DEGREES
from facegpt.head.builtin.surface import to_capsule
from facegpt.head.nearest import nearest_points

Array = np.ndarray

CANDIDATES = 40  # triangles looked at: around the lids and lips they are of very different size


def embed(vertices: Array, triangles: Array, points: Array) -> tuple[Array, Array]:
    """Nearest places on a surface, for points (N,3): rows of `triangles` (N,), barycentric (N,3)."""
    index, weights, _ = nearest_points(vertices[triangles], points, CANDIDATES)
    return index, weights


def static_landmarks(head: HeadMesh) -> tuple[Array, Array]:
    """Triangles (68,) and barycentric coordinates (68,3) of the frontal landmarks in iBUG order."""
    count = len(head.skin.triangles)
    return embed(head.vertices, head.triangles[:count], anatomy.landmark_table())


def contour_tables(head: HeadMesh) -> tuple[Array, Array]:
    """Contour landmarks for 79 yaw angles: triangles (79,17), barycentric coordinates (79,17,3).

    Rows 0..39 are yaw 0..+39 degrees, rows 40..78 are -1..-39 (DECA's sign: positive turns the face to the
    subject's left). On the side that turns away each point walks forwards along its height to the
    silhouette; on the other side it stays.
    """
    count = len(head.skin.triangles)
    table = anatomy.landmark_table()[:17]
    azimuth, arc, _ = to_capsule(table)
    paths = []
    for index in range(17):
        # How far forwards the silhouette can come: far on the cheek, little at the chin.
        stop = np.clip(0.40 * azimuth[index], -0.55, 0.55) if abs(8 - index) > 3 else 0.72 * azimuth[index]
        paths.append(np.stack([np.linspace(azimuth[index], stop, 41), np.full(41, arc[index])], 1))
    places = np.stack(paths)  # (17, 41, 2)
    triangle, weights = _embed_capsule(head, places.reshape(-1, 2), count)
    points = (weights[:, :, None] * head.vertices[head.triangles[triangle]]).sum(1).reshape(17, 41, 3)
    triangle, weights = triangle.reshape(17, 41), weights.reshape(17, 41, 3)
    start_triangle, start_weights = embed(head.vertices, head.triangles[:count], table)
    triangle[:, 0], weights[:, 0] = start_triangle, start_weights
    points[:, 0] = (start_weights[:, :, None] * head.vertices[head.triangles[start_triangle]]).sum(1)
    rows = []
    for yaw in [*range(40), *range(-1, -40, -1)]:
        angle = np.radians(yaw)
        across = points[..., 0] * np.cos(angle) + points[..., 2] * np.sin(angle)
        picks = np.zeros(17, np.int64)
        if yaw > 0:
            picks[9:] = across[9:].argmax(1)
        if yaw < 0:
            picks[:8] = across[:8].argmin(1)
        rows.append(picks)
    pick = np.array(rows)  # (79, 17)
    return triangle[np.arange(17), pick], weights[np.arange(17), pick]


def _embed_capsule(head: HeadMesh, places: Array, count: int) -> tuple[Array, Array]:
    """Triangles and barycentric coordinates of capsule points (N,2) in the frontal part of the skin.

    The skin's seam lies behind, at azimuth pi: triangles that cross it would lie over the whole front.
    """
    flat = np.concatenate([head.skin.capsule * [80.0, 1.0], np.zeros((len(head.skin.capsule), 1))], 1)
    wanted = np.concatenate([places * [80.0, 1.0], np.zeros((len(places), 1))], 1)
    azimuth = head.skin.capsule[head.triangles[:count], 0]
    whole = np.flatnonzero(np.ptp(azimuth, axis=1) < np.pi)
    triangle, weights = embed(flat, head.triangles[whole], wanted)
    return whole[triangle], weights


# Dense landmarks on the left side of the face or on the midline, frontal (x, y) in mm: group -> points.
# Groups with "left_" are repeated on the right.
FRONTAL: dict[str, list[tuple[float, float]]] = {
    "left_brow_upper": [(11, 25), (21, 29), (32, 30), (43, 27.5), (53, 21.5)],
    "left_brow_lower": [(11.5, 18), (22, 21), (33, 22), (44, 20.5), (55, 15)],
    "nose_bridge": [(0, 10), (0, 1.4), (0, -6), (0, -13), (0, -20), (0, -27), (0, -32), (0, -38)],
    "nose_base": [(0, -44.5), (0, -48)],
    "left_nose_side": [(8, -5), (10, -16), (13, -27)],
    "left_nose_wing": [(12, -35.5), (16, -38.5), (17.2, -43), (12.5, -47)],
    "philtrum": [(0, -53), (0, -57)],
    "left_cheek": [(30, -18), (44, -17), (26, -31), (40, -30), (53, -28), (31, -45), (45, -45),
                   (34, -60), (46, -62), (36, -78)],
    "forehead": [(0, 20), (0, 32), (0, 45)],
    "left_forehead": [(18, 42), (38, 40), (16, 32), (34, 34)],
    "chin": [(0, -86), (0, -94), (0, -102)],
    "left_chin": [(12, -88), (14, -99), (26, -92)],
}  # fmt: skip
# The upper oval of the face: azimuth in degrees, arc.
OVAL_CAPSULE = ((72, 12), (69, 24), (63, 36), (54, 47), (43, 54), (30, 58), (15, 59))


def dense_landmarks(head: HeadMesh) -> tuple[Array, Array, list[str]]:
    """Triangles (N,), barycentric coordinates (N,3) and names of some 200 landmarks.

    Brows, lids, irises, nose, nostrils, lips outside and inside, cheeks, forehead, chin and the oval of the
    face; names are group and number, "left" is the subject's left.
    """
    triangles: list[Array] = []
    weights: list[Array] = []
    names: list[str] = []

    def keep(group: str, embedded: tuple[Array, Array]) -> None:
        triangles.append(embedded[0])
        weights.append(embedded[1])
        names.extend(f"{group}_{k + 1}" for k in range(len(embedded[0])))

    for group, points in FRONTAL.items():
        places = np.array(points, float)
        keep(group, _embed_frontal(head, places))
        if group.startswith("left_"):
            keep(group.replace("left", "right"), _embed_frontal(head, places * [-1, 1]))
    lips = np.concatenate([_lip_border(anatomy.UPPER_LIP, 1), _lip_border(anatomy.LOWER_LIP, -1)])
    keep("lips_outer", _embed_frontal(head, lips))
    keep("lips_inner", _at_vertices(head, head.skin.mouth_loop[::2]))
    for side, loop in (("left", head.skin.eye_loop), ("right", head.skin.mirror[head.skin.eye_loop])):
        keep(f"{side}_lids", _at_vertices(head, loop[::2]))
        rim = head.skin.nostril_loop if side == "left" else head.skin.mirror[head.skin.nostril_loop]
        keep(f"{side}_nostril", _at_vertices(head, rim[::3]))
        ball = head.grids[f"{side}_eyeball"]
        keep(f"{side}_pupil", _at_vertices(head, np.array([ball.first])))
        columns = ball.ids.shape[1]
        ring = int(np.argmin(np.abs(np.radians(POLAR_DEGREES) - IRIS_ANGLE)))
        keep(f"{side}_iris", _at_vertices(head, ball.ids[ring, :: columns // 4]))
    places = np.radians([(a, 0) for a, _ in OVAL_CAPSULE]) + [(0, arc) for _, arc in OVAL_CAPSULE]
    top = np.concatenate([places, [[0.0, 59.5]], places[::-1] * [-1, 1]])
    count = len(head.skin.triangles)
    keep("face_oval_lower", embed(head.vertices, head.triangles[:count], anatomy.landmark_table()[:17]))
    keep("face_oval_upper", _embed_capsule(head, top, count))
    return np.concatenate(triangles), np.concatenate(weights), names


def _lip_border(border: Array, side: int) -> Array:
    """Frontal (x, y) of ten points of a lip's outer border, from one corner to before the other."""
    x = 25.4 * side * np.cos(np.linspace(np.pi, 2 * np.pi, 11))[:-1]
    return np.stack([x, np.interp(np.abs(x), border[:, 0], border[:, 1])], 1)


def _embed_frontal(head: HeadMesh, places: Array) -> tuple[Array, Array]:
    """Where the line of sight from the front through (x, y) (N,2) meets the face."""
    triangles = head.triangles[: len(head.skin.triangles)]
    corners = head.vertices[triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = np.flatnonzero((normal[:, 2] > 0) & (corners[..., 2].min(1) > 30))
    flat = head.vertices * [1, 1, 0]
    triangle, weights = embed(
        flat, triangles[facing], np.concatenate([places, np.zeros((len(places), 1))], 1)
    )
    return facing[triangle], weights


def _at_vertices(head: HeadMesh, ids: Array) -> tuple[Array, Array]:
    """Landmarks that are vertices (N,): a triangle at each, and its corner."""
    triangle = np.array([np.flatnonzero((head.triangles == i).any(1))[0] for i in ids])
    return triangle, (head.triangles[triangle] == ids[:, None]).astype(float)

"""One plain texture for ICT-FaceKit, which has no albedo: skin, brows, lips, mouth, teeth and eyes.

The toolkit lays its parts out in several UV tiles, and both eyes over the face. Here each gets a cell of one
square: the face three quarters of the side, the others a quarter.

Shape legend: F triangles, T texture vertices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from facegpt.head.files.ict_rig import sphere_center

SIZE, SUPERSAMPLE = 512, 2  # texels per side; drawn finer and averaged
# part -> tile of the toolkit (u), cell of ours (u, v, side)
HEAD, MOUTH = (1, (0.75, 0.75, 0.25)), (2, (0.75, 0.5, 0.25))
CELLS: dict[str, tuple[int, tuple[float, float, float]]] = {
    "face": (0, (0.0, 0.25, 0.75)),
    "head": HEAD,
    "mouth_socket": HEAD,
    "left_eye_socket": HEAD,
    "right_eye_socket": HEAD,
    "gums": MOUTH,
    "upper_teeth": (3, (0.75, 0.25, 0.25)),
    "lower_teeth": (3, (0.75, 0.25, 0.25)),
    "left_eyeball": (0, (0.0, 0.0, 0.25)),
    "right_eyeball": (0, (0.25, 0.0, 0.25)),
}
# display-coded RGB; authored, no measurement
SKIN, LIP, BROW = (194, 153, 133), (176, 108, 100), (112, 82, 68)
LINING, GUM, TOOTH = (92, 38, 36), (158, 84, 80), (226, 216, 196)
SCLERA, LIMBUS, IRIS, PUPIL = (224, 220, 214), (54, 46, 40), (96, 76, 54), (14, 12, 12)
IRIS_RADIUS, PUPIL_RADIUS = 0.0059, 0.0018  # metres across the eyeball's surface
BROW_WIDTH = 0.014  # of the texture's side


def place_uv(uv: np.ndarray, corners: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The toolkit's uv (T,2) and the parts' corners (F,3), placed in the unit square: (T',2), (F',3).

    Parts follow one another in their order.
    """
    points, indices, count = [], [], 0
    for part, triangles in corners.items():
        tile, (left, bottom, side) = CELLS[part]
        used, index = np.unique(triangles, return_inverse=True)
        points.append((uv[used] - (tile, 0)) * side + (left, bottom))
        indices.append(index.reshape(-1, 3) + count)
        count += len(used)
    return np.concatenate(points), np.concatenate(indices)


def vertex_uv(
    uv: np.ndarray, triangles: np.ndarray, uv_triangles: np.ndarray, vertices: np.ndarray
) -> np.ndarray:
    """Texture coordinates (N,2) of vertices (N,) that lie on triangles (F,3); on a seam, one of them."""
    index = dict(zip(triangles.ravel().tolist(), uv_triangles.ravel().tolist(), strict=True))
    found: np.ndarray = uv[[index[vertex] for vertex in vertices.tolist()]]
    return found


def paint(
    mean: np.ndarray,
    uv: np.ndarray,
    corners: dict[str, tuple[np.ndarray, np.ndarray]],
    outlines: dict[str, np.ndarray],
) -> np.ndarray:
    """The texture (SIZE,SIZE,3), RGB in [0,1], row 0 at v = 1.

    mean (V,3) in metres; corners: part -> vertices and texture vertices of its triangles, (F,3) each;
    outlines: "lips" as a polygon, "left_brow" and "right_brow" as lines, (N,2) texture coordinates.
    """
    side = SIZE * SUPERSAMPLE
    picture = Image.new("RGB", (side, side), SKIN)
    draw = ImageDraw.Draw(picture)

    def texels(points: np.ndarray) -> list[tuple[float, float]]:
        return [(u * side, (1 - v) * side) for u, v in points.tolist()]

    for part, color in (
        ("gums", GUM),
        ("upper_teeth", TOOTH),
        ("left_eyeball", SCLERA),
        ("right_eyeball", SCLERA),
    ):
        _, (left, bottom, size) = CELLS[part]
        box = texels(np.array([[left, bottom + size], [left + size, bottom]]))
        draw.rectangle(box, fill=color)
    for part in ("mouth_socket", "left_eye_socket", "right_eye_socket"):
        for triangle in uv[corners[part][1]]:
            draw.polygon(texels(triangle), fill=LINING, outline=LINING)
    draw.polygon(texels(outlines["lips"]), fill=LIP)
    for brow in ("left_brow", "right_brow"):
        draw.line(texels(outlines[brow]), fill=BROW, width=round(BROW_WIDTH * side), joint="curve")
    for part in ("left_eyeball", "right_eyeball"):
        center, radius_of = _eye_disc(mean, uv, *corners[part])
        for meters, color in (
            (IRIS_RADIUS, LIMBUS), (0.88 * IRIS_RADIUS, IRIS), (PUPIL_RADIUS, PUPIL),
        ):  # fmt: skip
            reach = radius_of(meters)
            draw.ellipse(texels(center + reach * np.array([[-1, 1], [1, -1]])), fill=color)
    small = picture.resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255


def _eye_disc(
    mean: np.ndarray, uv: np.ndarray, triangles: np.ndarray, uv_triangles: np.ndarray
) -> tuple[np.ndarray, Callable[[float], float]]:
    """Texture coordinates (2,) of an eyeball's foremost point, and its texture radius of a radius in m."""
    points, places = mean[triangles.ravel()], uv[uv_triangles.ravel()]
    front = points[:, 2].argmax()
    axis = points[front] - sphere_center(points)
    axis /= np.linalg.norm(axis)
    offset = points - points[front]
    before = offset @ axis > -np.linalg.norm(offset, axis=1).max() / 4  # the cap around the foremost point
    away = np.linalg.norm(offset - (offset @ axis)[:, None] * axis, axis=1)[before]
    reach = np.linalg.norm(places[before] - places[front], axis=1)
    order = away.argsort(kind="stable")
    return places[front], lambda meters: float(np.interp(meters, away[order], reach[order]))

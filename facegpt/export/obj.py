"""Meshes as .obj files: the one format that holds separate texture triangles.

Written and read here, because trimesh splits the vertices along texture seams: a head would lose its vertex
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from facegpt.export.texture_map import PLAIN_GRAY, from_picture, to_picture
from facegpt.files import atomic_path
from facegpt.head.mesh import Mesh
from facegpt.perception.images import read_image


def write_obj(mesh: Mesh, path: Path) -> None:
    """Write a mesh of one face on the CPU; a texture goes to NAME.png, named in NAME.mtl."""
    lines = ["# metres, y up, face towards +z"]
    vertices = mesh.vertices[0].numpy()
    corners = [[str(v + 1) for v in triangle] for triangle in mesh.triangles.tolist()]
    if mesh.texture is not None:
        assert mesh.uv is not None and mesh.uv_triangles is not None
        # named after the file: two meshes in one folder must not share them
        material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
        with atomic_path(picture) as temporary:
            to_picture(mesh.texture[0]).save(temporary)
        with atomic_path(material) as temporary:
            temporary.write_text(f"newmtl skin\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nmap_Kd {picture.name}\n")
        lines += [
            f"mtllib {material.name}",
            *_rows("v", vertices),
            *_rows("vt", mesh.uv.numpy()),
            "usemtl skin",
        ]
        textured = zip(corners, mesh.uv_triangles.tolist(), strict=True)
        corners = [[f"{v}/{t + 1}" for v, t in zip(*pair, strict=True)] for pair in textured]
    else:
        assert mesh.colors is not None
        lines += _rows("v", np.concatenate([vertices, mesh.colors[0].numpy()], axis=1))
    lines += ["f " + " ".join(triangle) for triangle in corners]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(keyword: str, values: np.ndarray) -> Iterator[str]:
    return (keyword + " " + " ".join(f"{x:.9g}" for x in row) for row in values.tolist())


def read_obj(path: Path) -> Mesh:
    """Vertices, triangles (polygons as fans), and the first texture or vertex colours where there are any."""
    points: list[list[float]] = []
    uv: list[list[float]] = []
    triangles: list[list[int]] = []
    uv_triangles: list[list[int]] = []
    picture: Path | None = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "v":
            points.append([float(x) for x in rest.split()])
        elif keyword == "vt":
            uv.append([float(x) for x in rest.split()[:2]])
        elif keyword == "f":
            corners = [corner.split("/") for corner in rest.split()]
            fan = [(0, k, k + 1) for k in range(1, len(corners) - 1)]
            polygon = [_index(corner[0], len(points)) for corner in corners]
            triangles += [[polygon[k] for k in three] for three in fan]
            if all(len(corner) > 1 and corner[1] for corner in corners):
                polygon = [_index(corner[1], len(uv)) for corner in corners]
                uv_triangles += [[polygon[k] for k in three] for three in fan]
        elif keyword == "mtllib":
            picture = picture or _picture_of(path.parent / Path(rest.strip()).name)
    vertices = torch.tensor([point[:3] for point in points])[None]
    faces = torch.tensor(triangles, dtype=torch.int64).reshape(-1, 3)
    if picture is not None and triangles and len(uv_triangles) == len(triangles):
        texture = from_picture(read_image(picture))
        corners_uv = torch.tensor(uv_triangles)
        return Mesh(vertices, faces, texture=texture, uv=torch.tensor(uv), uv_triangles=corners_uv)
    if all(len(point) >= 6 for point in points):
        return Mesh(vertices, faces, colors=torch.tensor([point[3:6] for point in points])[None])
    return Mesh(vertices, faces, colors=torch.full_like(vertices, PLAIN_GRAY))


def _index(text: str, count: int) -> int:
    """OBJ counts from 1, or backwards from -1."""
    number = int(text)
    return number - 1 if number > 0 else count + number


def _picture_of(material: Path) -> Path | None:
    """The colour texture that a .mtl file names, looked for in its own folder only."""
    if material.is_file():
        for line in material.read_text(encoding="utf-8", errors="replace").splitlines():
            keyword, _, rest = line.strip().partition(" ")
            picture = material.parent / Path(rest.strip()).name
            if keyword == "map_Kd" and picture.is_file():
                return picture
    return None

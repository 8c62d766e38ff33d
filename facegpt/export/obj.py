"""Meshes as .obj files: the one format that holds separate texture triangles.

Written here, because trimesh splits the vertices along texture seams: a head would lose its vertex numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facegpt.export.texture_map import to_picture
from facegpt.files import atomic_path
from facegpt.head.mesh import Mesh


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

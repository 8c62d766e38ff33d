"""Read the vertices and triangles of other people's meshes, with their vertex numbers as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facegpt.errors import SampleError
from facegpt.files import file_size

LARGEST_FILE = 1 << 29  # bytes; a scan of a million vertices takes a fifth
SUFFIXES = (".obj", ".ply")


def read_mesh(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """vertices (V,3) float64 in the file's unit and triangles (F,3) int64 of an .obj or .ply file.

    Polygons become fans; textures and colors are not read. (trimesh would split the vertices of an .obj along
    texture seams.) Raises SampleError, naming the file, when it is missing, too large, broken, empty, or
    has numbers that are not finite.
    """
    path = Path(path)
    size = file_size(path)
    if path.suffix.lower() not in SUFFIXES or size is None or size > LARGEST_FILE:
        raise SampleError(f"{path} is no .obj or .ply file of at most {LARGEST_FILE} bytes")
    try:
        vertices, triangles = _read_obj(path) if path.suffix.lower() == ".obj" else _read_ply(path)
        if not len(vertices) or not len(triangles):
            raise ValueError("it has no triangles")
        if triangles.min() < 0 or triangles.max() >= len(vertices):
            raise ValueError("a triangle points to a vertex that does not exist")
        if not np.isfinite(vertices).all():
            raise ValueError("a vertex is not finite")
    except Exception as error:  # trimesh raises whatever its parsing meets
        raise SampleError(f"{path} is not a mesh that can be read ({error})") from None
    return vertices, triangles


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    vertices, triangles = [], []
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"v "):
                vertices.append(line.split()[1:4])
            elif line.startswith(b"f "):
                corners = [int(word.split(b"/")[0]) for word in line.split()[1:]]
                corners = [k - 1 if k > 0 else len(vertices) + k for k in corners]  # negative: from the end
                triangles += [[corners[0], *corners[k : k + 2]] for k in range(1, len(corners) - 1)]
    return np.array(vertices, dtype=np.float64).reshape(-1, 3), np.array(triangles, np.int64).reshape(-1, 3)


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import trimesh  # half a second, which no other format needs

    mesh: Any = trimesh.load(path, process=False, force="mesh")
    return np.array(mesh.vertices, dtype=np.float64), np.array(mesh.faces, dtype=np.int64)

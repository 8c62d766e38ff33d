"""Meshes to and from files: GLB and OBJ with texture or vertex colours, PLY with vertex colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from facegpt.errors import SampleError
from facegpt.export.glb import read_glb, write_glb
from facegpt.export.obj import read_obj, write_obj
from facegpt.export.texture_map import PLAIN_GRAY, split_seams, to_bytes
from facegpt.files import atomic_path
from facegpt.head.mesh import Mesh
from facegpt.render.surface import sample_texture

SUFFIXES = (".glb", ".obj", ".ply")
LARGEST_FILE = 1 << 30  # bytes; a scan of ten million triangles has a third of it


def export_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write the only face of `mesh` to a .glb, .obj or .ply file, in metres, y up, face towards +z.

    What `import_mesh` reads back: positions (as float32) and triangles exactly; the texture and, in PLY,
    colours rounded to 8 bits. GLB has one UV per vertex, so vertices on texture seams are repeated behind the
    original ones, which keep their numbers. OBJ writes NAME.mtl and NAME.png beside it. PLY is binary and has
    no texture: it gets the texture's colour at each vertex.
    Files appear whole or not at all. Raises ValueError for another suffix, for a batch of other than one, and
    for vertices that are not finite.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"cannot write a mesh as {path.name}: end the name with one of {', '.join(SUFFIXES)}"
        )
    if len(mesh) != 1:
        raise ValueError(f"a mesh file holds one face, got a batch of {len(mesh)}: pass mesh[k:k+1]")
    if not mesh.vertices.isfinite().all():
        raise ValueError(f"{path.name} is not written: the mesh has vertices that are not finite")
    writers = {".glb": write_glb, ".obj": write_obj, ".ply": _write_ply}
    writers[path.suffix.lower()](_detached(mesh), path)


def import_mesh(path: str | Path) -> Mesh:
    """Read one mesh (batch of one, float32) from a .glb, .obj or .ply file, in the file's coordinates.

    Polygons become fans of triangles. A file without colours gets a plain grey. A rigged GLB comes in the
    pose that it opens in. Textures are taken from the file itself or, for OBJ, from its own folder only.
    Raises SampleError when the file is missing, of another format, broken, huge or without triangles.
    """
    path = Path(path)
    if not path.is_file():
        raise SampleError(f"there is no mesh file {path}")
    if path.suffix.lower() not in SUFFIXES:
        raise SampleError(f"{path} is not a mesh file: convert it to one of {', '.join(SUFFIXES)}")
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise SampleError(
            f"{path} has {size >> 20} MiB, {LARGEST_FILE >> 20} is the limit; simplify the mesh"
        )
    try:
        mesh = {".glb": read_glb, ".obj": read_obj, ".ply": _read_ply}[path.suffix.lower()](path)
    except SampleError:
        raise
    except Exception as error:  # parsers raise whatever their first surprise is
        reason = f"{type(error).__name__}: {error}"
        raise SampleError(f"{path} cannot be read as a mesh ({reason}); check or export it again") from error
    if not len(mesh.triangles):
        raise SampleError(f"{path} holds no triangles; a point cloud must be meshed first")
    ranges = [(mesh.triangles, mesh.vertices.shape[1], "vertices")]
    if mesh.uv is not None and mesh.uv_triangles is not None:
        ranges.append((mesh.uv_triangles, len(mesh.uv), "texture coordinates"))
    for corners, count, what in ranges:
        if corners.min() < 0 or corners.max() >= count:
            raise SampleError(f"{path} has triangles of {what} that do not exist; export it again")
    for name in ("vertices", "colors", "uv"):
        values = getattr(mesh, name)
        if values is not None and not values.isfinite().all():
            raise SampleError(f"{path} has {name} that are not finite; repair or export it again")
    return mesh


def _detached(mesh: Mesh) -> Mesh:
    """The mesh on the CPU in float32 without gradients."""

    def plain(value: Tensor | None) -> Tensor | None:
        value = None if value is None else value.detach().cpu()
        return value.float() if value is not None and value.is_floating_point() else value

    fields: dict[str, Any] = {name: plain(value) for name, value in vars(mesh).items()}
    return Mesh(**fields)


def _write_ply(mesh: Mesh, path: Path) -> None:
    if mesh.texture is not None:
        _, uv, _ = split_seams(mesh)
        own = torch.from_numpy(uv[: mesh.vertices.shape[1]])
        colors = sample_texture(mesh.texture, own[None])[0]
    else:
        assert mesh.colors is not None
        colors = mesh.colors[0]
    solid = trimesh.Trimesh(
        mesh.vertices[0].numpy(), mesh.triangles.numpy(), vertex_colors=to_bytes(colors), process=False
    )
    with atomic_path(path) as temporary:
        solid.export(temporary, file_type="ply", vertex_normal=False)


def _read_ply(path: Path) -> Mesh:
    _check_ply(path)
    loaded = trimesh.load(path, process=False)
    if not isinstance(loaded, trimesh.Trimesh):
        raise SampleError(f"{path} holds no triangles; a point cloud must be meshed first")
    vertices = torch.tensor(np.asarray(loaded.vertices), dtype=torch.float32)[None]
    triangles = torch.tensor(np.asarray(loaded.faces), dtype=torch.int64)
    visual: Any = loaded.visual
    if visual.kind == "vertex":
        colors = torch.tensor(np.asarray(visual.vertex_colors)[:, :3], dtype=torch.float32) / 255
        return Mesh(vertices, triangles, colors=colors[None])
    return Mesh(vertices, triangles, colors=torch.full_like(vertices, PLAIN_GRAY))


def _check_ply(path: Path) -> None:
    """Refuse a header that announces more than the file can hold, before anything is allocated for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(1 << 16).partition(b"end_header")[0].decode("ascii", errors="replace")
    if not header.startswith("ply"):
        raise SampleError(f"{path} is not a PLY file; export it again")
    for line in header.splitlines():
        words = line.split()
        if words[:1] == ["element"] and not (
            len(words) == 3 and words[2].isdigit() and int(words[2]) <= size
        ):
            raise SampleError(
                f"{path} announces more than its {size} bytes hold ({line.strip()}); export it again"
            )

"""Meshes to files: GLB and OBJ with texture or vertex colors, PLY with vertex colors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facegpt.export.glb import write_glb
from facegpt.export.obj import write_obj
from facegpt.export.texture_map import split_seams, to_bytes
from facegpt.files import atomic_path
from facegpt.head.mesh import Mesh
from facegpt.render.surface import sample_texture

SUFFIXES = (".glb", ".obj", ".ply")


def export_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write the only face of `mesh` to a .glb, .obj or .ply file, in metres, y up, face towards +z.

    Positions (as float32) and triangles are kept exactly; the texture and, in PLY, colors are rounded to 8
    bits. GLB has one UV per vertex, so vertices on texture seams are repeated behind the original ones, which
    keep their numbers. OBJ writes NAME.mtl and NAME.png beside it. PLY is binary and has no texture: it gets
    the texture's color at each vertex.
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
        vertex_uv = torch.from_numpy(uv[: mesh.vertices.shape[1]])
        colors = sample_texture(mesh.texture, vertex_uv[None])[0]
    else:
        assert mesh.colors is not None
        colors = mesh.colors[0]
    import trimesh  # half a second, which no other format needs

    solid = trimesh.Trimesh(
        mesh.vertices[0].numpy(), mesh.triangles.numpy(), vertex_colors=to_bytes(colors), process=False
    )
    with atomic_path(path) as temporary:
        solid.export(temporary, file_type="ply", vertex_normal=False)

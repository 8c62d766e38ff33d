"""Meshes to and from files: GLB (with texture), OBJ (with texture, topology kept) and PLY (vertex colours).

GLB and PLY go through trimesh. OBJ is written and read here, because it is the one format that holds separate
texture triangles, and trimesh splits the vertices along texture seams: a head would lose its vertex numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor

from facegpt.errors import SampleError
from facegpt.files import atomic_path
from facegpt.head.mesh import Mesh
from facegpt.render.surface import sample_texture, vertex_normals

SUFFIXES = (".glb", ".obj", ".ply")
PLAIN_GREY = 0.75  # colour of a file without any


def export_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write the only face of `mesh` to a .glb, .obj or .ply file, in metres, y up, face towards +z.

    What `import_mesh` reads back: positions (as float32) and triangles exactly; texture and, in GLB and PLY,
    colours rounded to 8 bits. GLB has one UV per vertex, so vertices on texture seams are repeated behind
    the original ones, which keep their numbers. OBJ writes NAME.mtl and NAME.png beside it. PLY has no
    texture: it gets the texture's colour at each vertex.
    Files appear whole or not at all. Raises ValueError for another suffix and for a batch of other than one.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"cannot write a mesh as {path.name}: end the name with one of {', '.join(SUFFIXES)}"
        )
    if len(mesh) != 1:
        raise ValueError(f"a mesh file holds one face, got a batch of {len(mesh)}: pass mesh[k:k+1]")
    writers = {".glb": _write_glb, ".obj": _write_obj, ".ply": _write_ply}
    writers[path.suffix.lower()](_detached(mesh), path)


def import_mesh(path: str | Path) -> Mesh:
    """Read one mesh (batch of one, float32) from a .glb, .obj or .ply file, in the file's coordinates.

    Polygons become fans of triangles. A file without colours gets a plain grey.
    Raises SampleError when the file is missing, of another format, broken or without triangles.
    """
    path = Path(path)
    if not path.is_file():
        raise SampleError(f"there is no mesh file {path}")
    if path.suffix.lower() not in SUFFIXES:
        raise SampleError(f"{path} is not a mesh file: convert it to one of {', '.join(SUFFIXES)}")
    try:
        mesh = _read_obj(path) if path.suffix.lower() == ".obj" else _read_with_trimesh(path)
    except SampleError:
        raise
    except Exception as error:  # parsers raise whatever their first surprise is
        raise SampleError(f"{path} cannot be read as a mesh ({error}); check or export it again") from error
    if not len(mesh.triangles):
        raise SampleError(f"{path} holds no triangles; a point cloud must be meshed first")
    if mesh.triangles.min() < 0 or mesh.triangles.max() >= mesh.vertices.shape[1]:
        raise SampleError(f"{path} has triangles of vertices that do not exist; export it again")
    return mesh


def _detached(mesh: Mesh) -> Mesh:
    """The mesh on the CPU in float32 without gradients."""

    def plain(value: Tensor | None) -> Tensor | None:
        value = None if value is None else value.detach().cpu()
        return value.float() if value is not None and value.is_floating_point() else value

    fields: dict[str, Any] = {name: plain(value) for name, value in vars(mesh).items()}
    return Mesh(**fields)


def _split_seams(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One UV per vertex: which vertex each new vertex copies (N,), UVs (N,2), triangles (F,3).

    The first V new vertices are the old ones, each with one of its UVs.
    """
    assert mesh.uv is not None and mesh.uv_triangles is not None
    triangles, uv_triangles = mesh.triangles.numpy(), mesh.uv_triangles.numpy()
    count = mesh.vertices.shape[1]
    pairs = np.stack([triangles.ravel(), uv_triangles.ravel()], axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)  # sorted by vertex
    leads = np.ones(len(unique), bool)
    leads[1:] = unique[1:, 0] != unique[:-1, 0]
    lead, extra = np.flatnonzero(leads), np.flatnonzero(~leads)
    number = np.empty(len(unique), np.int64)
    number[lead] = unique[lead, 0]
    number[extra] = count + np.arange(len(extra))
    source = np.concatenate([np.arange(count), unique[extra, 0]])
    uv = np.zeros((len(source), 2), np.float32)  # a vertex without triangle has no UV
    uv[number] = mesh.uv.numpy()[unique[:, 1]]
    return source, uv, number[inverse.reshape(-1)].reshape(-1, 3)


def _write_glb(mesh: Mesh, path: Path) -> None:
    vertices = mesh.vertices[0].numpy()
    normals = vertex_normals(mesh.vertices, mesh.triangles)[0].numpy()
    visual: Any
    if mesh.texture is not None:
        source, uv, triangles = _split_seams(mesh)
        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=_to_picture(mesh.texture[0]), metallicFactor=0.0, roughnessFactor=0.8
        )
        visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    else:
        source, triangles = np.arange(len(vertices)), mesh.triangles.numpy()
        visual = trimesh.visual.ColorVisuals(vertex_colors=_to_bytes(mesh.colors[0]))  # type: ignore[index]
    # Normals of the whole surface, else viewers compute their own and show the texture's seams as creases.
    solid = trimesh.Trimesh(
        vertices[source], triangles, vertex_normals=normals[source], visual=visual, process=False
    )
    with atomic_path(path) as temporary:
        solid.export(temporary, file_type="glb", include_normals=True)


def _write_ply(mesh: Mesh, path: Path) -> None:
    if mesh.texture is not None:
        _, uv, _ = _split_seams(mesh)
        own = torch.from_numpy(uv[: mesh.vertices.shape[1]])
        colors = sample_texture(mesh.texture, own[None])[0]
    else:
        assert mesh.colors is not None
        colors = mesh.colors[0]
    solid = trimesh.Trimesh(
        mesh.vertices[0].numpy(), mesh.triangles.numpy(), vertex_colors=_to_bytes(colors), process=False
    )
    with atomic_path(path) as temporary:
        solid.export(temporary, file_type="ply", vertex_normal=False)


def _write_obj(mesh: Mesh, path: Path) -> None:
    lines = ["# metres, y up, face towards +z"]
    vertices = mesh.vertices[0].numpy()
    corners = [[str(v + 1) for v in triangle] for triangle in mesh.triangles.tolist()]
    if mesh.texture is not None:
        assert mesh.uv is not None and mesh.uv_triangles is not None
        # named after the file: two meshes in one folder must not share them
        material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
        with atomic_path(picture) as temporary:
            _to_picture(mesh.texture[0]).save(temporary)
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


def _read_with_trimesh(path: Path) -> Mesh:
    loaded = trimesh.load(path, process=False)
    if isinstance(loaded, trimesh.Scene):
        parts = list(loaded.geometry.values())
        loaded = parts[0] if len(parts) == 1 else loaded.to_geometry()
    if not isinstance(loaded, trimesh.Trimesh):
        raise SampleError(f"{path} holds no triangles; a point cloud must be meshed first")
    vertices = torch.tensor(np.asarray(loaded.vertices), dtype=torch.float32)[None]
    triangles = torch.tensor(np.asarray(loaded.faces), dtype=torch.int64)
    visual: Any = loaded.visual
    uv, material = getattr(visual, "uv", None), getattr(visual, "material", None)
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if uv is not None and picture is not None:
        uv = torch.tensor(np.asarray(uv), dtype=torch.float32)
        return Mesh(vertices, triangles, texture=_from_picture(picture), uv=uv, uv_triangles=triangles)
    if visual.kind == "vertex":
        colors = torch.tensor(np.asarray(visual.vertex_colors)[:, :3], dtype=torch.float32) / 255
        return Mesh(vertices, triangles, colors=colors[None])
    return Mesh(vertices, triangles, colors=torch.full_like(vertices, PLAIN_GREY))


def _read_obj(path: Path) -> Mesh:
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
        texture = _from_picture(Image.open(picture))
        corners_uv = torch.tensor(uv_triangles)
        return Mesh(vertices, faces, texture=texture, uv=torch.tensor(uv), uv_triangles=corners_uv)
    if all(len(point) >= 6 for point in points):
        return Mesh(vertices, faces, colors=torch.tensor([point[3:6] for point in points])[None])
    return Mesh(vertices, faces, colors=torch.full_like(vertices, PLAIN_GREY))


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


def _to_bytes(values: Tensor) -> np.ndarray:
    array: np.ndarray = (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return array


def _to_picture(texture: Tensor) -> Image.Image:
    return Image.fromarray(_to_bytes(texture))


def _from_picture(picture: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(picture.convert("RGB")), dtype=torch.float32)[None] / 255

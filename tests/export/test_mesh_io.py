"""Mesh files: what other programs read in them, seams, and the formats' specifications."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from gltf_player import Player
from PIL import Image
from small_head import small_head

from facegpt.export.gltf import GlbWriter
from facegpt.export.mesh_io import export_mesh
from facegpt.head.mesh import Mesh


def textured() -> Mesh:
    """The small head: its texture has a seam, so UV triangles differ from triangles."""
    head = small_head()
    mesh = head.mesh(head.mean_parameters())
    assert mesh.texture is not None and mesh.uv_triangles is not None
    mesh.texture = (mesh.texture * 255).round() / 255
    assert not torch.equal(mesh.uv_triangles, mesh.triangles)
    return mesh


def colored() -> Mesh:
    mesh = textured()
    colors = torch.randint(0, 256, mesh.vertices.shape, generator=torch.Generator().manual_seed(0)) / 255
    return Mesh(mesh.vertices, mesh.triangles, colors=colors)


def by_trimesh(path: Path) -> Any:
    """The only mesh of a file as another program reads it, vertices in the order of the file."""
    return trimesh.load_mesh(path, process=False, maintain_order=True)


def obj_rows(path: Path, keyword: str) -> list[list[str]]:
    lines = [line.split() for line in path.read_text().splitlines()]
    return [words[1:] for words in lines if words[0] == keyword]


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_another_program_reads_the_same_colored_mesh(tmp_path: Path, suffix: str) -> None:
    mesh = colored()
    export_mesh(mesh, tmp_path / f"face{suffix}")
    solid = by_trimesh(tmp_path / f"face{suffix}")
    assert np.array_equal(solid.vertices.astype(np.float32), mesh.vertices[0])
    assert np.array_equal(solid.faces, mesh.triangles)
    assert mesh.colors is not None
    expected = (mesh.colors[0] * 255).round().numpy()
    if suffix == ".glb":  # in linear light there, by the sRGB curve (IEC 61966-2-1)
        light = Player(tmp_path / "face.glb").attribute("COLOR_0").astype(np.float64)
        shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255
        np.testing.assert_allclose(shown, expected, atol=1e-4)
    else:
        assert np.array_equal(solid.visual.vertex_colors[:, :3], expected)


def test_textured_obj_keeps_vertices_and_texture_triangles_apart(tmp_path: Path) -> None:
    mesh = textured()
    export_mesh(mesh, tmp_path / "face.obj")
    assert mesh.texture is not None and mesh.uv is not None and mesh.uv_triangles is not None
    vertices, uv = (np.array(obj_rows(tmp_path / "face.obj", key), np.float32) for key in ("v", "vt"))
    assert np.array_equal(vertices, mesh.vertices[0]) and np.array_equal(uv, mesh.uv)
    corners = [[corner.split("/") for corner in row] for row in obj_rows(tmp_path / "face.obj", "f")]
    numbers = np.array(corners, int) - 1  # (F, 3, vertex and texture vertex)
    assert np.array_equal(numbers[..., 0], mesh.triangles)
    assert np.array_equal(numbers[..., 1], mesh.uv_triangles)
    assert obj_rows(tmp_path / "face.obj", "mtllib") == [["face.mtl"]]
    assert "map_Kd face.png" in (tmp_path / "face.mtl").read_text().splitlines()
    picture = np.asarray(Image.open(tmp_path / "face.png"))
    assert np.array_equal(picture, (mesh.texture[0] * 255).round().byte())


def test_textured_glb_repeats_vertices_on_seams_behind_the_others(tmp_path: Path) -> None:
    mesh = textured()
    export_mesh(mesh, tmp_path / "face.glb")
    solid = by_trimesh(tmp_path / "face.glb")
    count = mesh.vertices.shape[1]
    assert np.array_equal(solid.vertices[:count].astype(np.float32), mesh.vertices[0])
    assert len(solid.vertices) > count
    behind = solid.vertices[count:]
    assert all((solid.vertices[:count] == position).all(axis=1).any() for position in behind)


def test_glb_has_smooth_normals_across_seams_and_no_metal(tmp_path: Path) -> None:
    export_mesh(textured(), tmp_path / "face.glb")
    scene: Any = trimesh.load(tmp_path / "face.glb", process=False)
    (solid,) = scene.geometry.values()
    assert solid.visual.material.metallicFactor == 0
    normals = solid.vertex_normals
    for position in solid.vertices[small_head().v_template.shape[0] :]:
        twins = np.flatnonzero((solid.vertices == position).all(axis=1))
        assert len(twins) > 1
        np.testing.assert_allclose(normals[twins], normals[twins[:1]].repeat(len(twins), 0), atol=1e-6)


def test_ply_takes_the_colors_of_the_texture(tmp_path: Path) -> None:
    mesh = textured()
    assert mesh.texture is not None and mesh.uv is not None and mesh.uv_triangles is not None
    mesh.texture[:] = torch.tensor([51.0, 102.0, 153.0]) / 255
    mesh.texture[:, :16] = torch.tensor([255.0, 0.0, 0.0]) / 255  # upper half of the texture: v > 1/2
    export_mesh(mesh, tmp_path / "face.ply")
    solid = by_trimesh(tmp_path / "face.ply")
    assert np.array_equal(solid.vertices.astype(np.float32), mesh.vertices[0])
    v = torch.zeros(mesh.vertices.shape[1])
    # the seam is a meridian: v is the same on both sides
    v[mesh.triangles] = mesh.uv[mesh.uv_triangles][..., 1]
    colors = solid.visual.vertex_colors[:, :3]
    assert (colors[v.numpy() > 0.55] == [255, 0, 0]).all()
    assert (colors[v.numpy() < 0.45] == [51, 102, 153]).all()


def test_another_program_reads_the_same_surface_from_obj(tmp_path: Path) -> None:
    """trimesh's own reader, which splits seams, must see the same positions, UVs and picture per corner."""
    mesh = textured()
    export_mesh(mesh, tmp_path / "face.obj")
    solid: Any = trimesh.load(tmp_path / "face.obj", process=False)
    assert mesh.uv is not None and mesh.texture is not None
    np.testing.assert_allclose(solid.vertices[solid.faces], mesh.vertices[0, mesh.triangles], atol=1e-7)
    np.testing.assert_allclose(solid.visual.uv[solid.faces], mesh.uv[mesh.uv_triangles], atol=1e-6)
    assert np.array_equal(np.asarray(solid.visual.material.image), (mesh.texture[0] * 255).round().byte())


def test_meshes_in_one_folder_keep_their_own_textures(tmp_path: Path) -> None:
    first, second = textured(), textured()
    assert first.texture is not None and second.texture is not None
    second.texture = 1 - second.texture
    export_mesh(first, tmp_path / "first.obj")
    export_mesh(second, tmp_path / "second.obj")
    picture = np.asarray(by_trimesh(tmp_path / "first.obj").visual.material.image)
    assert np.array_equal(picture, (first.texture[0] * 255).round().byte())
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{name}.{suffix}" for name in ("first", "second") for suffix in ("mtl", "obj", "png")
    ]


def test_a_mesh_with_gradients_is_written(tmp_path: Path) -> None:
    mesh = colored()
    mesh = Mesh(mesh.vertices.clone().requires_grad_(), mesh.triangles, colors=mesh.colors)
    export_mesh(mesh, tmp_path / "face.ply")
    assert np.array_equal(by_trimesh(tmp_path / "face.ply").vertices, mesh.vertices[0].detach())


def test_only_known_formats_and_single_faces_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"face\.stl.*\.glb, \.obj, \.ply"):
        export_mesh(colored(), tmp_path / "face.stl")
    head = small_head()
    with pytest.raises(ValueError, match="batch of 2"):
        export_mesh(head.mesh(head.mean_parameters(2)), tmp_path / "face.glb")
    broken = colored()
    broken.vertices[0, 7, 1] = torch.inf
    for suffix in (".glb", ".obj", ".ply"):
        with pytest.raises(ValueError, match="not finite"):
            export_mesh(broken, tmp_path / f"face{suffix}")
    assert not list(tmp_path.iterdir())


def test_ply_is_what_its_specification_says(tmp_path: Path) -> None:
    """Read by hand: a text header, then little-endian rows."""
    mesh = colored()
    export_mesh(mesh, tmp_path / "face.ply")
    header, body = (tmp_path / "face.ply").read_bytes().split(b"end_header\n", 1)
    lines = [line for line in header.decode().splitlines() if not line.startswith("comment")]
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count, faces = mesh.vertices.shape[1], len(mesh.triangles)
    assert f"element vertex {count}" in lines and f"element face {faces}" in lines
    properties = [line.split()[1:] for line in lines if line.startswith("property") and "list" not in line]
    assert [name for _, name in properties] == ["x", "y", "z", "red", "green", "blue", "alpha"]
    kinds = {"float": "<f4", "uchar": "u1"}
    table = np.frombuffer(body, [(name, kinds[kind]) for kind, name in properties], count)
    corners = np.frombuffer(body, [("n", "u1"), ("v", "<i4", 3)], faces, table.nbytes)
    assert len(body) == table.nbytes + corners.nbytes and (corners["n"] == 3).all()
    assert np.array_equal(np.stack([table[axis] for axis in "xyz"], 1), mesh.vertices[0])
    assert mesh.colors is not None and np.array_equal(corners["v"], mesh.triangles)
    red = np.stack([table[name] for name in ("red", "green", "blue")], 1)
    assert np.array_equal(red, (mesh.colors[0] * 255).round())


def test_another_program_reads_the_same_surface_from_glb(tmp_path: Path) -> None:
    """trimesh's own reader must see the same positions, UVs and picture at every corner."""
    mesh = textured()
    export_mesh(mesh, tmp_path / "face.glb")
    solid: Any = trimesh.load_mesh(tmp_path / "face.glb", process=False)
    assert mesh.uv is not None and mesh.texture is not None
    np.testing.assert_allclose(solid.vertices[solid.faces], mesh.vertices[0, mesh.triangles], atol=1e-7)
    np.testing.assert_allclose(solid.visual.uv[solid.faces], mesh.uv[mesh.uv_triangles], atol=1e-6)
    picture = np.asarray(solid.visual.material.baseColorTexture)
    assert np.array_equal(picture, (mesh.texture[0] * 255).round().byte())


def test_glb_stores_colors_in_linear_light(tmp_path: Path) -> None:
    """Middle grey of the screen, 0.5, is 0.2140 of its light (sRGB, IEC 61966-2-1)."""
    mesh = colored()
    assert mesh.colors is not None
    mesh.colors[0, :2] = torch.tensor([[0.5, 0.0, 1.0], [0.04, 0.5, 0.5]])
    export_mesh(mesh, tmp_path / "face.glb")
    stored = Player(tmp_path / "face.glb").attribute("COLOR_0")
    np.testing.assert_allclose(stored[:2], [[0.21404, 0, 1], [0.04 / 12.92, 0.21404, 0.21404]], atol=1e-5)


def test_arrays_of_another_kind_than_gltf_has_are_a_programming_error() -> None:
    with pytest.raises(TypeError, match="float64"):
        GlbWriter().accessor(np.zeros((3, 3)))

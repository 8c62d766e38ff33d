"""Mesh files: exact round trips, seams, and what other programs read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from small_head import small_head

from facegpt.errors import SampleError
from facegpt.head.mesh import Mesh
from facegpt.mesh_io import export_mesh, import_mesh


def textured() -> Mesh:
    """The small head: its texture has a seam, so UV triangles differ from triangles."""
    head = small_head()
    mesh = head.mesh(head.mean_parameters())
    assert mesh.texture is not None and mesh.uv_triangles is not None
    mesh.texture = (mesh.texture * 255).round() / 255
    assert not torch.equal(mesh.uv_triangles, mesh.triangles)
    return mesh


def coloured() -> Mesh:
    mesh = textured()
    colors = torch.randint(0, 256, mesh.vertices.shape, generator=torch.Generator().manual_seed(0)) / 255
    return Mesh(mesh.vertices, mesh.triangles, colors=colors)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_coloured_mesh_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    mesh = coloured()
    export_mesh(mesh, tmp_path / f"face{suffix}")
    back = import_mesh(tmp_path / f"face{suffix}")
    assert torch.equal(back.vertices, mesh.vertices)
    assert torch.equal(back.triangles, mesh.triangles)
    assert back.colors is not None and mesh.colors is not None
    torch.testing.assert_close(back.colors, mesh.colors, rtol=0, atol=1e-7)
    assert back.texture is None


def test_textured_obj_comes_back_exactly(tmp_path: Path) -> None:
    mesh = textured()
    export_mesh(mesh, tmp_path / "face.obj")
    back = import_mesh(tmp_path / "face.obj")
    for name in ("vertices", "triangles", "texture", "uv", "uv_triangles"):
        assert torch.equal(getattr(back, name), getattr(mesh, name)), name
    assert back.colors is None


def test_textured_glb_comes_back_with_repeated_seam_vertices(tmp_path: Path) -> None:
    mesh = textured()
    export_mesh(mesh, tmp_path / "face.glb")
    back = import_mesh(tmp_path / "face.glb")
    count = mesh.vertices.shape[1]
    assert torch.equal(back.vertices[:, :count], mesh.vertices)
    assert back.vertices.shape[1] > count
    assert torch.equal(back.vertices[:, back.triangles], mesh.vertices[:, mesh.triangles])
    assert back.uv is not None and mesh.uv is not None
    assert back.texture is not None and mesh.texture is not None
    # glTF measures v downwards, which costs the last bit
    torch.testing.assert_close(back.uv[back.uv_triangles], mesh.uv[mesh.uv_triangles], rtol=0, atol=1e-6)
    assert torch.equal(back.texture, mesh.texture)


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


def test_ply_takes_the_colours_of_the_texture(tmp_path: Path) -> None:
    mesh = textured()
    assert mesh.texture is not None and mesh.uv is not None and mesh.uv_triangles is not None
    mesh.texture[:] = torch.tensor([51.0, 102.0, 153.0]) / 255
    mesh.texture[:, :16] = torch.tensor([255.0, 0.0, 0.0]) / 255  # upper half of the texture: v > 1/2
    export_mesh(mesh, tmp_path / "face.ply")
    back = import_mesh(tmp_path / "face.ply")
    assert torch.equal(back.vertices, mesh.vertices)
    v = torch.zeros(mesh.vertices.shape[1])
    v[mesh.triangles] = mesh.uv[mesh.uv_triangles][
        ..., 1
    ]  # the seam is a meridian: v is the same on both sides
    assert back.colors is not None
    assert (back.colors[0, v > 0.55] * 255 == torch.tensor([255.0, 0.0, 0.0])).all()
    assert (back.colors[0, v < 0.45] * 255 == torch.tensor([51.0, 102.0, 153.0])).all()


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
    back = import_mesh(tmp_path / "first.obj").texture
    assert back is not None
    assert torch.equal(back, first.texture)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"{name}.{suffix}" for name in ("first", "second") for suffix in ("mtl", "obj", "png")
    ]


def test_a_mesh_with_gradients_is_written(tmp_path: Path) -> None:
    mesh = coloured()
    mesh = Mesh(mesh.vertices.clone().requires_grad_(), mesh.triangles, colors=mesh.colors)
    export_mesh(mesh, tmp_path / "face.ply")
    assert torch.equal(import_mesh(tmp_path / "face.ply").vertices, mesh.vertices.detach())


def test_obj_of_others_with_polygons_and_backward_numbers(tmp_path: Path) -> None:
    path = tmp_path / "quad.obj"
    path.write_text(
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvn 0 0 1\ng part\nf 1//1 2//1 3//1 4//1\nf -4 -3 -1\n"
    )
    mesh = import_mesh(path)
    assert mesh.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 3]]
    assert mesh.colors is not None


def test_a_scan_without_colours_is_grey(tmp_path: Path) -> None:
    trimesh.creation.box().export(tmp_path / "box.ply")
    mesh = import_mesh(tmp_path / "box.ply")
    assert mesh.vertices.shape == (1, 8, 3)
    assert mesh.colors is not None and mesh.colors.unique().numel() == 1


def test_only_known_formats_and_single_faces_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"face\.stl.*\.glb, \.obj, \.ply"):
        export_mesh(coloured(), tmp_path / "face.stl")
    head = small_head()
    with pytest.raises(ValueError, match="batch of 2"):
        export_mesh(head.mesh(head.mean_parameters(2)), tmp_path / "face.glb")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.glb", b"not a mesh", "a.glb cannot be read"),
        ("b.obj", b"v 0 0 zero\n", "b.obj cannot be read"),
        ("c.obj", b"v 0 0 0\nv 1 0 0\n", "c.obj holds no triangles"),
        ("d.obj", b"v 0 0 0\nv 1 0 0\nf 1 2 3\n", "d.obj has triangles of vertices that do not exist"),
        ("e.stl", b"", "e.stl is not a mesh file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SampleError, match=message):
        import_mesh(tmp_path / name)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"no mesh file .*nobody\.ply"):
        import_mesh(tmp_path / "nobody.ply")


def test_material_files_outside_of_the_folder_are_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "secret.mtl").write_text("map_Kd secret.png\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    text = "mtllib ../secret.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n"
    (folder / "face.obj").write_text(text)
    assert import_mesh(folder / "face.obj").texture is None

"""Mesh files: exact round trips, seams, and what other programs read."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from gltf_player import Player
from PIL import Image
from small_head import small_head

from facegpt.errors import SampleError
from facegpt.export import mesh_io
from facegpt.export.gltf import GlbWriter
from facegpt.export.mesh_io import export_mesh, import_mesh
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


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_colored_mesh_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    mesh = colored()
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


def test_ply_takes_the_colors_of_the_texture(tmp_path: Path) -> None:
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
    mesh = colored()
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


def test_a_scan_without_colors_is_gray(tmp_path: Path) -> None:
    trimesh.creation.box().export(tmp_path / "box.ply")
    mesh = import_mesh(tmp_path / "box.ply")
    assert mesh.vertices.shape == (1, 8, 3)
    assert mesh.colors is not None and mesh.colors.unique().numel() == 1


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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.glb", b"not a mesh", "a.glb is not a .glb file"),
        ("b.ply", b"not a mesh", "b.ply is not a PLY file"),
        ("f.obj", b"v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n", "f.obj has vertices that are not finite"),
        ("g.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n", "g.obj has triangles of vertices that do not"),
        ("h.obj", b"v 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "h.obj cannot be read"),
        ("i.obj", b"\xff\xfe\x00" * 50, "i.obj holds no triangles|i.obj cannot be read"),
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


def test_a_texture_index_out_of_range_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "skin.png")
    (tmp_path / "face.mtl").write_text("map_Kd skin.png\n")
    text = "mtllib face.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/2\n"
    (tmp_path / "face.obj").write_text(text)
    with pytest.raises(SampleError, match="texture coordinates that do not exist"):
        import_mesh(tmp_path / "face.obj")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_mesh(colored(), tmp_path / "face.ply")
    monkeypatch.setattr(mesh_io, "LARGEST_FILE", 1000)
    with pytest.raises(SampleError, match=r"face\.ply has .* is the limit"):
        import_mesh(tmp_path / "face.ply")


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


def test_glb_of_others_with_moved_nodes_and_plain_materials(tmp_path: Path) -> None:
    """Two boxes written by trimesh, one of them moved and turned in the scene."""
    red, plain = trimesh.creation.box(), trimesh.creation.box()
    red.visual = trimesh.visual.TextureVisuals(
        material=trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255])
    )
    scene = trimesh.Scene()
    scene.add_geometry(red)
    moved = trimesh.transformations.rotation_matrix(0.5, [1, 2, 3]) @ np.diag([2.0, 2, 2, 1])
    moved[:3, 3] = [3, 0, 0]
    scene.add_geometry(plain, transform=moved)
    scene.export(tmp_path / "boxes.glb")
    mesh = import_mesh(tmp_path / "boxes.glb")
    solid = trimesh.Trimesh(mesh.vertices[0].numpy(), mesh.triangles.numpy())
    assert solid.volume == pytest.approx(1 + 8, rel=1e-5) and mesh.colors is not None
    middle = mesh.vertices[0][mesh.vertices[0, :, 0] > 1.2].mean(0)
    torch.testing.assert_close(middle, torch.tensor([3.0, 0, 0]), atol=1e-5, rtol=0)
    left = mesh.vertices[0, :, 0] < 1.2
    torch.testing.assert_close(mesh.colors[0, left].unique(dim=0), torch.tensor([[1.0, 0, 0]]))


Change = Callable[[dict[str, Any]], Any]


def changed(source: Path, target: Path, change: Change) -> None:
    """A copy of a .glb file with its JSON changed."""
    data = source.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    content = json.loads(data[20 : 20 + size])
    change(content)
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest)) + struct.pack(
        "<I4s", len(text), b"JSON"
    )
    target.write_bytes(head + text + rest)


def attributes(content: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = content["meshes"][0]["primitives"][0]["attributes"]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["accessors"][0].update(count=10**12), "announces 1000000000000 elements"),
        (lambda c: c["accessors"][0].update(count=-1), "announces -1 elements"),
        (lambda c: c["accessors"][0].update(count=5000), "cannot be read"),
        (lambda c: c["accessors"][0].update(byteOffset=-16), "impossible offset"),
        (lambda c: [a.pop("bufferView") < 0 or a.update(count=9**7) for a in c["accessors"]], "without data"),
        (lambda c: c["bufferViews"][1].update(byteLength=10**9), "cut off"),
        (lambda c: c["bufferViews"][1].update(byteOffset=-4), "impossible bufferViews"),
        (lambda c: c["buffers"][0].update(uri="../secret.bin"), "in another file"),
        (lambda c: c["images"].__setitem__(0, {"uri": "/etc/passwd"}), "texture in another file"),
        (lambda c: attributes(c).update(POSITION=-1), r"accessors\[-1\], which does not exist"),
        (lambda c: attributes(c).update(POSITION="x"), "which does not exist"),
        (lambda c: attributes(c).pop("POSITION"), "cannot be read"),
        (lambda c: c["nodes"][0].update(children=[0]), "not a tree"),
        (lambda c: c["nodes"][0].update(matrix=[1, 2]), "cannot be read"),
        (lambda c: c.update(nodes={}), "does not exist"),
        (lambda c: c.update(scenes=[]), "does not exist"),
        (lambda c: c.update(extensionsRequired=["KHR_draco_mesh_compression"]), "needs KHR_draco"),
        (lambda c: c["meshes"][0]["primitives"][0].update(mode=0), "holds no triangles"),
        (lambda c: c["meshes"][0].update(primitives=c["meshes"][0]["primitives"] * 100), "has more than"),
    ],
)
def test_a_hostile_glb_is_refused_in_a_sentence(
    tmp_path: Path, change: Change, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facegpt.export.glb.LARGEST_COUNT", 10_000)
    export_mesh(textured(), tmp_path / "good.glb")
    changed(tmp_path / "good.glb", tmp_path / "bad.glb", change)
    with pytest.raises(SampleError, match=message) as caught:
        import_mesh(tmp_path / "bad.glb")
    assert "bad.glb" in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".glb", ".ply"])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"face{suffix}"
    export_mesh(textured(), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SampleError, match="face"):
        import_mesh(path)


def test_a_ply_that_announces_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "face.ply"
    export_mesh(colored(), path)
    count = str(colored().vertices.shape[1]).encode()
    path.write_bytes(path.read_bytes().replace(b"element vertex " + count, b"element vertex 99999999999"))
    with pytest.raises(SampleError, match="announces more than its"):
        import_mesh(path)


def test_a_picture_bomb_in_a_glb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facegpt.export.gltf.LARGEST_IMAGE", 100)
    export_mesh(textured(), tmp_path / "face.glb")
    with pytest.raises(SampleError, match="32 x 32 pixels; shrink it"):
        import_mesh(tmp_path / "face.glb")


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    text = b"[" * 200_000
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text)) + struct.pack("<I4s", len(text), b"JSON")
    (tmp_path / "deep.glb").write_bytes(head + text)
    with pytest.raises(SampleError, match=r"deep\.glb has unreadable JSON"):
        import_mesh(tmp_path / "deep.glb")


def test_arrays_of_another_kind_than_gltf_has_are_a_programming_error() -> None:
    with pytest.raises(TypeError, match="float64"):
        GlbWriter().accessor(np.zeros((3, 3)))

"""Meshes as .glb files: what `export_mesh` writes and `import_mesh` reads for this suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from facegpt.export.gltf import INDICES, LARGEST_COUNT, VERTICES, GlbFile, GlbWriter, open_glb
from facegpt.export.texture_map import (
    PLAIN_GRAY,
    from_picture,
    split_seams,
    to_display,
    to_linear,
    to_picture,
)
from facegpt.head.mesh import Mesh
from facegpt.render.surface import sample_texture, vertex_normals

TRIANGLES = 4  # the primitive mode


def write_glb(mesh: Mesh, path: Path) -> None:
    """Write a mesh of one face on the CPU in float32."""
    glb = GlbWriter()
    primitive, _ = add_surface(glb, mesh)
    glb.json |= {
        "meshes": [{"name": path.stem, "primitives": [primitive]}],
        "nodes": [{"name": path.stem, "mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    glb.write(path)


def add_surface(glb: GlbWriter, mesh: Mesh) -> tuple[dict[str, Any], np.ndarray]:
    """A primitive with positions, normals, triangles, material and texture or colours.

    Also returns which vertex of the mesh each of its N vertices copies, (N,): a texture seam repeats vertices
    behind the V of the mesh. Colours are stored in linear light, as glTF has them, so that viewers show them
    right.
    """
    material: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 0.8}
    attributes: dict[str, int] = {}
    if mesh.texture is not None:
        source, uv, triangles = split_seams(mesh)
        texture = {"index": glb.picture(to_picture(mesh.texture[0]), "albedo")}
        material["baseColorTexture"] = texture
        attributes["TEXCOORD_0"] = glb.accessor(_flipped(uv), VERTICES)  # v downwards
    else:
        assert mesh.colors is not None
        source, triangles = np.arange(mesh.vertices.shape[1]), mesh.triangles.numpy()
        attributes["COLOR_0"] = glb.accessor(to_linear(mesh.colors[0].numpy()).astype(np.float32), VERTICES)
    attributes["POSITION"] = glb.accessor(mesh.vertices[0].numpy()[source], VERTICES, bounds=True)
    # Normals of the whole surface, else viewers compute their own and show the texture's seams as creases.
    attributes["NORMAL"] = glb.accessor(unit_normals(mesh)[source], VERTICES)
    indices = triangles.astype(np.uint16 if len(source) < 1 << 16 else np.uint32)
    # inside of the neck and behind the lips one sees the back of triangles
    glb.json["materials"] = [{"name": "skin", "pbrMetallicRoughness": material, "doubleSided": True}]
    primitive = {"attributes": attributes, "indices": glb.accessor(indices.ravel(), INDICES), "material": 0}
    return primitive, source


def _flipped(uv: np.ndarray) -> np.ndarray:
    """glTF counts v downwards, a mesh upwards."""
    return np.stack([uv[:, 0], 1 - uv[:, 1]], 1).astype(np.float32)


def unit_normals(mesh: Mesh) -> np.ndarray:
    """Vertex normals (V,3) of the only face; +z for a vertex without triangles, as glTF wants length 1."""
    normals = vertex_normals(mesh.vertices, mesh.triangles)[0].double().numpy()
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0.5, normals / np.maximum(lengths, 0.5), (0, 0, 1)).astype(np.float32)


def read_glb(path: Path) -> Mesh:
    """All triangles of the file's scene as one mesh, in world coordinates.

    Morph targets are applied with their default weights and skins with the pose of their joint nodes, so a
    rigged head comes back as viewers first show it; animations are not read. The texture is kept where one
    texture covers the whole mesh; otherwise every vertex gets its colour.
    Raises SampleError when the file is broken or keeps parts of itself elsewhere.
    """
    file = open_glb(path)
    world = _world_matrices(file)
    parts: list[_Part] = []
    count = 0
    for index, matrix in world.items():
        node = file.entry("nodes", index)
        mesh = file.entry("meshes", node["mesh"]) if "mesh" in node else {"primitives": []}
        for primitive in mesh["primitives"]:
            if primitive.get("mode", TRIANGLES) == TRIANGLES:
                points = _morphed(file, primitive, node.get("weights", mesh.get("weights", [])))
                skinned = _skinned(file, primitive, node, points, world) if "skin" in node else None
                moved = points @ matrix[:3, :3].T + matrix[:3, 3] if skinned is None else skinned
                parts.append(_Part(file, primitive, moved))
                count += len(points)
            if count > LARGEST_COUNT:
                raise file.error(f"has more than {LARGEST_COUNT} vertices; simplify it")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    none = np.zeros((0, 3))
    vertices = np.concatenate([none, *(part.vertices for part in parts)])
    corners = [part.triangles + start for part, start in zip(parts, starts, strict=False)]
    triangles = torch.tensor(np.concatenate([none.astype(np.int64), *corners]))
    positions = torch.tensor(vertices, dtype=torch.float32)[None]
    image = parts[0].image if parts else None
    if image is not None and all(part.image == image for part in parts):
        uv = torch.tensor(np.concatenate([part.uv for part in parts]), dtype=torch.float32)
        return Mesh(positions, triangles, texture=parts[0].texture(), uv=uv, uv_triangles=triangles)
    colors = np.concatenate([none, *(part.colors() for part in parts)])
    return Mesh(positions, triangles, colors=torch.tensor(colors, dtype=torch.float32)[None])


class _Part:
    """One primitive: posed vertices (N,3), triangles (F,3), and where its colours come from."""

    def __init__(self, file: GlbFile, primitive: dict[str, Any], vertices: np.ndarray) -> None:
        self.file, self.vertices = file, vertices
        self.attributes = primitive["attributes"]
        index = primitive.get("indices")
        flat = np.arange(len(vertices)) if index is None else file.accessor(index)[:, 0].astype(np.int64)
        self.triangles = flat[: len(flat) // 3 * 3].reshape(-1, 3)
        if self.triangles.size and self.triangles.max() >= len(vertices):
            raise file.error("has triangles of vertices that do not exist")
        material = file.entry("materials", primitive["material"]) if "material" in primitive else {}
        self.surface = material.get("pbrMetallicRoughness", {})
        texture = self.surface.get("baseColorTexture")
        self.image = None if texture is None else file.entry("textures", texture.get("index")).get("source")
        if self.image is not None:
            uv = file.accessor(self.attributes.get(f"TEXCOORD_{texture.get('texCoord', 0)}"))
            self.uv = _flipped(uv)
            if self.uv.shape != (len(vertices), 2):
                raise file.error("has texture coordinates that do not fit its vertices")

    def texture(self) -> torch.Tensor:
        return from_picture(self.file.picture(self.image))

    def colors(self) -> np.ndarray:
        """Display-coded colours (N,3)."""
        if "COLOR_0" in self.attributes:
            colors = self.file.accessor(self.attributes["COLOR_0"])[:, :3]
            if len(colors) != len(self.vertices):
                raise self.file.error("has colours that do not fit its vertices")
            return to_display(colors)
        if self.image is not None:
            own = torch.tensor(self.uv, dtype=torch.float32)[None]
            return sample_texture(self.texture(), own)[0].numpy().astype(np.float64)
        gray = np.full(3, PLAIN_GRAY)
        factor = self.surface.get("baseColorFactor")
        color = gray if factor is None else to_display(np.asarray(factor[:3], np.float64))
        return np.broadcast_to(color, self.vertices.shape)


def _world_matrices(file: GlbFile) -> dict[int, np.ndarray]:
    """Node index -> world matrix (4,4), for every node of the default scene."""
    scene = file.entry("scenes", file.json.get("scene", 0)) if "scenes" in file.json else {}
    roots = scene.get("nodes", range(len(file.json.get("nodes", []))) if not scene else [])
    world: dict[int, np.ndarray] = {}
    stack = [(index, np.eye(4)) for index in roots]
    while stack:
        index, parent = stack.pop()
        node = file.entry("nodes", index)
        if index in world:
            raise file.error(f"is not a tree: nodes[{index}] has two parents")
        world[index] = parent @ _matrix(node)
        stack += [(child, world[index]) for child in node.get("children", [])]
    return dict(sorted(world.items()))


def _matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T  # column-major
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix() * node.get(
        "scale", [1, 1, 1]
    )
    matrix[:3, 3] = node.get("translation", [0, 0, 0])
    return matrix


def _morphed(file: GlbFile, primitive: dict[str, Any], weights: list[float]) -> np.ndarray:
    """Positions (N,3) with the morph targets added."""
    points = file.accessor(primitive["attributes"]["POSITION"]).astype(np.float64)
    if points.shape[1] != 3:
        raise file.error("has positions that are not in space")
    for target, weight in zip(primitive.get("targets", []), weights, strict=False):
        if weight and "POSITION" in target:
            points = points + weight * file.accessor(target["POSITION"])
    return points


def _skinned(
    file: GlbFile,
    primitive: dict[str, Any],
    node: dict[str, Any],
    points: np.ndarray,
    world: dict[int, np.ndarray],
) -> np.ndarray | None:
    """Positions (N,3) moved by the joints, in the world whatever the node's own matrix (section 3.7.3.3).

    None where this primitive has no joints.
    """
    if "JOINTS_0" not in primitive["attributes"]:
        return None
    skin = file.entry("skins", node["skin"])
    joints = np.stack([world[joint] for joint in skin["joints"]])
    if "inverseBindMatrices" in skin:
        inverse = file.accessor(skin["inverseBindMatrices"]).astype(np.float64)
        joints = joints @ inverse.reshape(-1, 4, 4).transpose(0, 2, 1)[: len(joints)]
    influences = file.accessor(primitive["attributes"]["JOINTS_0"])
    shares = file.accessor(primitive["attributes"]["WEIGHTS_0"])
    moved = np.zeros_like(points)
    for column in range(shares.shape[1]):
        matrices = joints[influences[:, column]]
        moved += shares[:, column, None] * (
            np.einsum("nij,nj->ni", matrices[:, :3, :3], points) + matrices[:, :3, 3]
        )
    return moved

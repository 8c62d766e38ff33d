"""Meshes as .glb files: what `export_mesh` writes for this suffix, and the surface of a rigged head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facegpt.export.gltf import INDICES, VERTICES, GlbWriter
from facegpt.export.texture_map import split_seams, to_linear, to_picture
from facegpt.head.mesh import Mesh
from facegpt.render.surface import vertex_normals


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
        downwards = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)  # a mesh counts v upwards
        attributes["TEXCOORD_0"] = glb.accessor(downwards.astype(np.float32), VERTICES)
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


def unit_normals(mesh: Mesh) -> np.ndarray:
    """Vertex normals (V,3) of the only face; +z for a vertex without triangles, as glTF wants length 1."""
    normals = vertex_normals(mesh.vertices, mesh.triangles)[0].double().numpy()
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 0.5, normals / np.maximum(lengths, 0.5), (0, 0, 1)).astype(np.float32)

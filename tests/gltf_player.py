"""An independent player of .glb files in plain numpy, written from the glTF 2.0 specification.

It shares no code with facegpt: tests compare what it shows with what the head model says.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Player:
    """One file with one skinned mesh. `weights` and `rotations` (node -> x, y, z, w) may be changed."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length, size, kind = struct.unpack("<4sIII4s", data[:20])
        assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
        self.json: dict[str, Any] = json.loads(data[20 : 20 + size])
        size_of_rest, kind = struct.unpack("<I4s", data[20 + size : 28 + size])
        assert kind == b"BIN\0" and 28 + size + size_of_rest == length
        self.binary = data[28 + size :]
        self.mesh = self.json["meshes"][0]
        self.primitive = self.mesh["primitives"][0]
        self.names: list[str] = self.mesh.get("extras", {}).get("targetNames", [])
        self.weights = np.array(self.mesh.get("weights", []))
        nodes = self.json["nodes"]
        self.number = {node["name"]: index for index, node in enumerate(nodes)}
        self.rotations = {n: np.array(node.get("rotation", [0, 0, 0, 1])) for n, node in enumerate(nodes)}

    def view(self, index: int, offset: int, count: int, width: int, dtype: Any) -> np.ndarray:
        view = self.json["bufferViews"][index]
        assert view.get("byteStride") is None
        start = view.get("byteOffset", 0) + offset
        return np.frombuffer(self.binary, dtype, count * width, start).reshape(count, width)

    def accessor(self, index: int) -> np.ndarray:
        entry = self.json["accessors"][index]
        dtype, width = DTYPES[entry["componentType"]], WIDTHS[entry["type"]]
        if "bufferView" in entry:
            base = self.view(entry["bufferView"], entry.get("byteOffset", 0), entry["count"], width, dtype)
        else:
            base = np.zeros((entry["count"], width), dtype)
        if "sparse" in entry:
            sparse, base = entry["sparse"], base.copy()
            rows = sparse["indices"]
            index_type = DTYPES[rows["componentType"]]
            ids = self.view(rows["bufferView"], rows.get("byteOffset", 0), sparse["count"], 1, index_type)[
                :, 0
            ]
            values = sparse["values"]
            base[ids] = self.view(values["bufferView"], values.get("byteOffset", 0), len(ids), width, dtype)
        return base

    def attribute(self, name: str) -> np.ndarray:
        return self.accessor(self.primitive["attributes"][name])

    def morphed(self, name: str = "POSITION") -> np.ndarray:
        """(N,3) positions or normals with the weighted targets added."""
        value = self.attribute(name).astype(np.float64)
        for weight, target in zip(self.weights, self.primitive.get("targets", []), strict=True):
            value = value + weight * self.accessor(target[name])
        return value

    def world(self) -> dict[int, np.ndarray]:
        nodes = self.json["nodes"]
        found: dict[int, np.ndarray] = {}

        def visit(index: int, above: np.ndarray) -> None:
            local = np.eye(4)
            local[:3, :3] = rotation_matrix(self.rotations[index])
            local[:3, 3] = nodes[index].get("translation", [0, 0, 0])
            found[index] = above @ local
            for child in nodes[index].get("children", []):
                visit(child, found[index])

        for root in self.json["scenes"][self.json["scene"]]["nodes"]:
            visit(root, np.eye(4))
        return found

    def show(self) -> np.ndarray:
        """(N,3) vertices in the world: morph targets first, then skinning."""
        world = self.world()
        node = next(node for node in self.json["nodes"] if "mesh" in node)
        points = np.concatenate([self.morphed(), np.ones((len(self.attribute("POSITION")), 1))], 1)
        skin = self.json["skins"][node["skin"]]
        inverse = self.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        matrices = [world[joint] @ bind for joint, bind in zip(skin["joints"], inverse, strict=True)]
        shown = np.zeros_like(points)
        for joints, weights in zip(self.attribute("JOINTS_0").T, self.attribute("WEIGHTS_0").T, strict=True):
            for joint, matrix in enumerate(matrices):
                shown += ((joints == joint) * weights)[:, None] * (points @ matrix.T)
        return shown[:, :3]

    def play(self, time: float) -> None:
        """Set weights and rotations to those of the first animation at `time` seconds (linear, slerp)."""
        animation = self.json["animations"][0]
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            assert sampler.get("interpolation", "LINEAR") == "LINEAR"
            times = self.accessor(sampler["input"])[:, 0]
            values = self.accessor(sampler["output"]).astype(np.float64)
            after = int(np.clip(np.searchsorted(times, time), 1, len(times) - 1))
            share = np.clip((time - times[after - 1]) / (times[after] - times[after - 1]), 0, 1)
            if channel["target"]["path"] == "weights":
                table = values.reshape(len(times), -1)
                self.weights = (1 - share) * table[after - 1] + share * table[after]
            else:
                assert channel["target"]["path"] == "rotation"
                self.rotations[channel["target"]["node"]] = slerp(values[after - 1], values[after], share)


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def to_quaternion(axis_angle: Any) -> np.ndarray:
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector)
    return np.append(vector * (0.5 if angle < 1e-12 else np.sin(angle / 2) / angle), np.cos(angle / 2))


def slerp(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    cosine = float(first @ second)
    second, cosine = (second, cosine) if cosine >= 0 else (-second, -cosine)
    angle = np.arccos(min(cosine, 1))
    if angle < 1e-6:
        return (1 - share) * first + share * second
    return (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)

"""The binary glTF 2.0 container (.glb): arrays, images and JSON in one file.

Shape legend: N elements of an accessor, C components of each. Sections are those of the specification.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegpt import __version__
from facegpt.files import atomic_path

MAGIC, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
VERTICES, INDICES = 34962, 34963  # bufferView targets
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
TYPES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class GlbWriter:
    """Collects accessors and images; the caller adds nodes, meshes and so on to `json`, the glTF object.

    Example:
        glb = GlbWriter()
        positions = glb.accessor(points, VERTICES, bounds=True)
        glb.json["meshes"] = [{"primitives": [{"attributes": {"POSITION": positions}}]}]
        glb.write("face.glb")
    """

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0", "generator": f"facegpt {__version__}"}}
        self._binary = bytearray()

    def accessor(self, array: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Index of a new accessor with `array` (N,) or (N,C): float32, uint8, uint16, uint32; (N,16) is MAT4.

        target: VERTICES or INDICES for what the graphics card reads. bounds: store the smallest and largest
        values, which positions and key frame times must have.
        """
        entry = {"bufferView": self._view(array, target), **_described(array)}
        return self._add("accessors", entry | (_bounds(array) if bounds else {}))

    def displacement(self, array: np.ndarray, smallest: float, bounds: bool = False) -> int:
        """Index of a new accessor with a morph target's displacements (N,3), sparse where that is smaller.

        Rows shorter than `smallest` are stored as zeros; that is what makes them sparse (section 3.6.2.3).
        """
        array = np.where(np.linalg.norm(array, axis=1, keepdims=True) < smallest, 0, array).astype(np.float32)
        rows = np.flatnonzero(array.any(1))
        rows = rows if len(rows) else np.zeros(1, np.int64)  # a sparse accessor has one entry at least
        index = rows.astype(np.uint16 if len(array) <= 1 << 16 else np.uint32)
        if index.nbytes + array[rows].nbytes >= array.nbytes:
            return self.accessor(array, VERTICES, bounds)
        sparse = {
            "count": len(rows),
            "indices": {"bufferView": self._view(index), "componentType": _component(index)},
            "values": {"bufferView": self._view(array[rows])},
        }
        return self._add(
            "accessors", {**_described(array), "sparse": sparse} | (_bounds(array) if bounds else {})
        )

    def picture(self, picture: Image.Image, name: str) -> int:
        """Index of a new texture with this image, embedded as PNG; beyond its edge the edge texel repeats."""
        file = io.BytesIO()
        picture.save(file, format="PNG")
        view = self._view(np.frombuffer(file.getvalue(), np.uint8))
        image = self._add("images", {"bufferView": view, "mimeType": "image/png", "name": name})
        linear, with_mipmaps, clamp = 9729, 9987, 33071
        sampler = {"magFilter": linear, "minFilter": with_mipmaps, "wrapS": clamp, "wrapT": clamp}
        return self._add("textures", {"source": image, "sampler": self._add("samplers", sampler)})

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        self.json["buffers"] = [{"byteLength": len(self._binary)}]
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        binary = bytes(self._binary) + b"\0" * (-len(self._binary) % 4)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<III", MAGIC, 2, 12 + 8 + len(text) + 8 + len(binary)))
            file.write(struct.pack("<II", len(text), JSON_CHUNK) + text)
            file.write(struct.pack("<II", len(binary), BINARY_CHUNK) + binary)

    def _view(self, array: np.ndarray, target: int | None = None) -> int:
        self._binary += b"\0" * (-len(self._binary) % 4)  # accessors are aligned to their components
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": array.nbytes}
        self._binary += np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        return self._add("bufferViews", view | ({} if target is None else {"target": target}))

    def _add(self, kind: str, entry: dict[str, Any]) -> int:
        entries = self.json.setdefault(kind, [])
        entries.append(entry)
        return len(entries) - 1


def _component(array: np.ndarray) -> int:
    for code, dtype in COMPONENTS.items():
        if array.dtype == np.dtype(dtype):
            return code
    raise TypeError(f"glTF has no arrays of {array.dtype}")


def _described(array: np.ndarray) -> dict[str, Any]:
    width = 1 if array.ndim == 1 else array.shape[1]
    kind = next(name for name, size in TYPES.items() if size == width)
    return {"componentType": _component(array), "count": len(array), "type": kind}


def _bounds(array: np.ndarray) -> dict[str, list[float]]:
    table = array.reshape(len(array), -1)
    return {"min": table.min(0).tolist(), "max": table.max(0).tolist()}

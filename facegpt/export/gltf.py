"""The binary glTF 2.0 container (.glb): arrays, images and JSON in one file.

Shape legend: N elements of an accessor, C components of each. Sections are those of the specification.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from facegpt import __version__
from facegpt.errors import SampleError
from facegpt.files import atomic_path
from facegpt.perception.images import LARGEST_IMAGE

MAGIC, JSON_CHUNK, BINARY_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
VERTICES, INDICES = 34962, 34963  # bufferView targets
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
TYPES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
LARGEST_COUNT = 20_000_000  # elements
LARGEST_ZEROS = 1_000_000  # an accessor of zeros takes no byte of the file, so the file's size is no limit
UNDERSTOOD = {"KHR_mesh_quantization", "KHR_materials_unlit"}  # they change nothing that is read here


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

        target: VERTICES or INDICES for what the face_loss card reads. bounds: store the smallest and largest
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


@dataclass
class GlbFile:
    """A parsed .glb file. Every index and length in it is checked when it is used."""

    path: Path
    json: dict[str, Any]
    binary: bytes

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Entry `index` of the list `kind` ("nodes", "meshes", ...)."""
        entries = self.json.get(kind, [])
        if not isinstance(index, int) or not isinstance(entries, list) or not 0 <= index < len(entries):
            raise self.error(f"refers to {kind}[{index!r}], which does not exist")
        if not isinstance(entries[index], dict):
            raise self.error(f"{kind}[{index}] is not an object")
        return dict(entries[index])

    def accessor(self, index: Any) -> np.ndarray:
        """The accessor's array (N,C); normalised integers as float32 in [-1,1] or [0,1] (section 3.11)."""
        entry = self.entry("accessors", index)
        count, width = entry.get("count"), TYPES.get(str(entry.get("type")))
        if width is None or entry.get("componentType") not in COMPONENTS:
            raise self.error(f"accessors[{index}] has a type that is unknown here")
        if not isinstance(count, int) or not 0 <= count <= LARGEST_COUNT:
            raise self.error(f"accessors[{index}] announces {count!r} elements, {LARGEST_COUNT} is the limit")
        dtype = np.dtype(COMPONENTS[entry["componentType"]])
        if "bufferView" in entry:
            array = self._elements(entry, count, width, dtype)
        elif count > LARGEST_ZEROS:
            raise self.error(f"has {count} elements without data in accessors[{index}]")
        else:
            array = np.zeros((count, width), dtype)
        if sparse := entry.get("sparse"):
            array = array.copy()
            rows_type = np.dtype(COMPONENTS[sparse["indices"]["componentType"]])
            rows = self._elements(sparse["indices"], sparse["count"], 1, rows_type)[:, 0]
            array[rows] = self._elements(sparse["values"], sparse["count"], width, dtype)
        if entry.get("normalized") and dtype.kind != "f":
            array = np.maximum(array.astype(np.float32) / np.iinfo(dtype).max, -1)
        return array

    def picture(self, index: Any) -> Image.Image:
        """Image `index`, decoded."""
        entry = self.entry("images", index)
        if "bufferView" not in entry:
            raise self.error("has its texture in another file; export it with the texture embedded")
        with Image.open(io.BytesIO(self._view(entry["bufferView"])[0])) as picture:
            if picture.width * picture.height > LARGEST_IMAGE:
                raise self.error(f"has a texture of {picture.width} x {picture.height} pixels; shrink it")
            return picture.convert("RGB")

    def error(self, problem: str) -> SampleError:
        return SampleError(
            f"{self.path} {problem}" if "; " in problem else f"{self.path} {problem}; export it again"
        )

    def _view(self, index: Any) -> tuple[bytes, int | None]:
        view = self.entry("bufferViews", index)
        start, length = view.get("byteOffset", 0), view.get("byteLength")
        if view.get("buffer") != 0 or "uri" in self.entry("buffers", 0):
            raise self.error("keeps its data in another file; export it as one .glb file")
        if not (isinstance(start, int) and isinstance(length, int) and 0 <= start <= start + length):
            raise self.error(f"has an impossible bufferViews[{index}]")
        if start + length > len(self.binary):
            raise self.error(f"is cut off: bufferViews[{index}] ends behind the data")
        return self.binary[start : start + length], view.get("byteStride")

    def _elements(self, entry: dict[str, Any], count: int, width: int, dtype: np.dtype) -> np.ndarray:
        data, stride = self._view(entry["bufferView"])
        stride = dtype.itemsize * width if stride is None else stride
        offset = entry.get("byteOffset", 0)
        if not all(isinstance(x, int) and x >= 0 for x in (stride, offset, count)):
            raise self.error("has an accessor with an impossible offset, stride or count")
        # numpy refuses whatever does not lie within `data`
        array: np.ndarray = np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))
        return array


def open_glb(path: str | Path) -> GlbFile:
    """Parse a .glb file; its arrays are read when they are asked for.

    Raises SampleError when it is not glTF 2.0, is cut off, or needs an extension such as Draco compression.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        magic, version, length = struct.unpack_from("<III", data)
        size, kind = struct.unpack_from("<II", data, 12)
    except struct.error:
        raise SampleError(f"{path} is not a .glb file: it is too short; export it again") from None
    if magic != MAGIC or kind != JSON_CHUNK or version != 2:
        raise SampleError(f"{path} is not a .glb file of glTF 2.0; export it again")
    if length > len(data) or 20 + size > length:
        raise SampleError(
            f"{path} is cut off: {length} bytes are announced, {len(data)} are there; copy it again"
        )
    try:
        content = json.loads(data[20 : 20 + size])
    except (ValueError, RecursionError) as error:
        raise SampleError(f"{path} has unreadable JSON ({error}); export it again") from None
    if not isinstance(content, dict):
        raise SampleError(f"{path} holds no glTF object; export it again")
    needed = {str(name) for name in content.get("extensionsRequired", [])} - UNDERSTOOD
    if needed:
        raise SampleError(
            f"{path} needs {', '.join(sorted(needed))}; export it without compression or extensions"
        )
    binary = b""
    start = 20 + size
    if start + 8 <= length:
        size, kind = struct.unpack_from("<II", data, start)
        binary = data[start + 8 : min(start + 8 + size, length)] if kind == BINARY_CHUNK else b""
    return GlbFile(path, content, binary)

"""Writes small `.tflite` files, by https://flatbuffers.dev/internals/ and TensorFlow Lite's schema.fbs."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# BuiltinOperator and, for operations with options, where each option lies: (field number, format).
CODES = {
    "ADD": 0, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEQUANTIZE": 6, "LOGISTIC": 14,
    "MAX_POOL_2D": 17, "MUL": 18, "RELU": 19, "RESHAPE": 22, "PAD": 34, "TRANSPOSE": 39, "MEAN": 40,
    "SUB": 41, "DIV": 42, "STRIDED_SLICE": 45, "SOFTMAX": 25, "PRELU": 54,
    "NEG": 59, "SUM": 74, "SQRT": 75, "RSQRT": 76,
    "SQUARED_DIFFERENCE": 99,
}  # fmt: skip
SAME, VALID = 0, 1
TYPES = {"f4": 0, "f2": 1, "i4": 2}


@dataclass
class Table:
    """Field number -> ("b" or "i" or "I", number), bytes, list[int] or list[Table] or Table."""

    fields: dict[int, Any] = field(default_factory=dict)


def flatbuffer(root: Table) -> bytes:
    data = bytearray(struct.pack("<I4s", 0, b"TFL3"))
    _refer(data, 0, root)
    return bytes(data)


def _refer(data: bytearray, at: int, value: Any) -> None:
    """Write a table, list or string at the end of the file, and at `at` the distance to it."""
    data.extend(bytes(-len(data) % 16))
    if isinstance(value, Table):
        slots = max(value.fields, default=-1) + 1
        vtable = len(data)
        start = vtable + 4 + 2 * slots
        start += -start % 4
        offsets = [4 + 4 * k if k in value.fields else 0 for k in range(slots)]
        data.extend(struct.pack(f"<HH{slots}H", 4 + 2 * slots, 4 + 4 * slots, *offsets))
        data.extend(bytes(start - len(data)))
        data.extend(struct.pack("<i", start - vtable) + bytes(4 * slots))
        struct.pack_into("<I", data, at, start - at)
        for number, content in value.fields.items():
            place = start + 4 + 4 * number
            if isinstance(content, tuple):
                struct.pack_into("<" + content[0], data, place, content[1])
            else:
                _refer(data, place, content)
        return
    data.extend(bytes(12))  # so that what a list holds begins at a multiple of 16
    start = len(data)
    struct.pack_into("<I", data, at, start - at)
    data.extend(struct.pack("<I", len(value)))
    if isinstance(value, bytes):
        data.extend(value + b"\0")
    elif value and isinstance(value[0], Table):
        places = len(data)
        data.extend(bytes(4 * len(value)))
        for k, table in enumerate(value):
            _refer(data, places + 4 * k, table)
    else:
        data.extend(struct.pack(f"<{len(value)}i", *value))


@dataclass
class Model:
    """A network under construction. Tensor 0 is the input; methods return the index of a new tensor."""

    shape: tuple[int, ...]
    tensors: list[Table] = field(default_factory=list)
    buffers: list[Table] = field(default_factory=lambda: [Table()])
    operators: list[Table] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.value(self.shape)

    def value(self, shape: tuple[int, ...], kind: str = "f4", buffer: int = 0) -> int:
        self.tensors.append(
            Table({0: list(shape), 1: ("b", TYPES[kind]), 2: ("I", buffer), 3: b"t%d" % len(self.tensors)})
        )
        return len(self.tensors) - 1

    def constant(self, array: Any, kind: str = "f4") -> int:
        array = np.asarray(array, "<" + kind)
        self.buffers.append(Table({0: array.tobytes()}))
        return self.value(array.shape, kind, len(self.buffers) - 1)

    def add(self, op: str, inputs: list[int], shape: tuple[int, ...], **options: tuple[int, str, int]) -> int:
        """options: name -> (field number, format, number)."""
        if op not in self.codes:
            self.codes.append(op)
        output = self.value(shape)
        fields: dict[int, Any] = {0: ("I", self.codes.index(op)), 1: inputs, 2: [output]}
        if options:
            fields[3] = ("b", 1)
            fields[4] = Table({number: (form, value) for number, form, value in options.values()})
        self.operators.append(Table(fields))
        return output

    def content(self, *outputs: int) -> bytes:
        graph = Table({0: self.tensors, 1: [0], 2: list(outputs), 3: self.operators})
        codes = [Table({0: ("b", min(CODES[c], 127)), 3: ("i", CODES[c])}) for c in self.codes]
        return flatbuffer(Table({0: ("I", 3), 1: codes, 2: [graph], 4: self.buffers}))


def window(padding: int, stride: int, first: int = 1, **more: tuple[int, str, int]) -> dict[str, Any]:
    """Options of convolutions and of pooling."""
    return {"padding": (0, "b", padding), "w": (first, "i", stride), "h": (first + 1, "i", stride), **more}

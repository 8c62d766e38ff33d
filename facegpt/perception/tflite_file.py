"""Read the parts of a `.tflite` file that a feed-forward network needs, without TensorFlow's packages.

Such a file is a flatbuffer (https://flatbuffers.dev/internals/): a table starts with the distance to its
vtable, which lists where each field lies; field numbers are those of TensorFlow Lite's schema.fbs, which may
only grow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facegpt.errors import CheckpointError

LARGEST_FILE = 64 << 20  # bytes; MediaPipe's largest face network has 2.6 million
MOST_ITEMS = 10_000  # tensors, operators or buffers of a file; the landmark network has 723 tensors
MOST_AXES = 8
# TensorType of schema.fbs, as far as weights and shapes use it.
_DTYPES = {0: np.float32, 1: np.float16, 2: np.int32, 3: np.uint8, 4: np.int64, 7: np.int16, 9: np.int8}
# BuiltinOperator of schema.fbs -> its name and the fields of its options: name -> (number, format, default).
_PADDED = {"padding": (0, "b", 0), "stride_w": (1, "i", 0), "stride_h": (2, "i", 0)}
_FUSED = {"activation": (0, "b", 0)}
_KEEP = {"keep_dims": (0, "b", 0)}
_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
_OPERATORS: dict[int, tuple[str, dict[str, tuple[int, str, int]]]] = {
    0: ("ADD", _FUSED),
    2: ("CONCATENATION", {"axis": (0, "i", 0), "activation": (1, "b", 0)}),
    3: (
        "CONV_2D",
        {**_PADDED, "activation": (3, "b", 0), "dilation_w": (4, "i", 1), "dilation_h": (5, "i", 1)},
    ),
    4: (
        "DEPTHWISE_CONV_2D",
        {**_PADDED, "activation": (4, "b", 0), "dilation_w": (5, "i", 1), "dilation_h": (6, "i", 1)},
    ),
    6: ("DEQUANTIZE", {}),
    14: ("LOGISTIC", {}),
    17: (
        "MAX_POOL_2D",
        {**_PADDED, "filter_w": (3, "i", 0), "filter_h": (4, "i", 0), "activation": (5, "b", 0)},
    ),
    18: ("MUL", _FUSED),
    19: ("RELU", {}),
    22: ("RESHAPE", {}),
    34: ("PAD", {}),
    39: ("TRANSPOSE", {}),
    40: ("MEAN", _KEEP),
    41: ("SUB", _FUSED),
    42: ("DIV", _FUSED),
    45: ("STRIDED_SLICE", {name: (number, "i", 0) for number, name in enumerate(_MASKS)}),
    54: ("PRELU", {}),
    59: ("NEG", {}),
    74: ("SUM", _KEEP),
    75: ("SQRT", {}),
    76: ("RSQRT", {}),
    99: ("SQUARED_DIFFERENCE", {}),
}


@dataclass
class TfliteTensor:
    """A value of the graph: its name, shape and, when it is a constant of the file, its numbers."""

    name: str
    shape: tuple[int, ...]
    array: np.ndarray | None = None


@dataclass
class TfliteOperator:
    """One operation; inputs and outputs are indices of tensors, -1 for an optional input that is absent."""

    op: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, int] = field(default_factory=dict)


@dataclass
class TfliteModel:
    """Tensors, operators in execution order, and the indices of the tensors that come in and go out."""

    tensors: list[TfliteTensor]
    operators: list[TfliteOperator]
    inputs: list[int]
    outputs: list[int]


def read_tflite(content: bytes, name: str) -> TfliteModel:
    """Read the first graph of a `.tflite` file with its weights inside.

    Raises CheckpointError, naming `name`, when it is no such file, cut off, larger than `LARGEST_FILE`, or
    has an operation that is not in the table above.
    """
    if len(content) > LARGEST_FILE:
        raise CheckpointError(f"{name}: {len(content)} bytes, {LARGEST_FILE} is the limit for such a network")
    if content[4:8] != b"TFL3":
        raise CheckpointError(f"{name}: not a .tflite file (the mark TFL3 is missing); fetch it again")
    try:
        model = _Table(content, _unsigned(content, 0))
        codes = [_code(table) for table in model.tables(1)]
        buffers = [table.bytes(0) for table in model.tables(4)]
        graph = next(model.tables(2))
        tensors = [_tensor(table, buffers) for table in graph.tables(0)]
        # One buffer under many tensors would cost memory that the file's size does not tell.
        if sum(tensor.array.nbytes for tensor in tensors if tensor.array is not None) > len(content):
            raise ValueError("its tensors hold more numbers than the file")
        operators = [_operator(table, codes) for table in graph.tables(3)]
        return TfliteModel(tensors, operators, graph.integers(1), graph.integers(2))
    except (IndexError, KeyError, ValueError, StopIteration, OverflowError, struct.error) as error:
        raise CheckpointError(
            f"{name}: not a whole .tflite file with its weights inside ({error!r})"
        ) from error


@dataclass
class _Table:
    """A flatbuffer table at a position of the file; its fields are asked for by number."""

    content: bytes
    position: int

    def _field(self, number: int) -> int | None:
        """Where a field lies; None when the file leaves it at its default."""
        vtable = self.position - _unpack("<i", self.content, self.position)
        if vtable < 0:
            raise ValueError("a table points before the file")
        entry = 4 + 2 * number
        if entry + 2 > _unpack("<H", self.content, vtable):
            return None
        offset = _unpack("<H", self.content, vtable + entry)
        return self.position + offset if offset else None

    def scalar(self, number: int, form: str, default: int) -> int:
        at = self._field(number)
        return default if at is None else _unpack("<" + form, self.content, at)

    def _vector(self, number: int, itemsize: int) -> tuple[int, int]:
        """Position and length of a vector, within the file; (0, 0) when there is none."""
        at = self._field(number)
        if at is None:
            return 0, 0
        at += _unsigned(self.content, at)
        length = _unsigned(self.content, at)
        if at + 4 + length * itemsize > len(self.content):
            raise ValueError("a list runs past the end of the file")
        return at + 4, length

    def bytes(self, number: int) -> bytes:
        start, length = self._vector(number, 1)
        return self.content[start : start + length]

    def integers(self, number: int) -> list[int]:
        start, length = self._vector(number, 4)
        if length > MOST_ITEMS:
            raise ValueError(f"a list of {length} numbers, {MOST_ITEMS} is the limit")
        return list(struct.unpack_from(f"<{length}i", self.content, start))

    def table(self, number: int) -> _Table | None:
        at = self._field(number)
        return None if at is None else _Table(self.content, at + _unsigned(self.content, at))

    def tables(self, number: int) -> Iterator[_Table]:
        start, length = self._vector(number, 4)
        if length > MOST_ITEMS:
            raise ValueError(f"a list of {length} parts, {MOST_ITEMS} is the limit")
        for at in range(start, start + 4 * length, 4):
            yield _Table(self.content, at + _unsigned(self.content, at))


def _unpack(form: str, content: bytes, position: int) -> Any:
    return struct.unpack_from(form, content, position)[0]


def _unsigned(content: bytes, position: int) -> int:
    return int(_unpack("<I", content, position))


def _code(table: _Table) -> int:
    """The operation's number, which newer files repeat in a wider field."""
    return max(table.scalar(0, "b", 0), table.scalar(3, "i", 0))


def _tensor(table: _Table, buffers: list[bytes]) -> TfliteTensor:
    name = table.bytes(3).decode("utf-8", "replace")[:200]
    shape = tuple(table.integers(0))
    if len(shape) > MOST_AXES or any(size < 0 for size in shape):
        raise ValueError(f"a tensor of shape {shape[:MOST_AXES]}")
    data = buffers[table.scalar(2, "I", 0)]
    if not data:
        return TfliteTensor(name, shape)
    if (kind := table.scalar(1, "b", 0)) not in _DTYPES:
        raise ValueError(f"weights of type {kind}")
    return TfliteTensor(name, shape, np.frombuffer(data, _DTYPES[kind]).reshape(shape))


def _operator(table: _Table, codes: list[int]) -> TfliteOperator:
    code = codes[table.scalar(0, "I", 0)]
    if code not in _OPERATORS:
        raise ValueError(f"operation number {code} is not supported")
    op, fields = _OPERATORS[code]
    stored = table.table(4)
    options = {key: spec[2] if stored is None else stored.scalar(*spec) for key, spec in fields.items()}
    return TfliteOperator(op, table.integers(1), table.integers(2), options)

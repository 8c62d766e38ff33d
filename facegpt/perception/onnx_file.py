"""Read the parts of an ONNX file that a feed-forward network needs, without the `onnx` package.

An ONNX file is a protocol buffer (https://protobuf.dev/programming-guides/encoding/): a message is a sequence
of (field number, wire type, value). Field numbers are those of onnx.proto, which may only grow.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facegpt.errors import CheckpointError

LARGEST_FILE = 1 << 30  # bytes; ArcFace's largest, IResNet-200, has half of it
MOST_FIELDS = 100_000  # of one message; IResNet-200 has some 3,000; each costs a hundred times its bytes
_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
# Where the numbers are when raw_data is unused.
_VALUE_FIELDS = {np.float32: 4, np.int32: 5, np.int64: 7, np.float16: 5, np.float64: 10}


@dataclass
class OnnxNode:
    """One operation. Attribute values are int, float, bytes, list[int], list[float] or an array."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class OnnxGraph:
    """Nodes in execution order, weights by name, inputs (without weights) and names of the outputs.

    inputs: name -> declared shape, with None for a free dimension; empty where none is declared.
    """

    nodes: list[OnnxNode]
    weights: dict[str, np.ndarray]
    inputs: dict[str, list[int | None]]
    outputs: list[str]


def read_onnx(path: str | Path) -> OnnxGraph:
    """Read the graph of an `.onnx` file with its weights inside.

    Raises CheckpointError, naming the file, when it is no ONNX file, cut off, larger than `LARGEST_FILE`, or
    keeps its weights elsewhere.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise CheckpointError(f"{path}: {size} bytes, {LARGEST_FILE} is the limit for a recogniser")
        graph = _message(_message(memoryview(path.read_bytes()))[7][-1])
        weights = dict(_tensor(_message(tensor)) for tensor in graph[5])
        inputs = dict(_input(_message(value)) for value in graph[11])
        return OnnxGraph(
            nodes=[_node(_message(node)) for node in graph[1]],
            weights=weights,
            inputs={name: shape for name, shape in inputs.items() if name not in weights},
            outputs=[_text(_message(value)[1][0]) for value in graph[12]],
        )
    except (OSError, IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error) as error:
        raise CheckpointError(f"{path}: not a whole ONNX file with its weights inside ({error!r})") from error


def _message(data: Any) -> dict[int, list[Any]]:
    """Field number -> values in order; nested messages stay memoryviews."""
    fields: dict[int, list[Any]] = defaultdict(list)
    position = count = 0
    while position < len(data):
        count += 1
        if count > MOST_FIELDS:
            raise ValueError(f"a message of more than {MOST_FIELDS} fields")
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, position = _varint(data, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value = struct.unpack_from("<d" if wire == 1 else "<f", data, position)[0]
            position += size
        elif wire == 2:
            size, position = _varint(data, position)
            if position + size > len(data):
                raise ValueError("a field runs past the end of the file")
            value = data[position : position + size]
            position += size
        else:
            raise ValueError(f"wire type {wire} is not part of the format")
        fields[number].append(value)
    return fields


def _varint(data: Any, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value - (1 << 64) if value >= 1 << 63 else value), position
        if shift > 63:
            raise ValueError("a number longer than 64 bits")


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8")


def _numbers(values: list[Any], dtype: type) -> np.ndarray:
    """A repeated scalar, packed into blocks or written one by one, as an array (N,)."""
    blocks: list[Any] = [np.zeros(0, dtype)]
    for value in values:
        if not isinstance(value, memoryview):
            blocks.append([value])
        elif issubclass(dtype, np.floating):
            blocks.append(np.frombuffer(value, dtype))
        else:
            blocks.append(_unpacked(value))
    return np.concatenate(blocks).astype(dtype)


def _unpacked(data: memoryview) -> list[int]:
    numbers: list[int] = []
    position = 0
    while position < len(data):
        number, position = _varint(data, position)
        numbers.append(number)
        if len(numbers) > MOST_FIELDS:
            raise ValueError(f"more than {MOST_FIELDS} numbers that are not stored as raw data")
    return numbers


def _input(fields: dict[int, list[Any]]) -> tuple[str, list[int | None]]:
    """Name and declared shape of a graph's input: ValueInfo -> type -> tensor type -> shape -> dimensions."""
    name = _text(fields[1][0])
    for number in (2, 1, 2):
        if not fields[number]:
            return name, []
        fields = _message(fields[number][0])
    sizes = [_message(dimension)[1] for dimension in fields[1]]
    return name, [size[0] if size and size[0] > 0 else None for size in sizes]


def _tensor(fields: dict[int, list[Any]]) -> tuple[str, np.ndarray]:
    name = _text(fields[8][0]) if fields[8] else ""
    if fields[13]:
        raise ValueError(f"weights of {name} lie in another file")
    shape, dtype = _numbers(fields[1], np.int64).tolist(), _DTYPES[fields[2][0]]
    if fields[9]:
        array = np.frombuffer(fields[9][0], dtype)
    elif dtype is np.float16:  # stored as the 16 bits of each number
        array = _numbers(fields[5], np.int32).astype(np.uint16).view(np.float16)
    else:
        array = _numbers(fields[_VALUE_FIELDS[dtype]], dtype)
    return name, array.reshape(shape)


def _node(fields: dict[int, list[Any]]) -> OnnxNode:
    attributes: dict[str, Any] = {}
    for data in fields[5]:
        attribute = _message(data)
        name, kind = _text(attribute[1][0]), attribute[20][0]
        if kind == 1:
            attributes[name] = attribute[2][0]
        elif kind == 2:
            attributes[name] = attribute[3][0]
        elif kind == 3:
            attributes[name] = bytes(attribute[4][0])
        elif kind == 4:
            attributes[name] = _tensor(_message(attribute[5][0]))[1]
        elif kind == 6:
            attributes[name] = _numbers(attribute[7], np.float32).tolist()
        elif kind == 7:
            attributes[name] = _numbers(attribute[8], np.int64).tolist()
    return OnnxNode(
        _text(fields[4][0]), [_text(x) for x in fields[1]], [_text(x) for x in fields[2]], attributes
    )

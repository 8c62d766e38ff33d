"""ONNX files written by hand, as protocol buffers."""

from __future__ import annotations

import numpy as np


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer of (field number, value), by https://protobuf.dev/programming-guides/encoding/."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += varint(number << 3) + varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            data += varint(number << 3 | 2) + varint(len(content)) + content
    return data


def weight(name: str, array: np.ndarray) -> bytes:
    return message(*((1, n) for n in array.shape), (2, 1), (8, name), (9, array.astype("<f4").tobytes()))


def node(op: str, inputs: list[str], outputs: list[str], **ints: list[int]) -> bytes:
    attributes = [message((1, k), *((8, n) for n in v), (20, 7)) for k, v in ints.items()]
    names = [*((1, name) for name in inputs), *((2, name) for name in outputs)]
    return message(*names, (4, op), *((5, attribute) for attribute in attributes))


def declared(name: str, *shape: int) -> bytes:
    dimensions = message(*((1, message((1, size)) if size else b"") for size in shape))
    return message((1, name), *([(2, message((1, message((2, dimensions)))))] if shape else []))

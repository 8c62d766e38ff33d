"""Reading arrays of a .npz that nobody vouches for: sizes are checked before anything is unpacked.

A zip archive of a few kilobytes can unpack to gigabytes, the header of an array can ask for more memory than
its data fill, and bytes grow eightfold when they become indices. All of it is declared in front of the data,
so all of it is refused unread. Nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from facegpt.errors import HeadFileError

ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)
WIDEST = 8  # bytes: what a number of any type may become in memory
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True)
class ArrayStream:
    """An array whose data have not been read: `take` gives the next numbers in the order of the file."""

    stream: IO[bytes]
    shape: tuple[int, ...]
    column_major: bool
    dtype: np.dtype

    def take(self, count: int) -> np.ndarray:
        """The next `count` numbers as (count,). Raises ValueError where the data end early."""
        raw = self.stream.read(count * self.dtype.itemsize)
        if len(raw) != count * self.dtype.itemsize:
            raise ValueError("an array ends early")
        return np.frombuffer(raw, self.dtype)

    def read(self) -> np.ndarray:
        """The whole array in its shape; for one that nothing was taken from."""
        flat = self.take(math.prod(self.shape))
        return flat.reshape(self.shape, order="F" if self.column_major else "C")


@contextmanager
def open_array(archive: zipfile.ZipFile, name: str, limit: int) -> Iterator[ArrayStream]:
    """The array `name` of an opened .npz.

    Raises HeadFileError when it would take more than `limit` bytes (at 8 bytes a number, or more), asks for
    more than it holds, or is not made of numbers, booleans or text; one of ERRORS when missing or broken.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > limit:
        raise HeadFileError(f"{name} would take {info.file_size} bytes unpacked, more than {limit}; not read")
    with archive.open(info) as stream:
        shape, column_major, dtype = _READ_HEADER[np.lib.format.read_magic(stream)](stream)
        if dtype.kind not in "fiubU":
            raise HeadFileError(f"{name} holds {dtype}, not plain numbers")
        declared = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or declared > info.file_size:
            raise HeadFileError(f"{name} asks for {declared} bytes and holds {info.file_size}; not read")
        widest = math.prod(shape) * WIDEST
        if widest > limit:
            raise HeadFileError(f"{name} would take {widest} bytes unpacked, more than {limit}; not read")
        yield ArrayStream(stream, shape, column_major, dtype)


def read_npz(path: str | Path, limit: int) -> dict[str, np.ndarray]:
    """Every array of a .npz that takes at most `limit` bytes unpacked, counting 8 bytes a number or more.

    Raises HeadFileError or one of ERRORS.
    """
    with zipfile.ZipFile(path) as archive:
        check_unpacked(sum(member.file_size for member in archive.infolist()), limit)
        size = 0
        for name in array_names(archive):
            with open_array(archive, name, limit) as array:
                size += math.prod(array.shape) * max(array.dtype.itemsize, WIDEST)
        check_unpacked(size, limit)
        arrays = {}
        for name in array_names(archive):
            with open_array(archive, name, limit) as array:
                arrays[name] = array.read()
        return arrays


def check_unpacked(size: int, limit: int) -> None:
    """Raise HeadFileError for `size` bytes above `limit`."""
    if size > limit:
        raise HeadFileError(f"it would take {size} bytes unpacked, more than {limit}; not read")


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an opened .npz."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]

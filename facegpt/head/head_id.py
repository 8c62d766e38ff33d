"""Which head is it: an id that is the same on every processor.

Parameters of one head mean nothing to another, so checkpoints and data sets store the id of theirs. A head
that comes from a file is named by a hash of its arrays. The built-in head is computed, and another processor
rounds some of its numbers otherwise, so a hash cannot name it: it has a version, and a test ties the version
to the geometry (tests/head/builtin/test_builtin_version.py).
"""

from __future__ import annotations

import hashlib

import numpy as np

from facegpt.head.files.format import HeadData

BUILTIN_ID = "builtin-1"
# What `rounded_hash` made of version 1 on processors of different kinds.
BUILTIN_HASHES = frozenset(
    {"92de9cc3a3c9b7d1", "92459cf50d8be221", "424842bdecbb8fc1", "d4291fe44a310b7e", "e4e792389fe2dae9"}
)


def is_builtin_id(id: str | None) -> bool:
    """Whether `id` names the built-in head of this version, as facegpt 0.1 did too."""
    return id == BUILTIN_ID or id in BUILTIN_HASHES


def head_id(data: HeadData) -> str:
    """The id of a head from a file: 16 hexadecimal digits of a sha256 over its arrays, bit for bit.

    The arrays are those in memory (float32, int64, bool), so a head keeps its id in every format that stores
    them. Names and metadata do not count. The texture of AlbedoMM is computed on reading (a power); import it
    into a head file once where several kinds of processors have to agree.
    """
    return _digest(data.arrays())


def rounded_hash(data: HeadData) -> str:
    """The id that facegpt 0.1 gave: floats were rounded to 1e-6 before hashing.

    Kept for what was saved then: it forgives a last bit only where no value lies near an edge of rounding.
    """
    arrays = data.arrays()
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            arrays[name] = np.rint(array.astype(np.float64) * 1e6).astype("<i8")
    return _digest(arrays)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()[:16]

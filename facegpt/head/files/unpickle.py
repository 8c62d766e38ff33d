"""Reading other people's pickles without running anything in them.

A pickle is a program: it may call any function it names. Here every name resolves to an inert stand-in that
records what it was given - arrays, sparse matrices, chumpy arrays, torch tensors - and any other name is
refused. `to_array` then turns a record into a numpy array with its sizes checked. Not even numpy's own
unpickling functions are used, because a made-up dtype state can make them read wild memory.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from facegpt.errors import HeadFileError

MAX_PICKLE_BYTES = 1 << 30  # FLAME's model files have 53 MB
_MAX_DENSE = 1 << 24  # entries of an unpacked sparse matrix, or of a list of arrays
_MAX_STORAGE = 1 << 26  # bytes of a tensor; FLAME's landmark tables have 16 kB
_MAX_NESTING = 8
_NUMBER_CODES = {"b1", "?", "f2"} | {f"{kind}{size}" for kind in "iu" for size in "1248"} | {"f4", "f8"}


def read_pickle(path: str | Path) -> Any:
    """Read a pickle, or a .npy file that holds one, of Python 2 or 3; use `to_array` on the values.

    Raises HeadFileError naming the file when it is missing, too large or broken, and naming the class or
    function too when it asks for one that head files do not need.
    """
    path = Path(path)
    if not path.is_file():
        raise HeadFileError(f"the file {path} does not exist")
    if path.stat().st_size > MAX_PICKLE_BYTES:
        raise HeadFileError(f"{path} is larger than {MAX_PICKLE_BYTES} bytes, which no head file is")
    try:
        with open(path, "rb") as file:
            magic = file.read(6)
            file.seek(0)
            return _read_npy(file, path) if magic == b"\x93NUMPY" else _Unpickler(file, path).load()
    except HeadFileError:
        raise
    except Exception as error:  # broken or hostile bytes can fail in any way, a missing method included
        raise HeadFileError(f"{path} is not a readable pickle ({type(error).__name__}: {error})") from error


def to_array(value: Any, name: str) -> np.ndarray:
    """A value from `read_pickle` as an array of numbers; `name` is for the message.

    Understands arrays, numpy scalars, scipy CSC matrices, chumpy arrays, torch tensors, numbers, lists of
    numbers, and lists of equal arrays, which are stacked. Raises HeadFileError for anything else.
    """
    try:
        for _ in range(_MAX_NESTING):
            if not isinstance(value, _Chumpy):
                break
            value = value.content()
        if isinstance(value, _Array | _Sparse | _Tensor):
            return value.to_numpy()
        if isinstance(value, list | tuple) and value and isinstance(value[0], _Array):
            return _stack(value)
        numbers = value if isinstance(value, list | tuple) else [value]
        if all(isinstance(number, int | float) and abs(number) < 2**63 for number in numbers):
            return np.array(value)
        problem = f"holds {type(value).__name__}, not numbers"
    except HeadFileError:
        raise
    except Exception as error:  # the recorded state may be anything
        problem = f"is broken ({error})"
    raise HeadFileError(f"{name} {problem}")


def _stack(parts: list[Any] | tuple[Any, ...]) -> np.ndarray:
    """Arrays of one shape as one array; a pickle may name one array many times, so the sum is bounded."""
    first = parts[0].to_numpy()
    if first.size * len(parts) > _MAX_DENSE:
        raise ValueError(f"a list of {len(parts)} arrays {first.shape} is too large")
    arrays = [part.to_numpy() for part in parts if isinstance(part, _Array)]
    if len(arrays) < len(parts) or any(array.shape != first.shape for array in arrays):
        raise ValueError("a list of arrays that are not all of one shape")
    return np.stack(arrays)


class _Unpickler(pickle._Unpickler):
    """The Python unpickler: its memo is a dictionary, so a hostile memo index cannot demand gigabytes."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # how Python 3 reads the strings and arrays of Python 2
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if module == "chumpy" or module.startswith("chumpy."):
            return _Chumpy
        if (module, name) not in _ALLOWED:
            raise HeadFileError(
                f"{self._path} asks for {module}.{name}, which no head file needs; nothing was run - "
                "get the file from its original source"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise HeadFileError(f"{self._path} refers to data outside itself; get it from its original source")

    def get_extension(self, code: int) -> None:
        raise HeadFileError(f"{self._path} uses a pickle extension code; get it from its original source")


def _read_npy(file: BinaryIO, path: Path) -> Any:
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read_header[version](file)
    if dtype.hasobject:
        value = _Unpickler(file, path).load()
        # an array of objects is a pickled array whose values are a list; of shape () it is the one value
        return value.objects()[0] if isinstance(value, _Array) and shape == () else value
    return np.load(path, allow_pickle=False)


class _Record:
    """An object of a pickle: keeps the state, does nothing."""

    __slots__ = ("state",)

    def __init__(self, *state: Any) -> None:
        self.state: Any = state

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Dtype(_Record):
    """numpy.dtype: code such as "f8"; state (version, byte order, sub-array, names, fields, ...)."""

    __slots__ = ("code",)

    def __init__(self, code: Any = None, *_: Any) -> None:
        super().__init__(3, "=")
        self.code = code

    def to_numpy(self) -> np.dtype:
        order, structure = self.state[1], self.state[2:5]
        if (
            self.code not in _NUMBER_CODES
            or order not in "<>=|"
            or any(part is not None for part in structure)
        ):
            raise ValueError(f"dtype {self.code!r} is not a plain number")
        return np.dtype(self.code).newbyteorder(order)


class _Array(_Record):
    """numpy.ndarray: state (version, shape, dtype, order, raw bytes or list of objects).

    order is True or "F" for column-major, False or "C" for row-major, or the axes to transpose to.
    """

    __slots__ = ()

    def to_numpy(self) -> np.ndarray:
        shape, dtype, order, raw = self.state[-4:]
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes | bytearray):
            raise ValueError("not an array of numbers")
        flat = np.frombuffer(raw, dtype.to_numpy())
        if isinstance(order, tuple):
            return flat.reshape(shape).transpose(order).copy()
        return flat.reshape(shape, order="F" if order in (True, "F") else "C").copy()

    def objects(self) -> list[Any]:
        raw = self.state[-1]
        if not isinstance(raw, list):
            raise ValueError("no objects in this array")
        return raw


class _Sparse(_Record):
    """scipy.sparse.csc_matrix: a dictionary with data, indices, indptr and _shape."""

    __slots__ = ()

    def to_numpy(self) -> np.ndarray:
        data, rows, starts = (to_array(self.state[key], key) for key in ("data", "indices", "indptr"))
        height, width = (int(size) for size in self.state["_shape"])
        if height * width > _MAX_DENSE:
            raise ValueError(f"a {height} x {width} matrix is too large")
        if len(starts) != width + 1 or starts[-1] != len(rows) or (np.diff(starts) < 0).any():
            raise ValueError("a sparse matrix whose columns do not fit its numbers")
        dense = np.zeros((height, width), data.dtype)
        columns = np.repeat(np.arange(width), np.diff(starts))
        np.add.at(dense, (rows, columns), data)  # raises for an index outside
        return dense


class _Chumpy(_Record):
    """Any chumpy array, chumpy.ch.Ch foremost: its value lies in state key "x"."""

    __slots__ = ()

    def content(self) -> Any:
        if not isinstance(self.state, dict) or "x" not in self.state:
            raise ValueError("a chumpy object without a value 'x'; save the file again with plain arrays")
        return self.state["x"]


class _Tensor(_Record):
    """A torch tensor: (storage, offset, size, stride, ...)."""

    __slots__ = ()

    def to_numpy(self) -> np.ndarray:
        storage, offset, size, stride = self.state[:4]
        (raw,) = storage.state
        if zipfile.is_zipfile(io.BytesIO(raw)):  # torch unpacks compressed archives too
            with zipfile.ZipFile(io.BytesIO(raw)) as archive:
                if sum(member.file_size for member in archive.infolist()) > _MAX_STORAGE:
                    raise ValueError(f"a tensor of more than {_MAX_STORAGE} bytes")
        # weights_only is torch's own restricted reader
        typed = torch.load(io.BytesIO(raw), weights_only=True, map_location="cpu")
        flat = torch.empty(0, dtype=typed.dtype).set_(typed._untyped_storage)  # untyped() warns
        if math.prod(size) > flat.numel():  # repeated values could ask for any amount of memory
            raise ValueError(f"a tensor of {size} from {flat.numel()} numbers")
        return flat.as_strided(size, stride, offset).clone().numpy()  # raises for a view beyond the storage


class _Storage(_Record):
    """The bytes of a torch storage as torch.save wrote them."""

    __slots__ = ()


class _Call:
    """A harmless function for a pickle to call; without attributes, so that it cannot be altered."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


def _reconstructor(kind: Any, *_: Any) -> _Record:
    """copyreg._reconstructor(class, base, state), how old protocols make an object."""
    if not (isinstance(kind, type) and issubclass(kind, _Record)):
        raise pickle.UnpicklingError("only arrays can be made")
    return kind()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, how Python 3 writes bytes into an old protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("scipy.sparse.csc", "csc_matrix"): _Sparse,
    ("scipy.sparse._csc", "csc_matrix"): _Sparse,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch.storage", "_load_from_bytes"): _Storage,
    ("collections", "OrderedDict"): _Call(lambda: {}),  # an empty one comes with every torch tensor
    ("_codecs", "encode"): _Call(_encode),
    ("__builtin__", "set"): _Record,  # chumpy keeps one beside its value
    ("__builtin__", "bytes"): _Call(lambda: b""),  # how old protocols write bytes of length 0
    ("copy_reg", "_reconstructor"): _Call(_reconstructor),
    ("copyreg", "_reconstructor"): _Call(_reconstructor),
    ("__builtin__", "object"): None,
    ("builtins", "object"): None,
}
for _core in ("numpy.core", "numpy._core"):
    # (class, shape, code): an empty array, filled by the state that follows
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Call(lambda *_: _Array())
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Call(lambda dtype, raw: _Array((), dtype, False, raw))
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _Call(
        lambda raw, dtype, shape, order, axes=None: _Array(shape, dtype, axes or order, raw)
    )

"""The restricted unpickler: reads what head files hold, runs nothing, and says what it refused."""

import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
import torch
from flame_files import fake_chumpy, python2_pickle

from facegpt.errors import HeadFileError
from facegpt.head.files import unpickle
from facegpt.head.files.unpickle import read_pickle, to_array

VALUES = {
    "floats": np.arange(24.0).reshape(2, 3, 4),
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "unsigned": np.array([2**32 - 1, 0], dtype=np.uint32),
    "big-endian": np.arange(5, dtype=">i4"),
    "booleans": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float64(2.5),
    "integer": 7,
    "list": [1, 2.5],
    "list of arrays": [np.arange(3), np.arange(3, 6)],
    "sparse": scipy.sparse.random(5, 7, 0.4, format="csc", random_state=0),
    "tensor": torch.arange(12).reshape(3, 4),
    "tensor view": torch.rand(5, 4, generator=torch.Generator().manual_seed(0))[1:].T,
}


def expected(value):
    return value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_values_of_python_3_pickles(tmp_path, protocol):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(VALUES, protocol=protocol))
    read = read_pickle(tmp_path / "x.pkl")
    for name, value in VALUES.items():
        array = to_array(read[name], name)
        assert array.dtype == expected(value).dtype, name
        np.testing.assert_array_equal(array, expected(value), err_msg=name)


def test_values_of_python_2_pickles(tmp_path):
    values = {name: value for name, value in VALUES.items() if "tensor" not in name}
    raw = python2_pickle(values)
    assert b"numpy.core.multiarray" in raw and b"scipy.sparse.csc\n" in raw and b"_codecs" not in raw
    (tmp_path / "x.pkl").write_bytes(raw)
    read = read_pickle(tmp_path / "x.pkl")
    for name, value in values.items():
        np.testing.assert_array_equal(to_array(read[name], name), expected(value), err_msg=name)


def test_chumpy_arrays_give_their_value(tmp_path):
    with fake_chumpy() as ch:
        raw = python2_pickle({"one": ch(VALUES["floats"]), "nested": ch(ch(VALUES["fortran"]))})
    assert b"chumpy.ch\nCh\n" in raw
    (tmp_path / "x.pkl").write_bytes(raw)
    read = read_pickle(tmp_path / "x.pkl")
    np.testing.assert_array_equal(to_array(read["one"], "one"), VALUES["floats"])
    np.testing.assert_array_equal(to_array(read["nested"], "nested"), VALUES["fortran"])


def test_chumpy_expressions_without_a_value_are_refused_in_a_sentence(tmp_path):
    with fake_chumpy() as ch:
        expression = ch(VALUES["floats"])
        del expression.x  # chumpy.ch_ops.add and its like keep their operands instead
        expression.a = expression.b = 1
        (tmp_path / "x.pkl").write_bytes(python2_pickle({"v_template": expression}))
    read = read_pickle(tmp_path / "x.pkl")
    with pytest.raises(HeadFileError, match="chumpy object without a value 'x'; save the file again"):
        to_array(read["v_template"], "v_template")


def test_npy_files_with_a_dictionary(tmp_path):
    np.save(tmp_path / "x.npy", np.array(VALUES, dtype=object), allow_pickle=True)
    read = read_pickle(tmp_path / "x.npy")
    for name, value in VALUES.items():
        np.testing.assert_array_equal(to_array(read[name], name), expected(value), err_msg=name)


def test_npy_files_with_numbers(tmp_path):
    np.save(tmp_path / "x.npy", VALUES["floats"])
    np.testing.assert_array_equal(read_pickle(tmp_path / "x.npy"), VALUES["floats"])


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path):
    return f"open({str(path)!r}, 'w').close()"


def hostile_pickles(witness):
    """Pickles that would create the file `witness`, and the name the refusal must contain."""
    import builtins
    import importlib
    import os
    import subprocess

    import torch.storage

    shell = f"touch {witness}"
    return {
        "os.system": (pickle.dumps(Calls(os.system, shell)), "posix.system|nt.system|os.system"),
        "protocol 0": (b"cos\nsystem\n(S'" + shell.encode() + b"'\ntR.", "os.system"),
        "inst opcode": (b"(S'" + shell.encode() + b"'\nios\nsystem\n.", "os.system"),
        "eval": (pickle.dumps(Calls(builtins.eval, touch(witness)), protocol=2), "__builtin__.eval"),
        "exec": (pickle.dumps(Calls(builtins.exec, touch(witness))), "builtins.exec"),
        "getattr": (pickle.dumps(Calls(getattr, Calls(importlib.import_module, "os"), "system")), "getattr"),
        "subprocess": (pickle.dumps(Calls(subprocess.Popen, ["touch", str(witness)])), "subprocess.Popen"),
        "nested in an array": (
            pickle.dumps({"v_template": np.array([Calls(os.system, shell)], dtype=object)}),
            "system",
        ),
        "nested reduce": (
            pickle.dumps(Calls(np.dtype, Calls(getattr, Calls(importlib.import_module, "os"), "system"))),
            "getattr|import_module",
        ),
        "nested in arguments": (pickle.dumps(Calls(np.dtype, Calls(os.system, shell))), "system"),
        "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0ddtype.__new__\x93.", r"numpy\.dtype\.__new__"),
        "submodule of an allowed one": (b"cnumpy.core.multiarray\nload\n.", "multiarray.load"),
        "torch.load": (pickle.dumps(Calls(torch.load, "x")), r"torch\.serialization\.load"),
        "extension code": (b"\x80\x02\x82\x01.", "extension"),
        "persistent id": (b"Psomething\n.", "outside itself"),
    }


@pytest.mark.parametrize("name", hostile_pickles("x"))
@pytest.mark.parametrize("suffix", [".pkl", ".npy"])
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, name, suffix):
    witness, path = tmp_path / "witness", tmp_path / f"hostile{suffix}"
    raw, culprit = hostile_pickles(witness)[name]
    if suffix == ".npy":
        np.save(path, np.array(None, dtype=object), allow_pickle=True)
        raw = path.read_bytes().split(b"\n")[0] + b"\n" + raw  # the header, then the hostile pickle
    path.write_bytes(raw)
    with pytest.raises(HeadFileError, match=culprit) as refusal:
        read_pickle(path)
    assert str(path) in str(refusal.value)
    assert not witness.exists()


def test_a_hostile_storage_inside_a_tensor_is_not_unpickled(tmp_path):
    import os

    witness = tmp_path / "witness"
    inner = pickle.dumps(Calls(os.system, f"touch {witness}"), protocol=2)
    storage = Calls(torch.storage._load_from_bytes, inner)
    tensor = Calls(torch._utils._rebuild_tensor_v2, storage, 0, (2,), (1,), False, {})
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"t": tensor}))
    with pytest.raises(HeadFileError, match="t is broken"):
        to_array(read_pickle(path)["t"], "t")
    assert not witness.exists()


def test_a_tensor_that_unpacks_to_gigabytes_is_refused_unread(tmp_path, monkeypatch):
    import io
    import zipfile

    stored = io.BytesIO()
    torch.save(torch.zeros(1 << 16), stored)
    packed = io.BytesIO()
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    monkeypatch.setattr(unpickle, "_MAX_STORAGE", 1 << 17)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    storage = Calls(torch.storage._load_from_bytes, packed.getvalue())
    tensor = Calls(torch._utils._rebuild_tensor_v2, storage, 0, (2,), (1,), False, {})
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"t": tensor}))
    with pytest.raises(HeadFileError, match="a tensor of more than 131072 bytes"):
        to_array(read_pickle(tmp_path / "x.pkl")["t"], "t")


def test_functions_of_the_reader_cannot_be_altered_by_a_pickle(tmp_path):
    # BUILD (b) on a callable would set its attributes; slots state is (None, {name: value})
    path = tmp_path / "x.pkl"
    for state in (b"}S'_function'\nNs", b"(N}S'_function'\nNst"):
        path.write_bytes(b"c_codecs\nencode\n" + state + b"b.")
        with pytest.raises(HeadFileError, match="no state"):
            read_pickle(path)
    for name in (b"cnumpy\nndarray\n", b"cchumpy.ch\nCh\n"):
        path.write_bytes(name + b"}S'to_numpy'\nNsb.")
        with pytest.raises(HeadFileError):
            read_pickle(path)
    path.write_bytes(pickle.dumps(VALUES["floats"], protocol=2))
    np.testing.assert_array_equal(to_array(read_pickle(path), "x"), VALUES["floats"])


def raw_array(shape, code, raw, order=b"<"):
    """A protocol 0 pickle of an array whose state can say anything."""
    dtype = b"cnumpy\ndtype\n(S'" + code + b"'\nI0\nI1\ntR(I3\nS'" + order + b"'\nNNNI-1\nI-1\nI0\ntb"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    sizes = b"(" + b"".join(b"I%d\n" % n for n in shape) + b"t"
    return start + b"(I1\n" + sizes + dtype + b"I00\nS'" + raw + b"'\ntb."


@pytest.mark.parametrize(
    ("shape", "code", "raw"),
    [
        ((2,), b"O8", b"AAAAAAAAAAAAAAAA"),  # bytes taken for object pointers
        ((1,), b"V8", b"AAAAAAAA"),
        ((1000000000,), b"f8", b"AAAAAAAA"),  # more than there is
        ((2,), b"f8", b"AAAAAAAA"),
        ((1,), b"f9", b"AAAAAAAA"),
    ],
)
def test_arrays_that_lie_about_themselves_are_refused(tmp_path, shape, code, raw):
    path = tmp_path / "x.pkl"
    path.write_bytes(raw_array((1,), b"f8", b"AAAAAAAA"))
    assert to_array(read_pickle(path), "x").shape == (1,)  # an honest one is read
    path.write_bytes(raw_array(shape, code, raw))
    with pytest.raises(HeadFileError, match="x is broken"):
        to_array(read_pickle(path), "x")


def test_views_and_matrices_cannot_ask_for_more_memory_than_they_bring(tmp_path):
    path = tmp_path / "x.pkl"
    one = torch.zeros(1).expand(3000, 3000)
    huge = scipy.sparse.csc_matrix((10**8, 10))
    path.write_bytes(pickle.dumps({"one": one, "huge": huge}))
    read = read_pickle(path)
    for name in ("one", "huge"):
        with pytest.raises(HeadFileError, match=f"{name} is broken"):
            to_array(read[name], name)


@pytest.mark.parametrize("starts", [[0, 600_000_000], [0, 2, 1, 3], [0, 1, 2, -1], [5, 6, 7, 3], [0, 1, 3]])
def test_columns_of_a_sparse_matrix_that_do_not_fit_are_refused_unread(tmp_path, starts):
    matrix = scipy.sparse.csc_matrix(np.eye(3))
    matrix.indptr = np.array(starts)
    if len(starts) == 2:
        matrix._shape = (3, 1)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(matrix))
    found = read_pickle(tmp_path / "x.pkl")
    tracemalloc.start()
    with pytest.raises(HeadFileError, match="J_regressor is broken"):
        to_array(found, "J_regressor")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_list_of_arrays_cannot_ask_for_more_memory_than_a_head_has(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([np.zeros(100_000)] * 100_000))  # one array, named often
    assert (tmp_path / "x.pkl").stat().st_size < 2 << 20
    with pytest.raises(HeadFileError, match=r"a list of 100000 arrays \(100000,\) is too large"):
        to_array(read_pickle(tmp_path / "x.pkl"), "x")


@pytest.mark.parametrize("parts", [[np.zeros(3), np.zeros(2)], [np.zeros(3), 1.0], [np.zeros(3), [1]]])
def test_lists_of_unlike_arrays_are_refused(tmp_path, parts):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(parts))
    with pytest.raises(HeadFileError, match="not all of one shape"):
        to_array(read_pickle(tmp_path / "x.pkl"), "x")


def test_a_memo_index_cannot_ask_for_memory(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"I1\nr" + struct.pack("<I", 2**31 - 1) + b".")
    assert read_pickle(path) == 1


@pytest.mark.parametrize("value", ["text", None, {"a": 1}, [[1], [2]], ["a"]])
def test_other_things_are_not_numbers(value):
    with pytest.raises(HeadFileError, match="shapedirs holds"):
        to_array(value, "shapedirs")


@pytest.mark.parametrize(
    "raw", [b"", b"\x80", b"junk", b"\x93NUMPY\x01\x00", b"\x93NUMPYjunkjunk", b"(((", b"."]
)
def test_broken_files_are_named(tmp_path, raw):
    (tmp_path / "x.pkl").write_bytes(raw)
    with pytest.raises(HeadFileError, match=r"x\.pkl"):
        read_pickle(tmp_path / "x.pkl")


def test_large_files_are_refused_unread(tmp_path, monkeypatch):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(1))
    monkeypatch.setattr(unpickle, "MAX_PICKLE_BYTES", 3)
    with pytest.raises(HeadFileError, match="larger than 3 bytes"):
        read_pickle(tmp_path / "x.pkl")

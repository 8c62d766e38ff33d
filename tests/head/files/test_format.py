"""The head file: exact round trips, and refusals that say what is wrong."""

import io
import json
import multiprocessing
import pickle
import sys
import types
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest
import safetensors.numpy
from small_head import small_head, small_head_data

from facegpt.errors import HeadFileError
from facegpt.head.builtin import cache
from facegpt.head.files.format import HeadData, load_head_data, save_head
from facegpt.head.head_id import head_id
from facegpt.head.model import HeadModel

SUFFIXES = [".npz", ".safetensors"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_round_trip_keeps_every_number_name_and_note(tmp_path, suffix):
    data = small_head_data()
    save_head(data, tmp_path / f"head{suffix}")
    loaded = load_head_data(tmp_path / f"head{suffix}")
    for field in fields(HeadData):
        before, after = getattr(data, field.name), getattr(loaded, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype, field.name
            np.testing.assert_array_equal(before, after, err_msg=field.name)
    assert list(loaded.regions) and all((loaded.regions[k] == v).all() for k, v in data.regions.items())
    assert loaded.expression_names == data.expression_names
    assert loaded.metadata == data.metadata and loaded.metadata["units"] == "metres"
    assert head_id(loaded) == head_id(data)
    assert HeadModel.load(tmp_path / f"head{suffix}").id == small_head().id


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_absent_stays_absent(tmp_path, suffix):
    names = "pose_basis uv uv_triangles texture_mean texture_basis landmark_triangles landmark_barycentric"
    optional = dict.fromkeys(f"{names} contour_triangles contour_barycentric".split())
    data = replace(small_head_data(), **optional, regions={}, albedo_names=[])
    save_head(data, tmp_path / f"head{suffix}")
    loaded = load_head_data(tmp_path / f"head{suffix}")
    assert all(getattr(loaded, name) is None for name in optional)
    assert loaded.regions == {} and loaded.albedo_names == []


def test_float64_arrays_become_float32_and_indices_int64():
    data = replace(small_head_data(), v_template=small_head_data().v_template.astype(np.float64))
    assert data.v_template.dtype == np.float32 and data.triangles.dtype == np.int64


def bad_heads():
    data = small_head_data()
    triangles = data.triangles.copy()
    triangles[3, 1] = 306
    holes = data.v_template.copy()
    holes[0, 0] = np.nan
    return {
        "triangles points outside 0..305": {"triangles": triangles},
        "v_template has values that are not finite": {"v_template": holes},
        "skinning_weights must sum to 1": {"skinning_weights": data.skinning_weights * 0.5},
        r"shape_basis has shape \(100, 3, 6\), not \(306, 3, any\)": {"shape_basis": data.shape_basis[:100]},
        r"pose_basis has shape \(306, 3, 35\)": {"pose_basis": data.pose_basis[..., :35]},
        "must be -1 and then earlier joints": {"parents": np.array([-1, 2, 1, 1, 1])},
        "uv_triangles is there but uv is missing": {"uv": None, "texture_mean": None, "texture_basis": None},
        "texture_mean is there but uv is missing": {"uv": None, "uv_triangles": None},
        "landmark_triangles points outside": {"landmark_triangles": data.landmark_triangles + 608},
        "contour_barycentric is missing": {"contour_barycentric": None},
        "texture_mean has no texels": {"texture_mean": np.zeros((0, 0, 3)), "texture_basis": None},
        "uv has values beyond 16": {"uv": data.uv * 3e38},
        r"v_template has shape \(0, 3\)": {"v_template": np.zeros((0, 3))},
        r"parents has shape \(0,\)": {"parents": np.zeros(0)},
        r"triangles has shape \(3,\)": {"triangles": np.arange(3)},
        "4 entries for 6 components": {"shape_names": ["a", "b", "c", "d"]},
    }


@pytest.mark.parametrize("message", bad_heads())
def test_arrays_that_do_not_fit_are_refused(message):
    with pytest.raises(HeadFileError, match=message):
        replace(small_head_data(), **bad_heads()[message])


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".pkl"])
def test_a_missing_file_is_named(tmp_path, suffix):
    with pytest.raises(HeadFileError, match=f"nowhere{suffix}.* does not exist"):
        HeadModel.load(tmp_path / f"nowhere{suffix}")


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(HeadFileError, match=r"ends in \.npz or \.safetensors"):
        HeadModel.load(tmp_path / "head.obj")
    with pytest.raises(HeadFileError, match=r"ends in \.npz or \.safetensors"):
        save_head(small_head_data(), tmp_path / "head.npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_file_is_named(tmp_path, suffix, damage):
    path = tmp_path / f"head{suffix}"
    save_head(small_head_data(), path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello" * 100}[damage])
    with pytest.raises(HeadFileError, match=f"head{suffix}"):
        load_head_data(path)


def test_an_npz_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", header=np.array(json.dumps({"metadata": {}})), x=np.zeros(3))
    with pytest.raises(HeadFileError, match=r"other\.npz is not a facegpt head file"):
        load_head_data(tmp_path / "other.npz")


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran')",)


def test_an_npz_with_pickled_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "bad.npz", header=np.array(Boom(), dtype=object))
    with pytest.raises(HeadFileError, match=r"bad\.npz"):
        load_head_data(tmp_path / "bad.npz")
    with pytest.raises(SystemExit):  # the file is as hostile as it claims to be
        pickle.loads(pickle.dumps(Boom()))


@pytest.fixture
def fake_builtin(monkeypatch, tmp_path):
    """A stand-in for the generator that counts its calls, and a cache of its own."""
    calls = []

    def build_head():
        calls.append(1)
        return small_head_data()

    module = types.ModuleType("facegpt.head.builtin")
    module.build_head = build_head
    monkeypatch.setitem(sys.modules, "facegpt.head.builtin", module)
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "cache"))
    return calls


def test_the_builtin_head_is_generated_once(fake_builtin):
    for _ in range(2):
        assert head_id(HeadModel.builtin().data) == small_head().id
    assert len(fake_builtin) == 1
    (file,) = cache.home().iterdir()  # nothing half-written beside it
    assert file.name.startswith("builtin_head_")


def test_a_damaged_cache_file_is_replaced(fake_builtin):
    HeadModel.builtin()
    (file,) = cache.home().iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    HeadModel.builtin()
    assert len(fake_builtin) == 2
    assert head_id(load_head_data(file)) == small_head().id


def test_changed_code_makes_a_new_file(fake_builtin, monkeypatch):
    HeadModel.builtin()
    monkeypatch.setattr(cache, "_code_hash", lambda: "0" * 16)
    HeadModel.builtin()
    assert len(fake_builtin) == 2 and len(list(cache.home().iterdir())) == 2


def test_without_a_writable_cache_the_head_still_comes(fake_builtin, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "file" / "below"))
    assert head_id(HeadModel.builtin().data) == small_head().id


def test_two_processes_may_fill_the_cache_at_once(fake_builtin):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=cache.builtin_head_data) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (file,) = cache.home().iterdir()
    assert head_id(load_head_data(file)) == small_head().id


def test_an_archive_that_unpacks_to_more_than_a_head_is_refused_unread(tmp_path, monkeypatch):
    from facegpt.head.files import format as head_format

    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, v_template=np.zeros((1_000_000, 3)), header=np.array("{}"))
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(head_format, "MAX_FILE_BYTES", 1 << 20)
    with pytest.raises(HeadFileError, match=r"bomb\.npz: it would take \d+ bytes unpacked"):
        load_head_data(path)


def test_bytes_that_would_grow_into_floats_and_indices_are_refused_unread(tmp_path, monkeypatch):
    from facegpt.head.files import format as head_format

    monkeypatch.setattr(head_format, "MAX_FILE_BYTES", 1 << 20)
    arrays = {"triangles": np.zeros((100_000, 3), np.uint8)}  # 0.3 MB, and 2.4 MB as int64
    np.savez_compressed(tmp_path / "grows.npz", **arrays, header=np.array("{}"))
    safetensors.numpy.save_file(arrays, tmp_path / "grows.safetensors", metadata={"header": "{}"})
    for name in ("grows.npz", "grows.safetensors"):
        with pytest.raises(HeadFileError, match=rf"{name}: \w+ would take 24\d+ bytes unpacked"):
            load_head_data(tmp_path / name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_header_nested_without_end_is_a_sentence(tmp_path, suffix):
    text = "[" * 100_000
    if suffix == ".npz":
        np.savez(tmp_path / "deep.npz", header=np.array(text))
    else:
        safetensors.numpy.save_file({}, tmp_path / "deep.safetensors", metadata={"header": text})
    with pytest.raises(HeadFileError, match=f"deep{suffix} is not a facegpt head file"):
        load_head_data(tmp_path / f"deep{suffix}")


def test_a_header_that_asks_for_more_than_the_file_holds_is_refused_unread(tmp_path):
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        raw, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)}
    )
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("v_template.npy", raw.getvalue() + b"12345678")
    with pytest.raises(HeadFileError, match=r"lie\.npz: v_template asks for 8000000000000000000 bytes"):
        load_head_data(tmp_path / "lie.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_license_and_source_go_with_the_file(tmp_path, suffix):
    data = replace(small_head_data(), metadata={"licence": "MIT\n\nlong text", "source": "somewhere"})
    save_head(data, tmp_path / f"head{suffix}")
    assert load_head_data(tmp_path / f"head{suffix}").metadata == {
        "units": "metres",
        "licence": "MIT\n\nlong text",
        "source": "somewhere",
    }

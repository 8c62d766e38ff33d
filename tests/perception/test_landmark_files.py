"""Landmark files and photographs, whole and broken."""

import numpy as np
import pytest
import torch

from facegpt.errors import LandmarkError
from facegpt.perception.landmark_files import read_landmarks


def points(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 200, (68, 2)).round(3)


def write_pts(path, array, declared=None, header="version: 1\nn_points: {}\n"):
    body = "\n".join(f"{x} {y}" for x, y in array)
    path.write_text(header.format(declared or len(array)) + "{\n" + body + "\n}\n")
    return path


def test_pts_counts_pixels_from_one(tmp_path):
    array = points()
    array[0] = [1.0, 1.0]  # the centre of the first pixel
    landmarks = read_landmarks(write_pts(tmp_path / "a.pts", array))
    assert landmarks.shape == (68, 2) and landmarks.dtype == torch.float32
    assert landmarks[0].tolist() == [0.5, 0.5]
    assert np.allclose(landmarks.numpy(), array - 0.5, atol=1e-4)


def test_pts_variants_are_read(tmp_path):
    array = points()
    plain = read_landmarks(write_pts(tmp_path / "a.pts", array))
    windows = tmp_path / "b.pts"
    windows.write_bytes((tmp_path / "a.pts").read_bytes().replace(b"\n", b"\r\n"))
    spaced = write_pts(tmp_path / "c.pts", array, header="version:  1\nn_points:  {} \n\n")
    for path in (windows, spaced):
        assert torch.equal(read_landmarks(path), plain)


def test_npy_is_our_own_convention(tmp_path):
    array = points()
    np.save(tmp_path / "a.npy", array)
    assert np.allclose(read_landmarks(str(tmp_path / "a.npy")).numpy(), array, atol=1e-4)


def broken_files(folder):
    array = points()
    yield folder / "missing.pts"
    yield write_pts(folder / "short.pts", array[:67])
    yield write_pts(folder / "cut.pts", array[:67], declared=68)
    yield write_pts(folder / "nan.pts", np.where(np.arange(136).reshape(68, 2) == 5, np.nan, array))
    yield write_pts(folder / "nocount.pts", array, header="version: 1\nn_points: many\n{}\n")
    ragged = write_pts(folder / "ragged.pts", array)
    ragged.write_text(ragged.read_text().replace(f"{array[3][0]} {array[3][1]}", f"{array[3][0]}"))
    yield ragged
    (folder / "binary.pts").write_bytes(b"\xff\xfe\x00\x00{1 2}")
    yield folder / "binary.pts"
    (folder / "empty.pts").write_text("")
    yield folder / "empty.pts"
    (folder / "words.txt").write_text("1 2")
    yield folder / "words.txt"
    for name, value in (("count", array[:5]), ("depth", np.zeros((68, 3))), ("flat", array.reshape(-1))):
        np.save(folder / f"{name}.npy", value)
        yield folder / f"{name}.npy"
    np.save(folder / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    yield folder / "pickle.npy"
    np.save(folder / "text.npy", np.array(["one"] * 136).reshape(68, 2))
    yield folder / "text.npy"
    (folder / "cut.npy").write_bytes((folder / "count.npy").read_bytes()[:40])
    yield folder / "cut.npy"


def test_broken_landmark_files_are_named(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(LandmarkError, match=path.name):
            read_landmarks(path)

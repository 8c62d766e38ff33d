"""Landmark files and photographs, whole and broken."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from facegpt.errors import LandmarkError
from facegpt.head.builtin.anatomy import landmark_table
from facegpt.head.model import HeadModel
from facegpt.perception.align import crop_face
from facegpt.perception.landmark_files import LARGEST_FILE, complete_landmarks, read_landmarks
from facegpt.render.camera import project
from facegpt.standins.synthetic import sample_parameters


def points(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 200, (68, 2)).round(3)


def write_pts(path, array, declared=None, header="version: 1\nn_points: {}\n"):
    body = "\n".join(f"{x} {y}" for x, y in array)
    path.write_text(header.format(declared or len(array)) + "{\n" + body + "\n}\n")
    return path


def test_pts_counts_pixels_from_one(tmp_path):
    array = points()
    array[0] = [1.0, 1.0]  # the centre of the first pixel
    landmarks, valid = read_landmarks(write_pts(tmp_path / "a.pts", array))
    assert valid.shape == (68,) and valid.dtype == torch.bool and valid.all()
    assert landmarks.shape == (68, 2) and landmarks.dtype == torch.float32
    assert landmarks[0].tolist() == [0.5, 0.5]
    assert np.allclose(landmarks.numpy(), array - 0.5, atol=1e-4)


def test_pts_variants_are_read(tmp_path):
    array = points()
    plain, _ = read_landmarks(write_pts(tmp_path / "a.pts", array))
    windows = tmp_path / "b.pts"
    windows.write_bytes((tmp_path / "a.pts").read_bytes().replace(b"\n", b"\r\n"))
    spaced = write_pts(tmp_path / "c.pts", array, header="version:  1\nn_points:  {} \n\n")
    for path in (windows, spaced):
        assert torch.equal(read_landmarks(path)[0], plain)


def test_npy_is_our_own_convention(tmp_path):
    array = points()
    np.save(tmp_path / "a.npy", array)
    assert np.allclose(read_landmarks(str(tmp_path / "a.npy"))[0].numpy(), array, atol=1e-4)


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
    np.save(folder / "digits.npy", np.array(["1"] * 136).reshape(68, 2))  # text all the same
    yield folder / "digits.npy"
    np.save(folder / "struct.npy", np.zeros(68, dtype=[("x", float), ("y", float)]))
    yield folder / "struct.npy"
    np.savez(folder / "renamed.npz", array)
    yield (folder / "renamed.npz").rename(folder / "renamed.npy")
    np.save(folder / "huge.npy", array * 1e300)
    yield folder / "huge.npy"
    yield write_pts(folder / "huge.pts", array * 1e300)
    np.save(folder / "line.npy", np.stack([np.arange(51), np.arange(51)], 1))
    yield folder / "line.npy"
    os.mkfifo(folder / "pipe.npy")
    yield folder / "pipe.npy"
    (folder / "device.npy").symlink_to("/dev/zero")
    yield folder / "device.npy"
    (folder / "large.pts").write_bytes(b"1" * (LARGEST_FILE + 1))
    yield folder / "large.pts"
    yield folder / ("name" * 200 + ".npy")
    (folder / "cut.npy").write_bytes((folder / "count.npy").read_bytes()[:40])
    yield folder / "cut.npy"


def test_broken_landmark_files_are_named(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(LandmarkError, match=path.name) as caught:
            read_landmarks(path)
        assert "\n" not in str(caught.value)


def test_an_array_is_not_made_before_its_bytes_are_there(tmp_path):
    """A header of 128 bytes that announces 16 TB."""
    np.save(tmp_path / "a.npy", np.zeros((68, 2)))
    content = (tmp_path / "a.npy").read_bytes()
    lying = content[:128].replace(b"(68, 2), }            ", b"(1000000000000, 2), } ")
    assert len(lying) == 128
    (tmp_path / "a.npy").write_bytes(lying)
    with pytest.raises(LandmarkError, match="announced in 128 bytes"):
        read_landmarks(tmp_path / "a.npy")


def test_mediapipes_points_are_told_apart(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((478, 3)))
    np.savez(tmp_path / "b.npz", lmk_face_idx=np.zeros(105))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(LandmarkError, match=f"{name}.*MediaPipe"):
            read_landmarks(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npy", ".pts"])
def test_the_51_inner_points_are_completed(tmp_path, suffix):
    array = points()
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, array[17:])
    else:
        write_pts(path, array[17:] + 0.5)
    landmarks, valid = read_landmarks(path)
    assert landmarks.shape == (68, 2) and landmarks.dtype == torch.float32
    assert valid.tolist() == [False] * 17 + [True] * 51
    assert np.allclose(landmarks[17:].numpy(), array[17:], atol=1e-4)


@pytest.mark.parametrize("yaw", [0.0, 0.3, -0.5])
def test_a_missing_contour_follows_the_pose(yaw):
    """The mean head turned, scaled and moved: its frontal contour points come back exactly."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, -1, 0]])  # image y is down
    truth = landmark_table() @ turn.T * 1.7 + (90, 120)
    landmarks, _ = complete_landmarks(truth[17:], "face")
    assert np.allclose(landmarks.numpy(), truth, atol=1e-3)


def test_a_missing_contour_hardly_moves_the_crop():
    """Of a synthetic face, which is another person in another pose; DECA's box takes all 68."""
    head = HeadModel.open("builtin")
    faces = sample_parameters(head, 8, torch.Generator().manual_seed(0))
    landmarks = project(head(faces).landmarks, faces.camera, 400, 400)[..., :2].detach()
    photo = Image.new("RGB", (400, 400))
    for face in landmarks:
        completed, _ = complete_landmarks(face[17:].numpy(), "face")
        matrices = [crop_face(photo, points)[2] for points in (face, completed)]
        assert float(matrices[0][0, 0] / matrices[1][0, 0]) == pytest.approx(1, abs=0.05)
        assert (matrices[0][:2, 2] - matrices[1][:2, 2]).abs().max() < 0.08 * 224


def test_mat_of_aflw2000_counts_pixels_from_one(tmp_path):
    array = points()
    for name, compressed in (("a.mat", False), ("b.mat", True)):
        numbers = np.concatenate([array.T, np.zeros((1, 68))]).astype(np.float32)
        savemat(
            tmp_path / name, {"pt3d_68": numbers, "Pose_Para": np.zeros((1, 7))}, do_compression=compressed
        )
        landmarks, valid = read_landmarks(tmp_path / name)
        assert np.allclose(landmarks.numpy(), array - 0.5, atol=1e-4) and valid.all()
    whole = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.mat").write_text("no file of MATLAB" * 20)
    savemat(tmp_path / "other.mat", {"pt2d": array.T})
    savemat(tmp_path / "bomb.mat", {"pt3d_68": np.zeros((3, 1 << 20))}, do_compression=True)
    assert (tmp_path / "bomb.mat").stat().st_size < LARGEST_FILE
    for name in ("cut.mat", "words.mat", "other.mat", "bomb.mat"):
        with pytest.raises(LandmarkError, match=name):
            read_landmarks(tmp_path / name)

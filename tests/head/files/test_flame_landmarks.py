"""Every known landmark embedding of FLAME gives the head file's landmark arrays."""

import pickle

import numpy as np
import pytest
import torch
from flame_files import python2_pickle, write_dynamic_landmarks, write_landmarks
from small_head import small_head_data

from facegpt.errors import HeadFileError
from facegpt.head.files.flame_landmarks import read_embedding

DATA = small_head_data()
TRIANGLES, WEIGHTS = DATA.landmark_triangles, DATA.landmark_barycentric.astype(np.float64)
CONTOUR, CONTOUR_WEIGHTS = DATA.contour_triangles, DATA.contour_barycentric


def same(found, triangles, weights):
    np.testing.assert_array_equal(found["landmark_triangles"], triangles)
    np.testing.assert_allclose(found["landmark_barycentric"], weights, rtol=1e-6)


def test_the_common_embedding_with_pickled_tensors(tmp_path):
    found = read_embedding(write_landmarks(tmp_path))
    same(found, TRIANGLES, WEIGHTS)
    np.testing.assert_array_equal(found["contour_triangles"], CONTOUR)
    np.testing.assert_allclose(found["contour_barycentric"], CONTOUR_WEIGHTS, rtol=1e-6)


def test_two_more_points_for_the_eyes_are_left_out(tmp_path):
    full = {
        "full_lmk_faces_idx": np.append(TRIANGLES, [3, 4])[None],
        "full_lmk_bary_coords": np.concatenate([WEIGHTS, np.full((2, 3), 1 / 3)])[None],
    }
    path = tmp_path / "landmark_embedding_with_eyes.npy"
    np.save(path, np.array(full, dtype=object), allow_pickle=True)
    found = read_embedding(path)
    same(found, TRIANGLES, WEIGHTS)
    assert "contour_triangles" not in found  # the contour is fixed then


@pytest.mark.parametrize("dump", [python2_pickle, pickle.dumps])
def test_68_points_with_a_fixed_contour(tmp_path, dump):
    table = {"lmk_face_idx": TRIANGLES.astype(np.uint32), "lmk_b_coords": WEIGHTS}
    (tmp_path / "x.pkl").write_bytes(dump(table))
    same(read_embedding(tmp_path / "x.pkl"), TRIANGLES, WEIGHTS)


@pytest.mark.parametrize("tensors", [True, False])
def test_51_points_take_the_contour_of_the_dynamic_file(tmp_path, tensors):
    table = {"lmk_face_idx": TRIANGLES[17:].astype(np.uint32), "lmk_b_coords": WEIGHTS[17:]}
    path = tmp_path / "flame_static_embedding.pkl"
    path.write_bytes(python2_pickle(table))
    with pytest.raises(HeadFileError, match=r"put flame_dynamic_embedding\.npy beside it"):
        read_embedding(path)
    wrap = torch.from_numpy if tensors else np.asarray
    dynamic = {"lmk_face_idx": wrap(CONTOUR), "lmk_b_coords": wrap(CONTOUR_WEIGHTS)}
    np.save(tmp_path / "flame_dynamic_embedding.npy", np.array(dynamic, dtype=object), allow_pickle=True)
    found = read_embedding(path)
    same(
        found,
        np.concatenate([CONTOUR[0], TRIANGLES[17:]]),
        np.concatenate([CONTOUR_WEIGHTS[0], WEIGHTS[17:]]),
    )
    np.testing.assert_array_equal(found["contour_triangles"], CONTOUR)


def test_51_points_take_the_contour_of_the_file_as_ringnet_wrote_it(tmp_path):
    table = {"lmk_face_idx": TRIANGLES[17:].astype(np.uint32), "lmk_b_coords": WEIGHTS[17:]}
    (tmp_path / "flame_static_embedding.pkl").write_bytes(python2_pickle(table))
    write_dynamic_landmarks(tmp_path)
    found = read_embedding(tmp_path / "flame_static_embedding.pkl")
    np.testing.assert_array_equal(found["contour_triangles"], CONTOUR)
    np.testing.assert_allclose(found["contour_barycentric"], CONTOUR_WEIGHTS, rtol=1e-6)
    same(
        found,
        np.concatenate([CONTOUR[0], TRIANGLES[17:]]),
        np.concatenate([CONTOUR_WEIGHTS[0], WEIGHTS[17:]]),
    )


def test_the_archive_of_mediapipes_points_is_told_apart(tmp_path):
    path = tmp_path / "mediapipe_landmark_embedding.npz"
    np.savez(
        path, lmk_face_idx=np.arange(105), lmk_b_coords=np.zeros((105, 3)), landmark_indices=np.arange(105)
    )
    with pytest.raises(HeadFileError, match=r"mediapipe\S+ is an archive, as MediaPipe's points come in"):
        read_embedding(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "holds no dictionary"),
        ({"x": 1}, "has no full_lmk_faces_idx or lmk_face_idx"),
        ({"full_lmk_faces_idx": [1]}, "has no full_lmk_bary_coords"),
        ({"lmk_face_idx": np.arange(9), "lmk_b_coords": np.zeros((9, 3))}, "has 9 landmarks"),
        ({"lmk_face_idx": TRIANGLES, "lmk_b_coords": WEIGHTS[:5]}, r"lmk_b_coords has shape \(5, 3\)"),
        ({"lmk_face_idx": TRIANGLES * 0.5, "lmk_b_coords": WEIGHTS}, "does not fit"),
        (
            {"full_lmk_faces_idx": TRIANGLES, "full_lmk_bary_coords": WEIGHTS}
            | {"dynamic_lmk_faces_idx": CONTOUR[0], "dynamic_lmk_bary_coords": CONTOUR_WEIGHTS[0]},
            "has 17 numbers, not 79 x 17",
        ),
        (
            {"lmk_face_idx": np.arange(105), "lmk_b_coords": np.zeros((105, 3)), "landmark_indices": 1},
            "MediaPipe's points",
        ),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(HeadFileError, match=rf"x\.pkl.*{message}"):
        read_embedding(tmp_path / "x.pkl")

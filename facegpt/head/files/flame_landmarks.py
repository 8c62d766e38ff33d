"""FLAME's 68 landmarks in the formats that people have.

landmark_embedding.npy (DECA, SMIRK, MICA): frontal points and the contour by yaw, partly as pickled torch
tensors; VHAP's variant has two eye points more, which are not used. flame_static_embedding_68.pkl (RingNet):
68 points, contour fixed. flame_static_embedding.pkl (TF_FLAME): the 51 inner points; the contour then comes
from flame_dynamic_embedding.npy beside it. The sets are not the same points: brows differ by up to 13 mm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from facegpt.errors import HeadFileError
from facegpt.head.files.format import CONTOUR, CONTOUR_ROWS, LANDMARKS
from facegpt.head.files.unpickle import read_pickle, to_array

LANDMARK_FILES = (
    "landmark_embedding.npy",
    "landmark_embedding_with_eyes.npy",
    "flame_static_embedding_68.pkl",
    "flame_static_embedding.pkl",
)
DYNAMIC = "flame_dynamic_embedding.npy"
INNER = LANDMARKS - CONTOUR
NOT_MEDIAPIPE = "facegpt does not use those: take the 68 landmarks, such as landmark_embedding.npy"


def read_embedding(path: str | Path) -> dict[str, np.ndarray]:
    """The landmark arrays of HeadData from any of the formats above, told apart by their keys.

    Raises HeadFileError when the file is missing, hostile or something else.
    """
    path = Path(path)
    if path.suffix == ".npz":
        raise HeadFileError(f"{path} is an archive, as MediaPipe's points come in; {NOT_MEDIAPIPE}")
    embedding = read_pickle(path)
    if not isinstance(embedding, dict):
        raise HeadFileError(f"{path} is not one of FLAME's landmark embeddings: it holds no dictionary")
    if "full_lmk_faces_idx" in embedding:
        triangles, weights = _points(path, embedding, "full_lmk_faces_idx", "full_lmk_bary_coords")
        found = _frontal(path, triangles, weights)
        if "dynamic_lmk_faces_idx" in embedding:
            found |= _contour(path, embedding, "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords")
        return found
    if "lmk_face_idx" not in embedding:
        raise HeadFileError(
            f"{path} is not one of FLAME's landmark embeddings: it has no full_lmk_faces_idx or lmk_face_idx"
        )
    if "landmark_indices" in embedding:
        raise HeadFileError(f"{path} holds MediaPipe's points; {NOT_MEDIAPIPE}")
    triangles, weights = _points(path, embedding, "lmk_face_idx", "lmk_b_coords")
    if len(triangles) != INNER:
        return _frontal(path, triangles, weights)
    if not (path.parent / DYNAMIC).is_file():
        raise HeadFileError(
            f"{path} has the 51 landmarks without the contour; put {DYNAMIC} beside it or use "
            "landmark_embedding.npy"
        )
    dynamic = read_pickle(path.parent / DYNAMIC)
    contour = _contour(path.parent / DYNAMIC, dynamic, "lmk_face_idx", "lmk_b_coords")
    return contour | {
        "landmark_triangles": np.concatenate([contour["contour_triangles"][0], triangles]),
        "landmark_barycentric": np.concatenate([contour["contour_barycentric"][0], weights]),
    }


def _points(path: Path, embedding: Any, index: str, weight: str) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (N,) and barycentric coordinates (N,3), whatever axes of length 1 there are."""
    arrays = []
    for key in (index, weight):
        if not isinstance(embedding, dict) or key not in embedding:
            raise HeadFileError(f"{path} is not one of FLAME's landmark embeddings: it has no {key}")
        arrays.append(to_array(embedding[key], f"{path}: {key}"))
    triangles, weights = arrays[0].reshape(-1), arrays[1]
    if weights.size != 3 * triangles.size or triangles.dtype.kind not in "iu":
        raise HeadFileError(f"{path}: {weight} has shape {weights.shape}, which does not fit {index}")
    return triangles.astype(np.int64), weights.reshape(-1, 3)


def _frontal(path: Path, triangles: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    if len(triangles) not in (LANDMARKS, LANDMARKS + 2):  # two eye points follow in VHAP's file
        raise HeadFileError(f"{path} has {len(triangles)} landmarks; 68 in iBUG order are needed")
    return {"landmark_triangles": triangles[:LANDMARKS], "landmark_barycentric": weights[:LANDMARKS]}


def _contour(path: Path, embedding: Any, index: str, weight: str) -> dict[str, np.ndarray]:
    triangles, weights = _points(path, embedding, index, weight)
    if len(triangles) != CONTOUR_ROWS * CONTOUR:
        raise HeadFileError(f"{path}: {index} has {len(triangles)} numbers, not {CONTOUR_ROWS} x {CONTOUR}")
    return {
        "contour_triangles": triangles.reshape(CONTOUR_ROWS, CONTOUR),
        "contour_barycentric": weights.reshape(CONTOUR_ROWS, CONTOUR, 3),
    }

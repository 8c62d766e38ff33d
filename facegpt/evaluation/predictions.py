"""What a method says of the faces in a data set, by record id: from our results, or from anybody's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facegpt.errors import HeadFileError, HeadMismatchError, SampleError
from facegpt.evaluation.evaluated_model import samples_path
from facegpt.export.face_files import GROUPS, MAX_BYTES, OPTIONAL, read_faces
from facegpt.export.mesh_reading import SUFFIXES, read_mesh
from facegpt.files import read_json, read_jsonl
from facegpt.head.files.npz import ERRORS, read_npz
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters

CODES = "codes"  # the array of an .npz that holds whole parameter vectors


@dataclass
class Predictions:
    """Of N faces: their parameters on the CPU, or, of a method that gives meshes, vertices (N,V,3)."""

    ids: list[str]
    faces: FaceParameters | None = None
    vertices: Tensor | None = None

    def of(self, ids: Sequence[str]) -> Predictions:
        """The same for some of the ids, in their order."""
        place = {name: index for index, name in enumerate(self.ids)}
        rows = torch.tensor([place[name] for name in ids])
        vertices = None if self.vertices is None else self.vertices[rows]
        return Predictions(list(ids), None if self.faces is None else self.faces[rows], vertices)


def read_predictions(path: str | Path, head: HeadModel, kind: str = "image") -> Predictions:
    """Predictions for a head from one of these:

    - a result of `eval/reconstruct.py` (.json), or the `..._samples.jsonl` beside it;
    - a .npz with `ids` (N,) and either `codes` (N,n), vectors in DECA's order (shape, albedo, expression,
      pose, camera, lighting; 236 numbers for DECA's sizes), or one array (N,n) per group;
    - a folder with a file per record, named by its id: .json as `facegpt chat` writes it, .npz with `codes`
      or the groups of one face, .obj or .ply with the vertices of the head, in metres and in its order.

    kind: which rows of a result, "image" or, of one of `eval/text_to_face.py`, "text".
    Raises SampleError, naming the file, for what cannot be read or has other sizes than the head, and
    HeadMismatchError where a file says that it is of another head.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path, head)
    if not path.is_file():
        raise SampleError(f"there are no predictions {path}; give a result, an .npz or a folder")
    if path.suffix == ".npz":
        return _read_archive(path, head)
    if path.suffix == ".json":
        result = read_json(path, MAX_BYTES)
        _check_head(result.get("head_id") if isinstance(result, dict) else None, head, path)
        path = samples_path(path)
    rows = read_jsonl(path) if path.is_file() else []
    rows = [row for row in rows if _is_face(row, kind)]
    if not rows:
        raise SampleError(f"{path} has no faces of the kind {kind}; give a result of eval/reconstruct.py")
    return _checked(
        [str(row["id"]) for row in rows], _faces([row["parameters"] for row in rows], head, path), path
    )


def _check_head(made_for: str | None, head: HeadModel, path: Path) -> None:
    """Raise HeadMismatchError when a file says that it is of another head; one that says nothing passes."""
    if made_for is not None and not head.has_id(made_for):
        raise HeadMismatchError(f"{path} was made with head model {made_for}, but {head.id} is loaded")


def _is_face(row: dict[str, object], kind: str) -> bool:
    return row.get("kind") == kind and "id" in row and isinstance(row.get("parameters"), list)


def _faces(vectors: object, head: HeadModel, path: Path) -> FaceParameters:
    """Vectors (N,n) in DECA's order as faces of the head; neck and eyes, which may follow, are left out."""
    try:
        found = torch.as_tensor(np.array(vectors, dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise SampleError(f"{path} holds vectors that are no numbers ({error})") from None
    total = head.layout.total
    if found.ndim != 2 or found.shape[1] not in (total, total + 3, total + 6, total + 9):
        raise SampleError(f"{path} has vectors of shape {tuple(found.shape)}; the head takes (N, {total})")
    return FaceParameters.from_vector(found[:, :total], head.layout)


def _checked(ids: list[str], faces: FaceParameters, path: Path) -> Predictions:
    if len(ids) != len(faces) or len(set(ids)) < len(ids):
        raise SampleError(f"{path} has {len(ids)} ids for {len(faces)} faces, or one id twice")
    if not bool(faces.to_vector().isfinite().all()):
        raise SampleError(f"{path} has numbers that are not finite")
    return Predictions(ids, faces)


def _read_archive(path: Path, head: HeadModel, ids: list[str] | None = None) -> Predictions:
    try:
        arrays = read_npz(path, MAX_BYTES)
        made_for = str(arrays["head_id"]) if "head_id" in arrays else None
        ids = [str(name) for name in arrays["ids"]] if ids is None else ids
        if CODES in arrays:
            vectors = np.atleast_2d(arrays[CODES])
        else:
            vectors = np.concatenate([np.atleast_2d(arrays[n]) for n in GROUPS if n not in OPTIONAL], axis=1)
    except (*ERRORS, HeadFileError, KeyError, ValueError, TypeError) as error:
        raise SampleError(
            f"{path} is no file of predictions ({error}); it needs ids, and codes or one array a group"
        ) from None
    _check_head(made_for, head, path)
    return _checked(ids, _faces(vectors, head, path), path)


def _read_folder(folder: Path, head: HeadModel) -> Predictions:
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in (".json", ".npz", *SUFFIXES)]
    ids = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    if not files or len(set(ids)) < len(ids):
        raise SampleError(
            f"{folder} has no .json, .npz, .obj or .ply files named by record ids, or one id twice"
        )
    if all(file.suffix in SUFFIXES for file in files):
        return Predictions(ids, vertices=torch.stack([_vertices(file, head) for file in files]))
    if any(file.suffix in SUFFIXES for file in files):
        raise SampleError(f"{folder} mixes meshes and parameters; keep one kind in a folder")
    parts = []
    for file, name in zip(files, ids, strict=True):
        if file.suffix == ".npz":
            parts.append(_read_archive(file, head, [name]).faces)
            continue
        found = read_faces(file)
        _check_head(found.head_id, head, file)
        parts.append(_faces(found.parameters.to_vector(), head, file))
    return _checked(ids, FaceParameters.cat([part for part in parts if part is not None]), folder)


def _vertices(file: Path, head: HeadModel) -> Tensor:
    vertices, _ = read_mesh(file)
    if len(vertices) != len(head.v_template):
        raise SampleError(
            f"{file} has {len(vertices)} vertices, the head has {len(head.v_template)}; meshes of another "
            "topology are compared by eval/now.py"
        )
    return torch.from_numpy(vertices).float()

"""Files in FLAME's formats for tests, written from the small head: what a user of FLAME has on disk.

The model pickle is written as Python 2 wrote it: protocol 2, byte strings, the old module names of numpy and
scipy, and a chumpy array for shapedirs.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from small_head import small_head_data

OLD_MODULES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "scipy.sparse._csc": "scipy.sparse.csc",
    "copyreg": "copy_reg",
    "builtins": "__builtin__",
}


_PythonPickler: Any = pickle._Pickler  # type: ignore[attr-defined,unused-ignore]


class Python2Pickler(_PythonPickler):  # type: ignore[misc]
    """Writes what Python 2's pickle wrote at protocol 2: every string is a byte string."""

    dispatch = _PythonPickler.dispatch.copy()

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=2, fix_imports=False)

    def _save_string(self, text: str | bytes) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)  # BINSTRING
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = _save_string

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = OLD_MODULES.get(obj.__module__, obj.__module__)
        if obj is np.ndarray or obj is np.dtype:
            module = "numpy"
        self.write(b"c" + f"{module}\n{name or obj.__qualname__}\n".encode())
        self.memoize(obj)

    dispatch[types.FunctionType] = save_global
    dispatch[types.BuiltinFunctionType] = save_global
    dispatch[type] = save_global


def python2_pickle(value: Any) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file).dump(value)
    return file.getvalue()


@contextmanager
def fake_chumpy() -> Iterator[Any]:
    """A class chumpy.ch.Ch, there while the pickle is written; its state is the real one's."""
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, value: np.ndarray) -> None:
            self._dirty_vars = {"x"}
            self._itr = None
            self._make_dense = self._make_sparse = False
            self._depends_on_deps: dict[str, Any] = {}
            self.x = value

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch  # type: ignore[attr-defined]
    sys.modules["chumpy"], sys.modules["chumpy.ch"] = types.ModuleType("chumpy"), module
    try:
        yield Ch
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]


def flame_arrays(seed: int = 0) -> dict[str, Any]:
    """The model's dictionary: the small head with 300 identity and 100 expression columns, float64."""
    random = np.random.default_rng(seed)
    data = small_head_data()
    vertices = len(data.v_template)
    basis = np.concatenate([data.shape_basis, data.expression_basis], 2).astype(np.float64)
    small = random.normal(size=(2, vertices, 3, 300)) * 1e-4
    columns = [basis[..., :6], small[0, ..., 6:], basis[..., 6:], small[1, ..., :96]]
    shapedirs = np.concatenate(columns, 2)
    assert data.pose_basis is not None
    return {
        "v_template": data.v_template.astype(np.float64),
        "f": data.triangles.astype(np.uint32),
        "shapedirs": shapedirs,
        "posedirs": data.pose_basis.astype(np.float64),
        "weights": data.skinning_weights.astype(np.float64),
        "J_regressor": scipy.sparse.csc_matrix(data.joint_regressor.astype(np.float64)),
        "J": np.zeros((5, 3)),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_flame_2023(folder: Path, name: str = "generic_model.pkl") -> Path:
    """A model pickle of Python 2 with a chumpy array."""
    arrays = flame_arrays()
    with fake_chumpy() as ch:
        raw = python2_pickle(arrays | {"shapedirs": ch(arrays["shapedirs"])})
    (folder / name).write_bytes(raw)
    return folder / name


def write_flame_open(folder: Path, name: str = "flame2023_Open.pkl") -> Path:
    """A model pickle of Python 3, without chumpy, that says which columns are expression."""
    about = {"n_expr": 100, "expr_components": "last_100", "expr_source": "x", "supr_gender": "generic"}
    with open(folder / name, "wb") as file:
        pickle.dump(flame_arrays() | {"supr_expression_metadata": about}, file, protocol=5)
    return folder / name


def write_landmarks(folder: Path) -> Path:
    """landmark_embedding.npy: a pickled dictionary, the dynamic part as torch tensors."""
    data = small_head_data()
    triangles, weights = data.landmark_triangles, data.landmark_barycentric
    assert triangles is not None and weights is not None
    weights = weights.astype(np.float64)
    embedding = {
        "static_lmk_faces_idx": triangles[17:],
        "static_lmk_bary_coords": weights[17:],
        "dynamic_lmk_faces_idx": torch.from_numpy(data.contour_triangles),
        "dynamic_lmk_bary_coords": torch.from_numpy(data.contour_barycentric),
        "full_lmk_faces_idx": triangles[None],
        "full_lmk_bary_coords": weights[None],
    }
    path = folder / "landmark_embedding.npy"
    np.save(path, np.array(embedding, dtype=object), allow_pickle=True)
    return path


def write_dynamic_landmarks(folder: Path) -> Path:
    """flame_dynamic_embedding.npy as RingNet's: of Python 2, a dictionary with lists of 79 arrays."""
    data = small_head_data()
    assert data.contour_triangles is not None and data.contour_barycentric is not None
    embedding = {
        "lmk_face_idx": list(data.contour_triangles.astype(np.uint32)),
        "lmk_b_coords": list(data.contour_barycentric.astype(np.float64)),
    }
    path = folder / "flame_dynamic_embedding.npy"
    with open(path, "wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(python2_pickle(np.array(embedding, dtype=object)))
    return path


def write_texture(folder: Path, components: int = 60) -> Path:
    """FLAME_texture.npz with 0..255 in BGR, each texel of the small head's texture four times."""
    data = small_head_data()
    mean, basis, uv, uv_triangles = data.texture_mean, data.texture_basis, data.uv, data.uv_triangles
    assert mean is not None and basis is not None and uv is not None and uv_triangles is not None
    padded = np.concatenate([basis, np.zeros((*mean.shape, components - basis.shape[3]), np.float32)], 3)

    def enlarge(texels: np.ndarray) -> np.ndarray:
        return texels.repeat(2, 0).repeat(2, 1)[:, :, ::-1] * 255

    path = folder / "FLAME_texture.npz"
    np.savez(path, mean=enlarge(mean), tex_dir=enlarge(padded), vt=uv, ft=uv_triangles)
    return path


def write_masks(folder: Path) -> Path:
    """FLAME_masks.pkl of Python 2: region name -> vertex numbers."""
    regions = small_head_data().regions
    names = {"face": "face", "left_eyeball": "left_eyeball", "right_eyeball": "right_eyeball", "lips": "lips"}
    masks = {theirs: np.flatnonzero(regions[ours]) for theirs, ours in names.items()}
    masks |= {"left_ear": np.array([1, 2]), "right_ear": np.array([3])}
    path = folder / "FLAME_masks.pkl"
    path.write_bytes(python2_pickle(masks))
    return path


def write_template(folder: Path) -> Path:
    """head_template.obj: the texture coordinates; its vertices are an older template, here nonsense."""
    data = small_head_data()
    assert data.uv is not None and data.uv_triangles is not None
    lines = [
        "mtllib head.mtl",
        *("v 0 0 0" for _ in data.v_template),
        *(f"vt {u:.9f} {v:.9f}" for u, v in data.uv),
    ]
    for corners, texture in zip(data.triangles + 1, data.uv_triangles + 1, strict=True):
        lines.append("f " + " ".join(f"{v}/{t}" for v, t in zip(corners, texture, strict=True)))
    path = folder / "head_template.obj"
    path.write_text("\n".join(lines) + "\n")
    return path

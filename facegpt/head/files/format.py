"""The head file: every array of a parametric head, in memory and on disk.

Shape legend: V vertices, F triangles, J joints, T texture vertices; S shape, E expression, A albedo.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from facegpt.errors import HeadFileError
from facegpt.files import atomic_path
from facegpt.head.files.npz import ERRORS, WIDEST, check_unpacked, read_npz

LANDMARKS, CONTOUR = 68, 17
CONTOUR_ROWS = 79  # yaw 0..39 degrees, then -1..-39
MAX_FILE_BYTES = 2 << 30  # far above any head; keeps a broken or hostile file from filling the memory
MAX_UV = 16.0  # tiles to either side; a place further away says nothing, and must never become an index

INTEGERS = (
    "triangles",
    "parents",
    "uv_triangles",
    "landmark_triangles",
    "contour_triangles",
    "dense_triangles",
)
NAMES = ("shape_names", "expression_names", "albedo_names")
REGION_PREFIX = "regions/"


@dataclass
class HeadData:
    """A parametric head in FLAME's form (Li et al. 2017, section 3); metres, y up, z out of the face.

    v_template (V,3): mean vertices.  triangles (F,3): counter-clockwise from outside.
    shape_basis (V,3,S), expression_basis (V,3,E): displacement per coefficient of 1.
    joint_regressor (J,V): joints from shaped vertices.  parents (J,): -1 for the root, else an earlier joint.
    skinning_weights (V,J): rows sum to 1.  Joint order: root, neck, jaw, left eye, right eye.
    pose_basis (V,3,9(J-1)) or None: displacement per entry of R_j - I, joints 1..J-1, row-major.
    uv (T,2) in [0,1], v up, with uv_triangles (F,3); texture_mean (H,W,3) RGB in [0,1], display-coded, row 0
        at v = 1, with texture_basis (H,W,3,A), one standard deviation per component; or None.
    landmark_triangles (68,), landmark_barycentric (68,3): iBUG order, frontal contour; or None.
    contour_triangles (79,17), contour_barycentric (79,17,3): contour by yaw, rows as in
        `facegpt.head.landmarks.contour_row`; or None.
    dense_triangles (N,), dense_barycentric (N,3): any number of further landmarks, with dense_names, such as
        "lips_outer_3"; or None. Files written before these existed are read as heads without them.
    regions: name -> bool (V,).
    metadata: free text such as name, licence, source; units is "metres".

    Float arrays become float32 and index arrays int64. Raises HeadFileError when arrays do not fit together.
    """

    v_template: np.ndarray
    triangles: np.ndarray
    shape_basis: np.ndarray
    expression_basis: np.ndarray
    joint_regressor: np.ndarray
    parents: np.ndarray
    skinning_weights: np.ndarray
    pose_basis: np.ndarray | None = None
    uv: np.ndarray | None = None
    uv_triangles: np.ndarray | None = None
    texture_mean: np.ndarray | None = None
    texture_basis: np.ndarray | None = None
    landmark_triangles: np.ndarray | None = None
    landmark_barycentric: np.ndarray | None = None
    contour_triangles: np.ndarray | None = None
    contour_barycentric: np.ndarray | None = None
    dense_triangles: np.ndarray | None = None
    dense_barycentric: np.ndarray | None = None
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    shape_names: list[str] = field(default_factory=list)
    expression_names: list[str] = field(default_factory=list)
    albedo_names: list[str] = field(default_factory=list)
    dense_names: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in self._optional_arrays().items():
            if array is not None:
                dtype = np.int64 if name in INTEGERS else np.float32
                setattr(self, name, np.ascontiguousarray(array, dtype=dtype))
        self.regions = {name: np.ascontiguousarray(mask, dtype=bool) for name, mask in self.regions.items()}
        self.metadata = {"units": "metres", **self.metadata}
        _check_shapes(self)
        _check_values(self)
        albedo = 0 if self.texture_basis is None else self.texture_basis.shape[3]
        sizes = (self.shape_basis.shape[2], self.expression_basis.shape[2], albedo)
        for name, size in zip(NAMES, sizes, strict=True):
            if not getattr(self, name):
                setattr(self, name, [f"{name.removesuffix('_names')} {k + 1}" for k in range(size)])
            count = len(getattr(self, name))
            _require(count == size, f"{name} has {count} entries for {size} components")
        points = 0 if self.dense_triangles is None else len(self.dense_triangles)
        self.dense_names = self.dense_names or [f"dense {k + 1}" for k in range(points)]
        count = len(self.dense_names)
        _require(count == points, f"dense_names has {count} entries for {points} landmarks")

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array that is present, by name; region masks as "regions/NAME"."""
        arrays = {name: array for name, array in self._optional_arrays().items() if array is not None}
        return arrays | {REGION_PREFIX + name: mask for name, mask in self.regions.items()}

    def _optional_arrays(self) -> dict[str, np.ndarray | None]:
        skip = {*NAMES, "dense_names", "regions", "metadata"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}


def save_head(data: HeadData, path: str | Path) -> None:
    """Write a head file, .npz or .safetensors by its suffix; every array exactly as it is.

    Raises HeadFileError for another suffix.
    """
    path = Path(path)
    _check_suffix(path)
    names = {name: getattr(data, name) for name in (*NAMES, "dense_names")}
    text = json.dumps(names | {"metadata": data.metadata})
    with atomic_path(path) as temporary:
        if path.suffix == ".npz":
            arrays: dict[str, Any] = data.arrays() | {"header": np.array(text)}
            with open(temporary, "wb") as file:  # an open file, because savez appends ".npz" to names
                np.savez(file, **arrays)
        else:
            safetensors.numpy.save_file(data.arrays(), temporary, metadata={"header": text})


def load_head_data(path: str | Path) -> HeadData:
    """Read a head file written by `save_head`. Nothing in it is unpickled.

    Raises HeadFileError when the file is missing, is not such a file, would take more than 2 GiB at 8 bytes a
    number, or its arrays do not fit together.
    """
    path = Path(path)
    _check_suffix(path)
    if not path.is_file():
        raise HeadFileError(f"the head file {path} does not exist")
    try:
        arrays, text = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
        header = json.loads(text)
        names = {name: header[name] for name in NAMES} | {"dense_names": header.get("dense_names", [])}
        regions = {k.removeprefix(REGION_PREFIX): v for k, v in arrays.items() if k.startswith(REGION_PREFIX)}
        plain = {k: v for k, v in arrays.items() if not k.startswith(REGION_PREFIX)}
        members: dict[str, Any] = plain | names | {"regions": regions, "metadata": header["metadata"]}
        return HeadData(**members)
    except HeadFileError as error:
        raise HeadFileError(f"{path}: {error}") from error
    except (*ERRORS, AttributeError, RecursionError, safetensors.SafetensorError) as error:
        raise HeadFileError(
            f"{path} is not a facegpt head file ({error}); save one with save_head"
        ) from error


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], str]:
    arrays = read_npz(path, MAX_FILE_BYTES)
    return arrays, str(arrays.pop("header"))


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], str]:
    with safetensors.safe_open(path, framework="numpy") as file:
        sizes = [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
        check_unpacked(sum(sizes) * WIDEST, MAX_FILE_BYTES)
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        return arrays, (file.metadata() or {})["header"]


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".npz", ".safetensors"):
        raise HeadFileError(f"{path}: a head file ends in .npz or .safetensors")


def _require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise HeadFileError(f"unusable head: {message}")


def _check_shapes(data: HeadData) -> None:
    """Every array against the sizes V, F, J, H, W that the first ones set."""
    for name, ndim, least in (("v_template", 2, 1), ("triangles", 2, 0), ("parents", 1, 1)):
        shape = getattr(data, name).shape
        _require(len(shape) == ndim and shape[0] >= least, f"{name} has shape {shape}")
    if data.texture_mean is not None:
        _require(data.texture_mean.ndim == 3 and data.texture_mean.size > 0, "texture_mean has no texels")
    vertices, triangles, joints = len(data.v_template), len(data.triangles), len(data.parents)
    texels = (None, None) if data.texture_mean is None else data.texture_mean.shape[:2]
    wanted: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertices, 3),
        "triangles": (triangles, 3),
        "shape_basis": (vertices, 3, None),
        "expression_basis": (vertices, 3, None),
        "pose_basis": (vertices, 3, 9 * (joints - 1)),
        "joint_regressor": (joints, vertices),
        "parents": (joints,),
        "skinning_weights": (vertices, joints),
        "uv": (None, 2),
        "uv_triangles": (triangles, 3),
        "texture_mean": (None, None, 3),
        "texture_basis": (*texels, 3, None),
        "landmark_triangles": (LANDMARKS,),
        "landmark_barycentric": (LANDMARKS, 3),
        "contour_triangles": (CONTOUR_ROWS, CONTOUR),
        "contour_barycentric": (CONTOUR_ROWS, CONTOUR, 3),
        "dense_triangles": (None,),
        "dense_barycentric": (None if data.dense_triangles is None else len(data.dense_triangles), 3),
    }
    for name, array in data.arrays().items():
        shape = wanted.get(name, (vertices,))  # region masks are (V,)
        fits = array.ndim == len(shape) and all(
            w in (None, n) for w, n in zip(shape, array.shape, strict=True)
        )
        _require(fits, f"{name} has shape {array.shape}, not {shape}".replace("None", "any"))


def _check_values(data: HeadData) -> None:
    """Finite numbers, indices in range, a joint tree, weights that sum to 1, no array without its partner."""
    for name, array in data.arrays().items():
        _require(
            array.dtype.kind != "f" or np.isfinite(array).all(), f"{name} has values that are not finite"
        )
    inside = data.uv is None or data.uv.size == 0 or abs(data.uv).max() <= MAX_UV
    _require(inside, f"uv has values beyond {MAX_UV:g}; texture coordinates lie in [0, 1]")
    pairs = [("uv", "uv_triangles"), ("texture_mean", "uv"), ("texture_basis", "texture_mean")]
    pairs += [(f"{x}_triangles", f"{x}_barycentric") for x in ("landmark", "contour", "dense")]
    pairs += [(f"{x}_barycentric", f"{x}_triangles") for x in ("landmark", "contour", "dense")]
    pairs += [("uv_triangles", "uv"), ("contour_triangles", "landmark_triangles")]
    for name, needed in pairs:
        complete = getattr(data, name) is None or getattr(data, needed) is not None
        _require(complete, f"{name} is there but {needed} is missing")
    limits = {
        name: len(data.triangles) for name in ("landmark_triangles", "contour_triangles", "dense_triangles")
    }
    limits |= {"triangles": len(data.v_template), "uv_triangles": 0 if data.uv is None else len(data.uv)}
    for name, limit in limits.items():
        index = getattr(data, name)
        inside = index is None or index.size == 0 or (index.min() >= 0 and index.max() < limit)
        _require(inside, f"{name} points outside 0..{limit - 1}")
    tree = data.parents[0] == -1 and all(
        0 <= parent < joint for joint, parent in enumerate(data.parents) if joint
    )
    _require(tree, f"parents {data.parents.tolist()} must be -1 and then earlier joints")
    _require(
        np.allclose(data.skinning_weights.sum(1), 1, atol=1e-3), "rows of skinning_weights must sum to 1"
    )

"""Reading FLAME's own files: the model pickle and what lies beside it.

FLAME 2020, 2023 and 2023 Open share their arrays (v_template, f, shapedirs, posedirs, weights, J_regressor,
kintree_table). Landmarks, texture, masks and texture coordinates are separate downloads and
optional. None of these files is part of facegpt.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facegpt.errors import HeadFileError
from facegpt.head.files.flame_landmarks import LANDMARK_FILES, read_embedding
from facegpt.head.files.flame_texture import TEXTURE_FILES, read_texture
from facegpt.head.files.format import HeadData
from facegpt.head.files.unpickle import read_pickle, to_array

RELEASES = {
    "efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b": "FLAME 2020",
    "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0": "FLAME 2023",
    "e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623": "FLAME 2023 Open",
}
MODEL_AXES = {
    "v_template": 2,
    "f": 2,
    "shapedirs": 3,
    "posedirs": 3,
    "weights": 2,
    "J_regressor": 2,
    "kintree_table": 2,
}
OPEN_KEY = "supr_expression_metadata"
EXPRESSION_COLUMNS = 100  # the last columns of shapedirs; the ones before them are identity
MASKS, TEMPLATE = "FLAME_masks.pkl", "head_template.obj"
VERTICES, LEFT_EYE, RIGHT_EYE = 5023, slice(3931, 4477), slice(4477, 5023)  # FLAME's topology


@dataclass(frozen=True)
class FlameOptions:
    """How much of FLAME to read, and where its optional files are.

    shape, expression, albedo: numbers of leading components (DECA's 100, 50, 50 by default).
    texture_size: texels per side; the 512 of the file are averaged down to it.
    landmarks, texture, masks, template: files of other names or places; by default those beside the model,
        each where it exists: LANDMARK_FILES, TEXTURE_FILES (the first found of each), FLAME_masks.pkl and
        head_template.obj.
    """

    shape: int = 100
    expression: int = 50
    albedo: int = 50
    texture_size: int = 256
    landmarks: str | Path | None = None
    texture: str | Path | None = None
    masks: str | Path | None = None
    template: str | Path | None = None


def load_flame(path: str | Path, options: FlameOptions | None = None) -> HeadData:
    """Read a FLAME model pickle and its optional companions.

    Nothing in the pickles is run (`facegpt.head.files.unpickle`). Without a texture the head has no albedo
    components, without an embedding no landmarks.
    Raises HeadFileError when a file is missing, broken, hostile or not FLAME's, or has too few components.
    """
    path, options = Path(path), options or FlameOptions()
    model = read_pickle(path)
    missing = [key for key in MODEL_AXES if not isinstance(model, dict) or key not in model]
    if missing:
        raise HeadFileError(f"{path} is not a FLAME model: it has no {', '.join(missing)}")
    array = {key: to_array(model[key], f"{path}: {key}") for key in MODEL_AXES}
    for key, axes in MODEL_AXES.items():
        if array[key].ndim != axes or array[key].size == 0:
            raise HeadFileError(f"{path}: {key} has shape {array[key].shape}, not {axes} axes with numbers")
    identity, expression = _split_shapedirs(model, array["shapedirs"], options, path)
    parents = array["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # the file has 2^32 - 1 there
    triangles = array["f"].astype(np.int64)
    parts: dict[str, Any] = {}
    if landmarks := _companion(path, options.landmarks, *LANDMARK_FILES):
        parts |= read_embedding(landmarks)
    if template := _companion(path, options.template, TEMPLATE):
        parts |= read_template(template, triangles)
    if texture := _companion(path, options.texture, *TEXTURE_FILES):
        parts |= read_texture(texture, options.albedo, options.texture_size, with_uv="uv" not in parts)
    masks = _companion(path, options.masks, MASKS)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known = "FLAME 2023 Open" if OPEN_KEY in model else "FLAME (unknown release)"
    try:
        return HeadData(
            v_template=array["v_template"],
            triangles=triangles,
            shape_basis=identity,
            expression_basis=expression,
            pose_basis=array["posedirs"],
            joint_regressor=array["J_regressor"],
            parents=parents,
            skinning_weights=array["weights"],
            regions=_regions(masks, len(array["v_template"])),
            metadata={
                "name": RELEASES.get(sha256, known),
                "source": path.name,
                "sha256": sha256,
                "licence": "FLAME's, as accepted at its download; not to be passed on with facegpt",
            },
            **parts,
        )
    except HeadFileError as error:
        raise HeadFileError(f"{path}: {error}") from error


def _split_shapedirs(
    model: dict[str, Any], basis: np.ndarray, options: FlameOptions, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Identity (V,3,S) and expression (V,3,E) columns; Open says how many columns are expression."""
    count = EXPRESSION_COLUMNS
    if isinstance(about := model.get(OPEN_KEY), dict):
        stated = to_array(about.get("n_expr", count), f"{path}: {OPEN_KEY}")
        if stated.size != 1 or not 0 <= stated.item() <= basis.shape[-1]:
            raise HeadFileError(f"{path}: {OPEN_KEY} states no number of expression components")
        count = int(stated.item())
    identity, expression = np.split(basis, [max(basis.shape[-1] - count, 0)], axis=-1)
    for name, wanted, there in (
        ("shape", options.shape, identity.shape[-1]),
        ("expression", options.expression, expression.shape[-1]),
    ):
        if wanted > there:
            raise HeadFileError(f"{path} has {there} {name} components, {wanted} were asked for")
    return identity[..., : options.shape], expression[..., : options.expression]


def read_template(path: str | Path, triangles: np.ndarray) -> dict[str, np.ndarray]:
    """uv and uv_triangles from head_template.obj; its vertices are an older template and are not read.

    Raises HeadFileError when its faces are not `triangles`.
    """
    uv, corners = [], []
    try:
        for line in Path(path).read_text(encoding="latin1").splitlines():
            kind, *words = line.split() or [""]
            if kind == "vt":
                uv.append([float(words[0]), float(words[1])])
            elif kind == "f":
                corners.append([[int(x) - 1 for x in word.split("/")[:2]] for word in words])
        faces = np.array(corners, dtype=np.int64)  # (F, 3, 2): vertex, texture vertex
    except (ValueError, IndexError) as error:
        raise HeadFileError(
            f"{path} is not a triangulated OBJ file with texture coordinates ({error})"
        ) from error
    if faces.shape != (*triangles.shape, 2) or (faces[..., 0] != triangles).any():
        raise HeadFileError(f"the faces of {path} are not those of the model; use FLAME's {TEMPLATE}")
    return {"uv": np.array(uv), "uv_triangles": faces[..., 1]}


def _regions(path: Path | None, vertices: int) -> dict[str, np.ndarray]:
    """Region masks (V,) of FLAME_masks.pkl, plus "eyes" and "ears"; without it, the eyes by vertex number."""
    indices: dict[str, Any] = {}
    if path is not None:
        masks = read_pickle(path)
        if not isinstance(masks, dict):
            raise HeadFileError(f"{path} is not FLAME_masks.pkl: it holds no dictionary")
        indices = {str(name): to_array(ids, f"{path}: {name}") for name, ids in masks.items()}
    elif vertices == VERTICES:
        indices = {"left_eyeball": np.r_[LEFT_EYE], "right_eyeball": np.r_[RIGHT_EYE]}
    regions = {}
    for name, ids in indices.items():
        if ids.dtype.kind not in "iu" or (ids.size and (ids.min() < 0 or ids.max() >= vertices)):
            raise HeadFileError(f"{path}: {name} does not hold vertex numbers of a mesh of {vertices}")
        regions[name] = np.isin(np.arange(vertices), ids)
    for name, parts in (("eyes", ("left_eyeball", "right_eyeball")), ("ears", ("left_ear", "right_ear"))):
        if all(part in regions for part in parts):
            regions.setdefault(name, regions[parts[0]] | regions[parts[1]])
    return regions


def _companion(model: Path, given: str | Path | None, *usual: str) -> Path | None:
    """The file that was given, else the first of the usual names that lies beside the model."""
    if given is not None:
        if not Path(given).is_file():
            raise HeadFileError(f"the file {given} does not exist")
        return Path(given)
    beside = [model.parent / name for name in usual]
    return next((path for path in beside if path.is_file()), None)

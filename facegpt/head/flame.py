"""Reading FLAME's own files: the model pickle and what lies beside it.

FLAME 2020, 2023 and 2023 Open share their arrays (v_template, f, shapedirs, posedirs, weights, J_regressor,
kintree_table). Landmarks, texture, masks and texture coordinates are separate downloads and
optional. None of these files is part of facegpt.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facegpt.errors import HeadFileError
from facegpt.head.format import MAX_FILE_BYTES, HeadData
from facegpt.head.unpickle import read_pickle, to_array

RELEASES = {
    "efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b": "FLAME 2020",
    "8fb1af0db1abb51053ead8fd1f2624a63d01c9602f4a4fb4ea23bd2c82017fa0": "FLAME 2023",
    "e75a0990728ba038c7da2a420ae4396f7ddd7781366c13026066c5b24f127623": "FLAME 2023 Open",
}
MODEL_KEYS = ("v_template", "f", "shapedirs", "posedirs", "weights", "J_regressor", "kintree_table")
OPEN_KEY = "supr_expression_metadata"
EXPRESSION_COLUMNS = 100  # the last columns of shapedirs; the ones before them are identity
LANDMARKS, TEXTURE, MASKS, TEMPLATE = (
    "landmark_embedding.npy",
    "FLAME_texture.npz",
    "FLAME_masks.pkl",
    "head_template.obj",
)
VERTICES, LEFT_EYE, RIGHT_EYE = 5023, slice(3931, 4477), slice(4477, 5023)  # FLAME's topology


@dataclass(frozen=True)
class FlameOptions:
    """How much of FLAME to read, and where its optional files are.

    shape, expression, albedo: numbers of leading components (DECA's 100, 50, 50 by default).
    texture_size: texels per side; the 512 of the file are averaged down to it.
    landmarks, texture, masks, template: files of other names or places; by default landmark_embedding.npy,
        FLAME_texture.npz, FLAME_masks.pkl and head_template.obj beside the model, each where it exists.
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

    Nothing in the pickles is run (`facegpt.head.unpickle`). Without a texture the head has no albedo
    components, without an embedding no landmarks.
    Raises HeadFileError when a file is missing, broken, hostile or not FLAME's, or has too few components.
    """
    path, options = Path(path), options or FlameOptions()
    model = read_pickle(path)
    missing = [key for key in MODEL_KEYS if not isinstance(model, dict) or key not in model]
    if missing:
        raise HeadFileError(f"{path} is not a FLAME model: it has no {', '.join(missing)}")
    array = {key: to_array(model[key], f"{path}: {key}") for key in MODEL_KEYS}
    identity, expression = _split_shapedirs(model, array["shapedirs"], options, path)
    parents = array["kintree_table"][0].astype(np.int64)
    parents[0] = -1  # the file has 2^32 - 1 there
    triangles = array["f"].astype(np.int64)
    parts: dict[str, Any] = {}
    if landmarks := _companion(path, options.landmarks, LANDMARKS):
        parts |= read_landmarks(landmarks)
    if template := _companion(path, options.template, TEMPLATE):
        parts |= read_template(template, triangles)
    if texture := _companion(path, options.texture, TEXTURE):
        parts |= read_texture(texture, options.albedo, options.texture_size, own_uv="uv" not in parts)
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
        count = int(to_array(about.get("n_expr", count), f"{path}: {OPEN_KEY}"))
    identity, expression = np.split(basis, [max(basis.shape[-1] - count, 0)], axis=-1)
    for name, wanted, there in (
        ("shape", options.shape, identity.shape[-1]),
        ("expression", options.expression, expression.shape[-1]),
    ):
        if wanted > there:
            raise HeadFileError(f"{path} has {there} {name} components, {wanted} were asked for")
    return identity[..., : options.shape], expression[..., : options.expression]


def read_landmarks(path: str | Path) -> dict[str, np.ndarray]:
    """The landmark arrays of HeadData from landmark_embedding.npy, a pickled dictionary with torch tensors.

    Raises HeadFileError when it is missing, hostile or something else.
    """
    embedding = read_pickle(path)

    def get(key: str, *shape: int) -> np.ndarray:
        if not isinstance(embedding, dict) or key not in embedding:
            raise HeadFileError(f"{path} is not FLAME's landmark_embedding.npy: it has no {key}")
        array = to_array(embedding[key], f"{path}: {key}")
        if array.size != np.prod(shape):
            raise HeadFileError(f"{path}: {key} has shape {array.shape}, not {shape}")
        return array.reshape(shape)

    return {
        "landmark_triangles": get("full_lmk_faces_idx", 68),
        "landmark_barycentric": get("full_lmk_bary_coords", 68, 3),
        "contour_triangles": get("dynamic_lmk_faces_idx", 79, 17),
        "contour_barycentric": get("dynamic_lmk_bary_coords", 79, 17, 3),
    }


def read_texture(path: str | Path, components: int, size: int, own_uv: bool) -> dict[str, np.ndarray]:
    """The texture arrays of HeadData from FLAME_texture.npz or FLAME_albedo_from_BFM.npz.

    Both are BGR, the first 0..255, the second 0..1. The texture is averaged down to size x size texels;
    `own_uv` takes the texture coordinates from this file.
    Raises HeadFileError when it is broken or has fewer components, or when size does not divide its side.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_FILE_BYTES:
            raise HeadFileError(f"{path} would take {unpacked} bytes unpacked")
        with np.load(path, allow_pickle=False) as file:
            if "specMU" in file:
                raise HeadFileError(
                    f"{path} is a linear albedo model with specular parts; facegpt needs FLAME_texture.npz"
                )
            mean_key, basis_key, white = ("mean", "tex_dir", 255) if "mean" in file else ("MU", "PC", 1)
            mean, basis = file[mean_key], file[basis_key]
            uv = {"uv": file["vt"], "uv_triangles": file["ft"]} if own_uv and "vt" in file else {}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise HeadFileError(f"{path} is not a FLAME texture ({error})") from error
    if own_uv and not uv:
        raise HeadFileError(f"{path} has no texture coordinates; put {TEMPLATE} beside the model")
    side = round((mean.size / 3) ** 0.5)
    if basis.shape[-1] < components or mean.size != 3 * side**2 or basis.size != mean.size * basis.shape[-1]:
        raise HeadFileError(
            f"{path}: mean {mean.shape} and basis {basis.shape} do not give {components} components"
        )
    if side % (size := min(size, side)):
        raise HeadFileError(
            f"{path}: a texture of {side} cannot be averaged to {size}; choose a divisor of {side}"
        )

    def convert(texels: np.ndarray) -> np.ndarray:  # -> (size, size, 3, columns), RGB
        step = side // size
        blocks = texels.reshape(size, step, size, step, 3, -1).astype(np.float32).mean((1, 3))
        return blocks[:, :, ::-1] / white

    return {"texture_mean": convert(mean)[..., 0], "texture_basis": convert(basis[..., :components]), **uv}


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


def _companion(model: Path, given: str | Path | None, usual: str) -> Path | None:
    """The file that was given, else the one of the usual name beside the model where there is one."""
    path = model.parent / usual if given is None else Path(given)
    if path.is_file():
        return path
    if given is not None:
        raise HeadFileError(f"the file {path} does not exist")
    return None

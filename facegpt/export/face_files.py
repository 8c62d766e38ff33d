"""Files of face parameters: the .json of one face, as `facegpt chat` writes it, and .npz for many faces."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facegpt.errors import HeadFileError, SampleError
from facegpt.export.coefficients import named_coefficients
from facegpt.files import atomic_path, write_json
from facegpt.head.files.npz import ERRORS, read_npz
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters, ParameterLayout

MAX_BYTES = 1 << 30  # of an archive, packed and unpacked: a million faces
MAX_JSON_BYTES = 1 << 24  # of one face, which has some 20 kB; parsed it takes ten times as much
GROUPS = tuple(ParameterLayout(neck=True, eyes=True).sizes)
OPTIONAL = ("neck", "eyes")


@dataclass
class FaceFile:
    """Face parameters and the id of the head they belong to, None where the file does not say."""

    parameters: FaceParameters
    head_id: str | None


def read_faces(path: str | Path) -> FaceFile:
    """Read a .json of one face, as `facegpt chat` writes it, or a .npz with one array (B,n) per group.

    Raises SampleError when the file is missing, broken, larger than `MAX_JSON_BYTES` or `MAX_BYTES`, lacks a
    group or holds numbers that are not finite in float32.
    """
    path = Path(path)
    if not path.is_file():
        raise SampleError(f"there is no file of face parameters {path}")
    if path.suffix not in (".json", ".npz"):
        raise SampleError(f"{path} is not a file of face parameters; they end in .json or .npz")
    limit = MAX_JSON_BYTES if path.suffix == ".json" else MAX_BYTES
    if path.stat().st_size > limit:
        raise SampleError(f"{path} is larger than {limit} bytes, which no such file of face parameters is")
    try:
        groups, head_id = _read_json(path) if path.suffix == ".json" else _read_npz(path)
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as infinite below
            tensors = {
                name: torch.tensor(np.asarray(values, dtype=np.float32)) for name, values in groups.items()
            }
    except (*ERRORS, HeadFileError, AttributeError, RecursionError, OverflowError) as error:
        raise SampleError(f"{path} is not a file of face parameters ({error!r})") from error
    missing = [name for name in GROUPS if name not in tensors and name not in OPTIONAL]
    if missing:
        raise SampleError(f"{path} holds no {', '.join(missing)}; it must have every group of a face")
    fixed = ParameterLayout(neck=True, eyes=True).sizes
    for name, values in tensors.items():
        free = name in ("shape", "expression", "albedo")
        if (
            values.ndim != 2
            or len(values) != len(tensors["pose"])
            or (not free and values.shape[1] != fixed[name])
        ):
            raise SampleError(f"{path}: {name} has shape {tuple(values.shape)}, which no faces have")
        if not values.isfinite().all():
            raise SampleError(f"{path}: {name} has values that are not finite")
    return FaceFile(FaceParameters(**tensors), head_id)


def write_faces(
    path: str | Path, parameters: FaceParameters, head: HeadModel, about: dict[str, Any] | None = None
) -> None:
    """Write what `read_faces` reads: .json for one face, with `about` beside its coefficients, or .npz.

    Raises SampleError for another suffix, and for several faces in a .json.
    """
    path = Path(path)
    if path.suffix == ".json" and len(parameters) == 1:
        rows = named_coefficients(parameters, head)
        write_json(path, {"head_id": head.id, **(about or {}), "coefficients": rows})
    elif path.suffix == ".npz":
        arrays = {name: getattr(parameters, name).detach().cpu().numpy() for name in parameters.layout.sizes}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, head_id=np.array(head.id), **arrays)
    else:
        raise SampleError(f"{path} cannot hold {len(parameters)} faces; use .npz, or .json for one face")


def _read_json(path: Path) -> tuple[dict[str, Any], str | None]:
    content = json.loads(path.read_text(encoding="utf-8"))
    groups: dict[str, list[list[float]]] = {}
    for row in content["coefficients"]:
        if row["group"] not in GROUPS:
            raise ValueError(f"unknown group {row['group']}")
        groups.setdefault(row["group"], [[]])[0].append(float(row["value"]))
    # a head without albedo model has no such rows
    for name in ("shape", "albedo", "expression"):
        groups.setdefault(name, [[]])
    head_id = content.get("head_id") or content.get("head", {}).get("id")
    if not isinstance(head_id, str | None):
        raise ValueError(f"the head's id is {head_id!r}")
    return groups, head_id


def _read_npz(path: Path) -> tuple[dict[str, Any], str | None]:
    arrays = read_npz(path, MAX_BYTES)
    groups = {name: arrays[name] for name in GROUPS if name in arrays}
    return groups, str(arrays["head_id"]) if "head_id" in arrays else None

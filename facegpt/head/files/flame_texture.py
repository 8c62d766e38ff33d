"""Texture models for FLAME: FLAME_texture.npz, FLAME_albedo_from_BFM.npz, AlbedoMM's albedoModel2020.

The first two store blue first (they were written for OpenCV). They are display-coded; AlbedoMM (Smith et al.
2020) holds linear reflectance, diffuse and specular. facegpt's albedo is display-coded RGB in [0,1], so the
diffuse part is coded as sRGB and its components by the slope of that curve at the mean; the specular part is
not used.

A texture model of 512 x 512 texels and 200 components takes 0.6 to 1.3 GB. It is read row by row, averaged
down and cut to the wanted components on the way, so that memory holds only what is kept.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facegpt.errors import HeadFileError
from facegpt.head.files.npz import ERRORS, array_names, open_array

TEXTURE_FILES = (
    "FLAME_texture.npz",
    "albedoModel2020_FLAME_albedoPart.npz",
    "FLAME_albedo_from_BFM.npz",
)
MAX_UNPACKED = 2 << 30  # bytes of one array, at 8 bytes a number; the largest known has 1.26e9


@dataclass(frozen=True)
class _Format:
    """Keys of mean and basis, the value of white, and whether values are linear reflectance."""

    mean: str
    basis: str
    white: float = 1.0
    linear: bool = False


def read_texture(path: str | Path, components: int, size: int, with_uv: bool) -> dict[str, np.ndarray]:
    """The texture arrays of HeadData: texture_mean (size,size,3), texture_basis (size,size,3,components).

    The texture is averaged down to size x size texels; `with_uv` takes the file's texture coordinates too.
    Raises HeadFileError when it is broken, declares more than it should hold, has fewer components, or when
    size does not divide its side.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            kind = _format(set(array_names(archive)))
            side = _check(archive, kind, components)
            size = min(size, side)
            if side % size:
                raise HeadFileError(
                    f"a texture of {side} cannot be averaged to {size}; choose a divisor of {side}"
                )
            uv = {}
            if with_uv and {"vt", "ft"} <= set(array_names(archive)):
                for name, key in (("uv", "vt"), ("uv_triangles", "ft")):
                    with open_array(archive, key, MAX_UNPACKED) as array:
                        uv[name] = array.read()
            mean = _small(archive, kind.mean, side, size, 1)[..., 0]
            basis = _small(archive, kind.basis, side, size, components)
    except HeadFileError as error:
        raise HeadFileError(f"{path}: {error}") from error
    except ERRORS as error:
        raise HeadFileError(f"{path} is not a FLAME texture ({error})") from error
    if with_uv and not uv:
        raise HeadFileError(f"{path} has no texture coordinates; put head_template.obj beside the model")
    if not kind.linear or mean[..., 0].mean() < mean[..., 2].mean():
        # blue first; of AlbedoMM that is not documented, but no skin is bluer than it is red
        mean, basis = mean[:, :, ::-1], basis[:, :, ::-1]
    if kind.linear:
        basis = basis * srgb_slope(mean)[..., None]
        mean = srgb(mean)
    white = np.float32(kind.white)
    return {"texture_mean": mean / white, "texture_basis": basis / white, **uv}


def srgb(linear: np.ndarray) -> np.ndarray:
    """Display-coded values of linear ones (IEC 61966-2-1); negative ones count as 0."""
    x = np.maximum(linear, 0)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(linear.dtype)


def srgb_slope(linear: np.ndarray) -> np.ndarray:
    """Derivative of `srgb`."""
    x = np.maximum(linear, 0.0031308)
    return np.where(linear <= 0.0031308, 12.92, 1.055 / 2.4 * x ** (1 / 2.4 - 1)).astype(linear.dtype)


def _format(names: set[str]) -> _Format:
    if {"mean", "tex_dir"} <= names:
        return _Format("mean", "tex_dir", white=255)
    if {"MU", "PC"} <= names:
        return _Format("MU", "PC", linear="specMU" in names)
    found = ", ".join(sorted(names)[:8]) or "nothing"
    raise HeadFileError(f"not a FLAME texture: it holds {found}, not mean and tex_dir or MU and PC")


def _check(archive: zipfile.ZipFile, kind: _Format, components: int) -> int:
    """Texels per side, from the headers alone."""
    with open_array(archive, kind.mean, MAX_UNPACKED) as array:
        mean = array.shape
    with open_array(archive, kind.basis, MAX_UNPACKED) as array:
        basis = array.shape
    side = math.isqrt(math.prod(mean) // 3)
    texels = 3 * side**2
    if not (0 < texels == math.prod(mean)) or len(basis) < 2 or basis[-1] < components:
        raise HeadFileError(f"mean {mean} and basis {basis} do not give {components} components")
    if math.prod(basis) != texels * basis[-1]:
        raise HeadFileError(f"mean {mean} and basis {basis} do not give {components} components")
    return side


def _small(archive: zipfile.ZipFile, key: str, side: int, size: int, columns: int) -> np.ndarray:
    """(size, size, 3, columns) float32: blocks averaged, the first components, channels as stored."""
    step, texels = side // size, 3 * side**2
    small = np.empty((size, size, 3, columns), np.float32)
    with open_array(archive, key, MAX_UNPACKED) as array:
        total = math.prod(array.shape) // texels
        if array.column_major:  # one component after the other, within it the first axis fastest
            leading = array.shape if math.prod(array.shape) == texels else array.shape[:-1]
            flat = array.take(texels * columns).astype(np.float32)
            rows = flat.reshape((*leading, columns), order="F").reshape(size, step, size, step, 3, columns)
            return np.ascontiguousarray(rows.mean((1, 3)))
        for number in range(size):
            row = array.take(step * side * 3 * total).reshape(step, size, step, 3, total)[..., :columns]
            small[number] = row.astype(np.float32).mean((0, 2))
    return small

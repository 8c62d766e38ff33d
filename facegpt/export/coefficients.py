"""Names and units for every number of a parameter vector, so that files of faces explain themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from facegpt.head.parameters import FaceParameters

if TYPE_CHECKING:
    from facegpt.head.model import HeadModel

_AXES = ("x", "y", "z")
_ROTATION = "radians, axis-angle"
_UNITS = {
    "shape": "standard deviations",
    "albedo": "standard deviations",
    "expression": "0 = absent, 1 = full",
    "pose": _ROTATION,
    "lighting": "coefficient of DECA's spherical harmonics",
    "neck": _ROTATION,
    "eyes": _ROTATION,
}
_FIXED_NAMES = {
    "pose": [f"{part}_{axis}" for part in ("head", "jaw") for axis in _AXES],
    "camera": ["scale", "translation_x", "translation_y"],
    "lighting": [f"band{band}_{color}" for band in range(9) for color in ("red", "green", "blue")],
    "neck": [f"neck_{axis}" for axis in _AXES],
    "eyes": [f"{side}_eye_{axis}" for side in ("left", "right") for axis in _AXES],
}
_CAMERA_UNITS = ("image half-widths per metre", "metres", "metres")


def named_coefficients(parameters: FaceParameters, head: HeadModel) -> list[dict[str, Any]]:
    """One row {"index", "group", "name", "unit", "value"} per number of one face, in vector order.

    Neck and eyes are named where the parameters have them. Raises ValueError when `parameters` holds more
    than one face or is not of the head's sizes.
    """
    if len(parameters) != 1:
        raise ValueError(f"coefficients are named for one face at a time, got {len(parameters)}")
    layout = parameters.layout
    if replace(layout, neck=False, eyes=False) != replace(head.layout, neck=False, eyes=False):
        raise ValueError(f"the parameters have layout {layout}, the head has {head.layout}")
    head_names = {
        "shape": head.shape_names,
        "expression": head.expression_names,
        "albedo": head.albedo_names,
    }
    vector = parameters.to_vector()[0].tolist()
    rows: list[dict[str, Any]] = []
    for group, size in layout.sizes.items():
        names = _FIXED_NAMES.get(group) or _numbered(group, head_names[group], size)
        units = _CAMERA_UNITS if group == "camera" else (_UNITS[group],) * size
        for name, unit in zip(names, units, strict=True):
            index = len(rows)
            rows.append({"index": index, "group": group, "name": name, "unit": unit, "value": vector[index]})
    return rows


def _numbered(group: str, names: list[str], size: int) -> list[str]:
    """The head's own names where it has them; FLAME's components are only numbered."""
    return [names[i] if i < len(names) and names[i] else f"{group}_{i}" for i in range(size)]

"""Generated faces against true ones as surfaces: distances in millimetres after alignment.

Head rotation is set to zero on both sides, as it is known; the face region of the head is cut out; the
prediction is aligned with the truth by rigid point-to-plane ICP, without scale, for heads are in metres and a
face of the wrong size is a wrong face. `free_scale` frees the scale too, which is what a comparison between
head models of unknown scale has to do.

Shape legend: N faces, V vertices of the face region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from facegpt.evaluation.summary import summary
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.icp import icp
from facegpt.metrics.procrustes import aligned
from facegpt.metrics.surface import MILLIMETERS, chamfer, complete_rate
from facegpt.render.surface import vertex_normals

COMPLETE_MM = 10.0
ICP_STEPS = 30
METRICS = ("chamfer_mm", "complete_rate", "vertex_error_mm")
DEFINITIONS = {
    "chamfer_mm": (
        "mean nearest distance from prediction to truth plus that from truth to prediction, between vertices "
        "of the face region, after rigid point-to-plane ICP without scale; heads are not rotated"
    ),
    "complete_rate": (
        f"percentage of true vertices with a predicted one closer than {COMPLETE_MM:g} mm, as above"
    ),
    "vertex_error_mm": (
        "mean distance of corresponding vertices after the best rigid motion between them (Kabsch 1976), for "
        "heads of one model: what Chamfer and ICP cannot see"
    ),
}


@dataclass(frozen=True)
class FaceSurfaces:
    """vertices, normals (N,V,3) float64: metres and unit, of the face regions of frontal heads."""

    vertices: np.ndarray
    normals: np.ndarray


@torch.no_grad()
def face_surfaces(head: HeadModel, faces: FaceParameters, chunk: int = 32) -> FaceSurfaces:
    """The face regions of N heads with their shape, expression and jaw, and without rotation."""
    pose = faces.pose.clone()
    pose[:, :3] = 0
    frontal = head.mean_parameters(len(faces)).replace(
        shape=faces.shape, expression=faces.expression, pose=pose
    )
    region = head.regions.get("face", slice(None))
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(faces), chunk):
        vertices = head(frontal[slice(start, start + chunk)]).vertices
        normals = vertex_normals(vertices, head.triangles)
        parts.append((vertices[:, region].cpu().double().numpy(), normals[:, region].cpu().double().numpy()))
    return FaceSurfaces(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def surface_errors(
    predicted: np.ndarray, truth: np.ndarray, normals: np.ndarray, free_scale: bool = False
) -> dict[str, float]:
    """`METRICS` of one predicted surface (V,3) in metres, against a true one (V,3) with its unit normals."""
    moved = icp(predicted, truth, normals, free_scale, ICP_STEPS, tolerance=1e-6).apply(predicted)
    return {
        "chamfer_mm": chamfer(moved, truth),
        "complete_rate": complete_rate(moved, truth, COMPLETE_MM),
        "vertex_error_mm": vertex_error(predicted, truth),
    }


def vertex_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance in mm of corresponding points (V,3) after the best rigid motion between them."""
    source, target = torch.from_numpy(predicted)[None], torch.from_numpy(truth)[None]
    moved = aligned(source, target, torch.ones(len(truth), dtype=torch.bool))
    return MILLIMETERS * float((moved - target).norm(dim=2).mean())


def surface_table(
    found: Mapping[str, FaceSurfaces], truth: FaceSurfaces, seed: int, free_scale: bool = False
) -> dict[str, Any]:
    """Name -> metric -> `summary` over N pairs of surfaces; see `DEFINITIONS`."""
    table: dict[str, Any] = {}
    for name, surfaces in found.items():
        pairs = zip(surfaces.vertices, truth.vertices, truth.normals, strict=True)
        errors = [surface_errors(*pair, free_scale) for pair in pairs]
        table[name] = {metric: summary([e[metric] for e in errors], seed) for metric in METRICS}
    return table

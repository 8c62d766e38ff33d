"""What `facegpt fit` writes about one face."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image

from facegpt.commands.fit_photograph import PhotographedFace
from facegpt.export.coefficients import named_coefficients
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.image import landmark_error, photometric_error
from facegpt.render.renderer import render
from facegpt.render.rendering import Rendering
from facegpt.visualize import contact_sheet, draw_landmarks, head_picture, overlay, to_pil

OVERLAY = "overlay.png"
SIDE = math.radians(55)  # by which the head is turned for its pictures from the sides


def write_results(
    folder: Path, head: HeadModel, face: PhotographedFace, fitted: FaceParameters, rigged: bool = False
) -> dict[str, tuple[float, float]]:
    """Write the files of one face into `folder`; returns metric -> (mean face, fitted)."""
    size = face.target.image.shape[-1]
    with torch.no_grad():
        mean, rendering = render(head, head.mean_parameters(), size), render(head, fitted, size)
    errors = _errors(face, mean, rendering)
    sheet = contact_sheet(*_pictures(head, face, fitted, rendering))
    folder.mkdir(parents=True, exist_ok=True)
    export_mesh(head.mesh(fitted), folder / "face.glb")
    if rigged:
        export_rigged_head(head, fitted, folder / "face_rigged.glb")
    with atomic_path(folder / OVERLAY) as path:
        sheet.save(path)
    write_json(
        folder / "parameters.json",
        {
            "image": str(face.image),
            "landmarks": face.origin,
            "head": {"id": head.id, "name": head.data.metadata.get("name", "")},
            "crop": {"size": size, "photo_to_crop": face.matrix.tolist()},
            "errors": {k: {"mean_face": before, "fitted": after} for k, (before, after) in errors.items()},
            "coefficients": named_coefficients(fitted, head),
        },
    )
    return errors


def _errors(face: PhotographedFace, mean: Rendering, fitted: Rendering) -> dict[str, tuple[float, float]]:
    target, valid = face.target, face.valid[None]
    # One mask for both, so that neither is judged where only it has pixels.
    mask = (target.skin_mask * fitted.skin_mask[0])[None]

    def landmarks(shown: Rendering) -> float:
        size = target.image.shape[-1]
        return float(landmark_error(shown.landmarks, target.landmarks[None], size, valid))

    def pixels(shown: Rendering) -> float:
        return float(photometric_error(target.image[None], shown.image, mask))

    return {
        "landmark_error_px": (landmarks(mean), landmarks(fitted)),
        "photometric_error": (pixels(mean), pixels(fitted)),
    }


def _pictures(
    head: HeadModel, face: PhotographedFace, fitted: FaceParameters, rendering: Rendering
) -> tuple[list[list[Image.Image]], list[str]]:
    """Rows and titles of the sheet."""
    target, size = face.target, face.target.image.shape[-1]
    over = overlay(target.image, rendering.image[0], rendering.mask[0])
    upright = fitted.replace(pose=torch.cat([torch.zeros_like(fitted.pose[:, :3]), fitted.pose[:, 3:]], 1))
    sides = [head_picture(head, upright, size, yaw) for yaw in (-SIDE, 0.0, SIDE)]
    row = [
        draw_landmarks(face.crop, target.landmarks[face.valid], (80, 220, 120)),
        draw_landmarks(over, rendering.landmarks[0], (255, 90, 90)),
        to_pil(rendering.image[0]),
        *sides,
    ]
    return [row], ["photograph, landmarks", "overlay", "rendering", "from its left", "head", "from its right"]

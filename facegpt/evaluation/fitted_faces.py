"""What analysis by synthesis makes of a photograph and its landmarks: a yardstick without any network."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from facegpt.data.targets import face_target
from facegpt.fitting.photograph import FIT_WEIGHTS, FitSettings, fit_face
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective
from facegpt.perception.recognizer import Recognizer
from facegpt.sample import FaceRecord

DEFINITION = (
    "the head fitted to each photograph by optimisation, as `facegpt fit` does; it is given the landmarks "
    "and the skin mask of the record, which the model never sees, and compared on its own faces alone"
)


def fitted_faces(
    records: Sequence[FaceRecord],
    head: HeadModel,
    recognizer: Recognizer,
    size: int,
    settings: FitSettings | None = None,
) -> FaceParameters:
    """Parameters (N) of the fits to N records at side `size`; about half a minute each at 224 pixels.

    Raises LandmarkError or ConfigError where `fit_face` does.
    """
    objective = FaceObjective(FIT_WEIGHTS, recognizer, head.layout)
    faces = []
    for record in tqdm(records, desc="fits", unit="face"):
        target = face_target(record, size)
        faces.append(fit_face(head, target, objective, settings, target.landmark_valid))
    return FaceParameters.cat(faces)

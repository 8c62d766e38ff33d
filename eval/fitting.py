"""python eval/fitting.py --data FACES --out FILE.json [without=crooked,color] [n=20]

Fits photographs of synthetic faces as `facegpt fit` does, from the landmarks and blendshapes that MediaPipe's
landmarker finds in them, and compares the parameters with the true ones. `without` names priors to leave out
(crooked, movement, expected, color, brightness, robust), so that each can be shown to help.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from facegpt.commands.fit import weights_and_recognizer
from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.held_out import true_parameters
from facegpt.data.records import read_records
from facegpt.data.targets import face_target
from facegpt.errors import SampleError
from facegpt.evaluation.parameter_agreement import DEFINITION, agreement
from facegpt.files import write_json
from facegpt.fitting.blendshapes import expected_expression
from facegpt.fitting.evidence import evidence
from facegpt.fitting.photograph import FitSettings, fit_face
from facegpt.fitting.priors import side_differences
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective
from facegpt.metrics.image import landmark_error, photometric_error
from facegpt.perception.face_landmarker import FaceLandmarker
from facegpt.render.renderer import render
from facegpt.sample import FaceRecord, FaceTarget

# Name -> fields of FitSettings that leave it out when they are 0.
PRIORS = {
    **{name: [name] for name in ("crooked", "movement", "expected", "color", "brightness")},
    "robust": ["landmark_delta", "pixel_delta"],
}


@dataclass
class FittingSettings:
    """data: records of synthetic faces. out: file for the results. without: priors to leave out.
    head: "builtin" or the head file that made them. recognizer: as for `facegpt fit`.
    n: how many faces (0: all). size: side of the fit in pixels. seed: of the intervals' resamplings.
    """

    data: str = MISSING
    out: Path = MISSING
    without: list[str] = field(default_factory=list)
    head: str = "builtin"
    recognizer: str = "none"
    n: int = 20
    size: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "n")
        at_least(32, self, "size")
        for name in self.without:
            if name not in PRIORS:
                raise ValueError(f"there is no prior '{name[:40]}'; there are {', '.join(PRIORS)}")


def main(argv: Sequence[str]) -> None:
    settings = parse_config(FittingSettings, argv, __doc__)
    head, landmarker = HeadModel.open(settings.head), FaceLandmarker.open()
    objective = FaceObjective(*weights_and_recognizer(settings.recognizer), head.layout)
    fields = [f for name in settings.without for f in PRIORS[name]]
    plan = replace(FitSettings(), **dict.fromkeys(fields, 0.0))  # type: ignore[arg-type]
    data = read_records(settings.data)
    records = [data[k] for k in range(min(settings.n or len(data), len(data)))]
    fits, known, errors, seconds = [], [], [], []
    for record in tqdm(records, unit="face", disable=None):
        start = time.process_time()
        found = fit_record(record, head, landmarker, objective, plan, settings.size)
        if found is None:
            continue
        seconds.append(time.process_time() - start)
        fits.append(found[0])
        errors.append(found[1])
        known.append(record)
    if not fits:
        raise SampleError(f"{settings.data}: no face was found in any of {len(records)} pictures")
    truth = true_parameters(known, data, head)
    if truth is None:
        raise SampleError(f"{settings.data}: these faces have no true parameters; make some that have")
    fitted = FaceParameters.from_vector(torch.cat([fit.to_vector() for fit in fits]), head.layout)
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "head_id": head.id,
        "faces": len(fits),
        "not_found": len(records) - len(fits),
        "cpu_seconds_per_face": sum(seconds) / len(seconds),
        **{name: sum(e[name] for e in errors) / len(errors) for name in errors[0]},
        **differences(fitted, truth, head),
        "agreement": agreement(fitted, truth, settings.seed),
        "definition": DEFINITION,
    }
    write_json(settings.out, report)
    for name, value in report.items():
        if isinstance(value, float):
            print(f"{name}: {value:.4f}")
    print(f"wrote {settings.out}")


def fit_record(
    record: FaceRecord,
    head: HeadModel,
    landmarker: FaceLandmarker,
    objective: FaceObjective,
    plan: FitSettings,
    size: int,
) -> tuple[FaceParameters, dict[str, float]] | None:
    """The fit, and its errors in the picture; None where no face is found."""
    faces = landmarker.find(record.image)
    if not faces:
        return None
    true = face_target(record, size)
    landmarks = faces[0].landmarks * (size / record.image.width)
    target = FaceTarget(true.image, landmarks, evidence(true.image, landmarks))
    with torch.no_grad():
        shapes = landmarker.blendshapes(faces[0].points[None])[0]
    expected = expected_expression(shapes, head.expression_names, head.layout.expression)
    fitted = fit_face(head, target, objective, plan, expected=expected if plan.expected > 0 else None)
    with torch.no_grad():
        shown = render(head, fitted, size)
    mask = (true.skin_mask * shown.skin_mask[0])[None]
    return fitted, {
        "landmark_error_px": float(landmark_error(shown.landmarks, true.landmarks[None], size)),
        "photometric_error": float(photometric_error(true.image[None], shown.image, mask)),
    }


def differences(fitted: FaceParameters, truth: FaceParameters, head: HeadModel) -> dict[str, float]:
    """Root mean square differences in the units of the parameters, and how crooked faces and truth are.

    Crookedness is left out for a head whose components have no sides.
    """

    def rms(values: torch.Tensor) -> float:
        return float(values.square().mean().sqrt())

    sides = side_differences(head.expression_names, head.layout.expression)
    groups: dict[str, Any] = {
        name: rms(getattr(fitted, name) - getattr(truth, name))
        for name in ("shape", "expression", "albedo", "lighting")
    }
    found = {f"{name}_rms": value for name, value in groups.items()}
    found["jaw_opening_rms"] = rms(fitted.pose[:, 3] - truth.pose[:, 3])
    if len(sides):
        found["crooked"] = rms(fitted.expression @ sides.T)
        found["crooked_truth"] = rms(truth.expression @ sides.T)
    return found


if __name__ == "__main__":
    sys.exit(run(main))

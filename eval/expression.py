"""python eval/expression.py --out FILE.json [key=value ...]

Does a face wear the expression of the photograph? Both are given to MediaPipe's blendshape network: 52 values
in ARKit's units each, compared unit by unit. First the network itself is calibrated on renderings of the head
with known coefficients, which shows what of the 52 it can see on this head. Then, with

    photographs=FOLDER checkpoint=RUN   the faces that a trained model speaks
    photographs=FOLDER fits=FOLDER      those of `facegpt fit`, which lie in FITS/NAME/parameters.json

the photographs are compared with the renderings of these faces. Writes OUT and, beside it, the 52 values of
every picture in `..._samples.jsonl`.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from facegpt.chat import question
from facegpt.config import at_least, parse_config, run
from facegpt.data.records import PHOTO_SUFFIXES
from facegpt.errors import HeadMismatchError, SampleError
from facegpt.evaluation.blendshapes import (
    LEAST_SLOPE,
    LEAST_SPREAD,
    SEEN,
    calibrate,
    calibration_faces,
    compare,
    mean_correlation,
    portrait,
    seen_units,
)
from facegpt.evaluation.evaluated_model import (
    WHEN_NO_FACE,
    first_faces,
    open_evaluated_model,
    provenance,
    replies_to,
    samples_path,
    write_rows,
)
from facegpt.export.face_files import read_faces
from facegpt.files import write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.machine import package_versions
from facegpt.perception.align import crop_face
from facegpt.perception.face_landmarker import FaceLandmarker
from facegpt.perception.face_points import BLENDSHAPES
from facegpt.perception.images import read_image

SIZE = 224
DEFINITIONS = {
    "correlation": "Pearson's, of one unit over the faces; intervals: 95 %, 1,000 resamplings of the faces",
    "slope": "least squares of the network's value over the known one (of the photograph)",
    "calibration": (
        "renderings of random faces, each at rest but for one movement of random strength: the network's "
        f"value against the coefficient; seen: the correlation is at least {SEEN}, its interval above 0, and "
        f"the slope at least {LEAST_SLOPE}"
    ),
    "faces": "the network's values of the renderings against those of the photographs",
    "at_rest": "the same faces with expression, jaw and gaze set to rest: what identity, pose and light give",
    "mean_varies": (
        f"units whose deviation over the photographs is above {LEAST_SPREAD}, and their mean correlation"
    ),
    "mean_varies_and_seen": "likewise, of those among them that the calibration saw",
    "generation": WHEN_NO_FACE,
}


@dataclass
class ExpressionSettings:
    """each: renderings for every movement of the calibration (0: none). strength: the largest coefficient in
    them. photographs: a folder of them; the largest face of each counts. checkpoint: a run or one of its
    checkpoints, which is asked for these faces. fits: where `facegpt fit` wrote a folder for each.
    prompt: how a face is asked for. landmarker: a `face_landmarker.task`, "auto" for the one that was
    fetched. out: file for the results. head: "builtin" or a head file whose components have ARKit's names.
    backbone: where it lies, if it has moved. device: auto is the GPU where there is one. n: how many
    photographs (0: all). batch: conversations at once. max_new_tokens: the longest answer. seed: of the
    calibration's faces and the resampling.
    """

    photographs: str | None = None
    checkpoint: str | None = None
    fits: str | None = None
    each: int = 30
    strength: float = 1.0
    prompt: str = "Could you make me a 3D model of this face?"
    landmarker: str = "auto"
    out: str = "outputs/expression.json"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    n: int = 0
    batch: int = 16
    max_new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens")
        at_least(0, self, "each", "n", "strength")
        if bool(self.photographs) != bool(self.checkpoint or self.fits) or (self.checkpoint and self.fits):
            raise ValueError("photographs need one more: the checkpoint that is asked, or the fits of them")
        if not self.photographs and not self.each:
            raise ValueError("each=0 without photographs leaves nothing to do")


def main(argv: list[str]) -> None:
    settings = parse_config(ExpressionSettings, argv, __doc__)
    start = time.time()
    landmarker = FaceLandmarker.open(None if settings.landmarker == "auto" else settings.landmarker)
    head = HeadModel.open(settings.head)
    result: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    if settings.each:
        result["calibration"], found = calibration(head, landmarker, settings)
        rows += found
    if settings.photographs:
        result["faces"], found = comparison(head, landmarker, settings, result.get("calibration", {}))
        rows += found
    result |= {
        "definitions": DEFINITIONS,
        "command": shlex.join(["python", *sys.argv]),
        "settings": dict(vars(settings)),
        "head_id": head.id,
        "versions": package_versions(),
        **result.get("faces", {}).pop("provenance", {}),
        "seconds": round(time.time() - start, 1),
    }
    out = Path(settings.out)
    write_rows(samples_path(out), rows)
    write_json(out, result)
    report(result, out)


def calibration(
    head: HeadModel, landmarker: FaceLandmarker, settings: ExpressionSettings
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the network sees of known coefficients, per unit, and the rows of all renderings."""
    generator = torch.Generator().manual_seed(settings.seed)
    faces, names, amounts = calibration_faces(head, settings.each, generator, settings.strength)
    seen = values_of(head, faces, landmarker, "rendered")
    rows = [
        {"kind": "calibration", "movement": name, "coefficient": amount, "seen": units(values)}
        for name, amount, values in zip(names, amounts.tolist(), seen, strict=True)
    ]
    return calibrate(names, amounts, seen, settings.seed), rows


def comparison(
    head: HeadModel, landmarker: FaceLandmarker, settings: ExpressionSettings, known: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How the renderings follow the photographs, per unit, beside the same faces at rest."""
    names, crops, seen = read_photographs(settings, landmarker)
    if settings.checkpoint:
        faces, about = spoken_faces(crops, settings)
    else:
        faces, about = fitted_faces(head, names, settings), {}
    shown = {
        kind: values_of(head, some, landmarker, kind)
        for kind, some in {"faces": faces, "at_rest": at_rest(faces)}.items()
    }
    tables = {kind: compare(seen, values, settings.seed) for kind, values in shown.items()}
    for table in tables.values():
        for unit, row in table.items():
            row["varies_and_seen"] = row["varies"] and known.get(unit, {}).get("seen", False)
    means = {
        kind: {f"mean_{key}": mean_correlation(table, key) for key in ("varies", "varies_and_seen")}
        for kind, table in tables.items()
    }
    result = {
        "n": len(names),
        "without_a_face": {kind: int(values.isnan().all(dim=1).sum()) for kind, values in shown.items()},
        **means,
        "units": tables,
        "provenance": about,
    }
    rows = [
        {"kind": kind, "id": name, "seen": units(values)}
        for kind, table in {"photograph": seen, **shown}.items()
        for name, values in zip(names, table, strict=True)
    ]
    return result, rows


def read_photographs(
    settings: ExpressionSettings, landmarker: FaceLandmarker
) -> tuple[list[str], list[Image.Image], Tensor]:
    """Names, crops and units (N,52) of the photographs with a face; the others are left out, and said."""
    folder = Path(str(settings.photographs))
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PHOTO_SUFFIXES)
    names, crops, points = [], [], []
    for file in tqdm(files[: settings.n or None], desc="photographs", disable=None):
        image = read_image(file)
        found = landmarker.find(image)
        if not found:
            print(f"{file}: no face", file=sys.stderr)
            continue
        names.append(file.relative_to(folder).with_suffix("").as_posix())
        crops.append(crop_face(image, found[0].landmarks, SIZE)[0])
        points.append(found[0].points)
    if not names:
        raise SampleError(f"{folder} has no photograph with a face in it")
    with torch.no_grad():
        return names, crops, landmarker.blendshapes(torch.stack(points))


def spoken_faces(
    crops: Sequence[Image.Image], settings: ExpressionSettings
) -> tuple[FaceParameters, dict[str, Any]]:
    evaluated = open_evaluated_model(
        str(settings.checkpoint), settings.head, settings.backbone, settings.device
    )
    samples = [question(settings.prompt, crop, str(k)) for k, crop in enumerate(crops)]
    replies = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, "asked")
    return first_faces(replies, evaluated).to("cpu"), provenance(evaluated, settings)


def fitted_faces(head: HeadModel, names: Sequence[str], settings: ExpressionSettings) -> FaceParameters:
    faces = []
    for name in names:
        file = read_faces(Path(str(settings.fits)) / name / "parameters.json")
        if file.head_id not in (None, head.id):
            raise HeadMismatchError(f"{name} was fitted with the head {file.head_id}, this is {head.id}")
        faces.append(file.parameters)
    return FaceParameters.cat(faces)


def at_rest(faces: FaceParameters) -> FaceParameters:
    """The same people in the same pose and light, without expression, jaw and gaze."""
    groups = {"expression": torch.zeros_like(faces.expression)}
    groups["pose"] = torch.cat([faces.pose[:, :3], torch.zeros_like(faces.pose[:, 3:])], dim=1)
    if faces.eyes is not None:
        groups["eyes"] = torch.zeros_like(faces.eyes)
    return faces.replace(**groups)


def values_of(head: HeadModel, faces: FaceParameters, landmarker: FaceLandmarker, label: str) -> Tensor:
    """The network's units (N,52) of the renderings of N faces."""
    numbers = tqdm(range(len(faces)), desc=label, disable=None)
    return torch.cat([seen_units(landmarker, [portrait(head, faces[k], SIZE)]) for k in numbers])


def units(values: Tensor) -> dict[str, float] | None:
    """The 52 by name, None where no face was found."""
    if values.isnan().any():
        return None
    return dict(zip(BLENDSHAPES, (round(value, 4) for value in values.tolist()), strict=True))


def report(result: dict[str, Any], out: Path) -> None:
    for unit, row in result.get("calibration", {}).items():
        if row["correlation"] is not None:
            low, high = row["correlation_95"]
            seen = ", seen" if row["seen"] else ""
            print(f"{unit:20s} r {row['correlation']:5.2f} [{low:5.2f}, {high:5.2f}], "
                  f"slope {row['slope']:5.2f}, n {row['n']}{seen}")  # fmt: skip
    for kind in ("faces", "at_rest") if "faces" in result else ():
        for key in ("varies", "varies_and_seen"):
            count, mean = result["faces"][kind][f"mean_{key}"]
            print(f"{kind}, units that {key}: {count}" + ("" if mean is None else f", mean r {mean:.3f}"))
    print(f"wrote {out} ({result['seconds']} s)")


if __name__ == "__main__":
    sys.exit(run(main))

"""facegpt fit --image PHOTO [--face N|all] [--out DIR]

Fits the head model to the face of a photograph by analysis by synthesis, without any network that predicts
faces, and writes DIR/face.glb, DIR/overlay.png (the fit over the photograph, and the head from three sides)
and DIR/parameters.json (every coefficient by name, and the errors); with --rigged also DIR/face_rigged.glb,
which Blender, three.js or a game engine can animate. DIR is PHOTO's name and _face unless it is given.
The face is found by MediaPipe's landmarker (`facegpt fetch face_landmarker`): the largest of the picture, or
the N-th largest with --face N; --face all fits every one, into DIR/1, DIR/2 ... Instead, --landmarks names a
file, .pts or .npy, with the 68 iBUG landmarks or the 51 without the contour, in pixels of PHOTO.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from facegpt.commands.fit_photograph import PhotographedFace, find_faces, read_face
from facegpt.commands.fit_results import OVERLAY, write_results
from facegpt.commands.output import check_output
from facegpt.config import MISSING, parse_config
from facegpt.errors import LandmarkError, RenderingError
from facegpt.files import printable
from facegpt.fitting.photograph import FIT_WEIGHTS, FitSettings, check_fit_size, fit_face
from facegpt.head.model import HeadModel
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.perception.recognizer import Recognizer, load_recognizer

ALL = "all"


@dataclass
class FitCommandSettings:
    """image: a photograph.
    landmarks: of its face, a .pts or .npy file, in pixels of the image; default: they are found.
    face: which of the faces found, 1 for the largest, or "all".
    out: folder for the results; default: the image's name and _face.
    head: "builtin" or a head file (FLAME .pkl, .npz, .safetensors).
    recognizer: "none", or a network for a perceptual loss: "tiny", "sface" (fetched) or an ArcFace file.
    size: side of the crop in pixels, 32 to 2048.
    rigged: write a rigged GLB too.
    """

    image: Path = MISSING
    landmarks: Path | None = None
    face: str = "1"
    out: Path | None = None
    head: str = "builtin"
    recognizer: str = "none"
    size: int = 224
    rigged: bool = False

    def __post_init__(self) -> None:
        check_fit_size(self.size)
        if self.face != ALL and not (self.face.isascii() and self.face.isdigit() and int(self.face[:9]) >= 1):
            raise ValueError(f"face={printable(self.face)[:60]} is neither a number from 1 nor {ALL}")
        if self.landmarks is not None and self.face != "1":
            raise ValueError("face chooses among faces that are found; a landmark file is of one face")
        if self.image.resolve() == (self.folder / OVERLAY).resolve():
            raise ValueError(f"image={self.image} would be overwritten by a result; choose another out")

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(f"{self.image.stem}_face") if self.out is None else self.out


def main(argv: Sequence[str]) -> int:
    settings = parse_config(FitCommandSettings, argv, __doc__)
    check_output(settings.folder, folder=True)
    if settings.landmarks is not None:
        faces = [read_face(settings.image, settings.landmarks, settings.size)]
    else:
        number = None if settings.face == ALL else int(settings.face)
        faces = find_faces(settings.image, settings.size, number)
    head = HeadModel.open(settings.head)
    objective = FaceObjective(*weights_and_recognizer(settings.recognizer), head.layout)
    problems = []
    for face in faces:
        folder = settings.folder / str(face.number) if settings.face == ALL else settings.folder
        try:
            fit_one(settings, head, objective, face, folder)
        except (LandmarkError, RenderingError) as error:  # landmarks that no face can have
            problems.append(f"{face.source}: {error}")
    if problems and len(faces) == 1:
        raise LandmarkError(problems[0])
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def fit_one(
    settings: FitCommandSettings,
    head: HeadModel,
    objective: FaceObjective,
    face: PhotographedFace,
    folder: Path,
) -> None:
    """Fit one face with a progress bar, write its files, and say what was written."""
    plan = FitSettings()
    begin = {"place": 0, "landmarks": 1, "pixels": 1 + plan.landmark_steps}
    total = begin["pixels"] + plan.pixel_steps
    with tqdm(total=total, unit="step", leave=False, disable=None) as bar:

        def show(stage: str, done: int, steps: int) -> None:
            bar.set_description(f"face {face.number}, {stage}", refresh=False)
            bar.update(begin[stage] + done - bar.n)

        expected = face.expected(head)
        fitted = fit_face(head, face.target, objective, plan, face.valid, expected, show)
    errors = write_results(folder, head, face, fitted, settings.rigged)
    for name, (before, after) in errors.items():
        print(f"{name}: {before:.3f} for the mean face, {after:.3f} after the fit")
    print(f"wrote {printable(folder)}/face.glb, {OVERLAY} and parameters.json", flush=True)


def weights_and_recognizer(name: str) -> tuple[ObjectiveWeights, Recognizer | None]:
    """The weights of the fit and the named network; without one ("none") there is no perceptual loss."""
    if name == "none":
        return replace(FIT_WEIGHTS, perceptual=0.0), None
    return FIT_WEIGHTS, load_recognizer(name)

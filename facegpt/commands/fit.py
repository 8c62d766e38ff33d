"""facegpt fit --image FILE --landmarks FILE.pts|FILE.npy --out DIR

Fits the head model to one photograph by analysis by synthesis, without any network that predicts faces, and
writes DIR/face.glb, DIR/overlay.png and DIR/parameters.json (every coefficient by name, and the errors); with
--rigged also DIR/face_rigged.glb, which Blender, three.js or a game engine can animate.
Takes the 68 iBUG landmarks, or the 51 without the contour; coordinates are pixels of FILE. Half a minute on
two CPU cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from facegpt.commands.output import check_output
from facegpt.config import MISSING, parse_config
from facegpt.data.targets import to_tensor
from facegpt.errors import LandmarkError
from facegpt.export.coefficients import named_coefficients
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.files import atomic_path, write_json
from facegpt.fitting.photograph import FIT_WEIGHTS, FitSettings, check_fit_size, fit_face
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.metrics.image import landmark_error, photometric_error
from facegpt.perception.align import crop_face
from facegpt.perception.images import read_image
from facegpt.perception.landmark_files import read_landmarks
from facegpt.perception.recognizer import Recognizer, load_recognizer
from facegpt.perception.skin import skin_probability
from facegpt.render.renderer import render
from facegpt.sample import FaceTarget
from facegpt.visualize import contact_sheet, draw_landmarks, head_picture, overlay, to_pil

OVERLAY = "overlay.png"


@dataclass
class Photograph:
    """A crop to fit: its target, which landmarks count, and where it lies in the photograph."""

    crop: Image.Image
    target: FaceTarget
    valid: Tensor  # (68,) bool
    matrix: Tensor  # (3, 3): photo pixels to crop pixels


@dataclass
class FitCommandSettings:
    """image: a photograph of one face.
    landmarks: its landmarks, .pts or .npy, in pixels of the image.
    out: folder for the results.
    head: "builtin" or a head file (FLAME .pkl, .npz, .safetensors).
    recognizer: "tiny", "sface" (fetched), an ArcFace file, or "none": no perceptual loss.
    size: side of the crop in pixels, 32 to 2048.
    rigged: write a rigged GLB too.
    """

    image: Path = MISSING
    landmarks: Path = MISSING
    out: Path = MISSING
    head: str = "builtin"
    recognizer: str = "tiny"
    size: int = 224
    rigged: bool = False

    def __post_init__(self) -> None:
        check_fit_size(self.size)
        if self.image.resolve() == (self.out / OVERLAY).resolve():
            raise ValueError(f"image={self.image} would be overwritten by a result; choose another out")


def main(argv: Sequence[str]) -> None:
    settings = parse_config(FitCommandSettings, argv, __doc__)
    check_output(settings.out, folder=True)
    head = HeadModel.open(settings.head)
    objective = FaceObjective(*weights_and_recognizer(settings.recognizer), head.layout)
    with tqdm(total=1, unit="step", leave=False, disable=None) as bar:

        def show(stage: str, done: int, steps: int) -> None:
            bar.set_description(stage)
            bar.total, bar.n = steps, done
            bar.refresh()

        try:
            photograph = read_photograph(settings.image, settings.landmarks, settings.size)
            fitted = fit_face(head, photograph.target, objective, FitSettings(), photograph.valid, show)
            errors = write_results(settings, head, photograph, fitted)
        except ValueError as error:  # landmarks that no face can have
            raise LandmarkError(f"{settings.landmarks}: {error}") from None
    for name, (before, after) in errors.items():
        print(f"{name}: {before:.3f} for the mean face, {after:.3f} after the fit")
    print(f"wrote {settings.out}/face.glb, {OVERLAY} and parameters.json")


def weights_and_recognizer(name: str) -> tuple[ObjectiveWeights, Recognizer | None]:
    """The weights of the fit and the named network; without one ("none") there is no perceptual loss."""
    if name == "none":
        return replace(FIT_WEIGHTS, perceptual=0.0), None
    return FIT_WEIGHTS, load_recognizer(name)


def read_photograph(image: Path, landmarks: Path, size: int) -> Photograph:
    """Read and crop; raises ImageError or LandmarkError that name the file."""
    photo = read_image(image)
    points, valid = read_landmarks(landmarks)
    try:
        crop, cropped, matrix = crop_face(photo, points, size)
    except LandmarkError as error:
        raise LandmarkError(f"{landmarks}: {error}") from None
    pixels = to_tensor(crop)
    target = FaceTarget(pixels, cropped, skin_probability(pixels[None])[0])
    return Photograph(crop, target, valid, matrix)


def write_results(
    settings: FitCommandSettings, head: HeadModel, photograph: Photograph, fitted: FaceParameters
) -> dict[str, tuple[float, float]]:
    """Write the three files; returns metric -> (mean face, fitted)."""
    size, target = settings.size, photograph.target
    with torch.no_grad():
        mean, rendering = render(head, head.mean_parameters(), size), render(head, fitted, size)
        # One mask for both, so that neither is judged where only it has pixels.
        mask = (target.skin_mask * rendering.skin_mask[0])[None]
        errors = {
            "landmark_error_px": tuple(
                float(
                    landmark_error(
                        r.landmarks[:, photograph.valid], target.landmarks[None, photograph.valid], size
                    )
                )
                for r in (mean, rendering)
            ),
            "photometric_error": tuple(
                float(photometric_error(target.image[None], r.image, mask)) for r in (mean, rendering)
            ),
        }
    photo = photograph.crop
    sheet = contact_sheet(
        [
            [
                draw_landmarks(photo, target.landmarks[photograph.valid], (80, 220, 120)),
                draw_landmarks(
                    overlay(target.image, rendering.image[0], rendering.mask[0]),
                    rendering.landmarks[0],
                    (255, 90, 90),
                ),
                to_pil(rendering.image[0]),
                head_picture(head, fitted, size, clay=True),
            ]
        ],
        ["photograph, landmarks", "overlay", "rendering", "mesh"],
    )
    settings.out.mkdir(parents=True, exist_ok=True)
    export_mesh(head.mesh(fitted), settings.out / "face.glb")
    if settings.rigged:
        export_rigged_head(head, fitted, settings.out / "face_rigged.glb")
    with atomic_path(settings.out / OVERLAY) as path:
        sheet.save(path)
    write_json(
        settings.out / "parameters.json",
        {
            "image": str(settings.image),
            "landmarks": {"file": str(settings.landmarks), "used": int(photograph.valid.sum())},
            "head": {"id": head.id, "name": head.data.metadata.get("name", settings.head)},
            "crop": {"size": size, "photo_to_crop": photograph.matrix.tolist()},
            "errors": {k: {"mean_face": before, "fitted": after} for k, (before, after) in errors.items()},
            "coefficients": named_coefficients(fitted, head),
        },
    )
    return errors  # type: ignore[return-value]

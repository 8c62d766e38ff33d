"""facegpt fit --image FILE --landmarks FILE.pts|FILE.npy --out DIR

Fits the head model to one photograph by analysis by synthesis, without any network that predicts faces, and
writes DIR/face.glb, DIR/overlay.png and DIR/parameters.json (every coefficient by name, and the errors); with
--rigged also DIR/face_rigged.glb, which Blender, three.js or a game engine can animate.
Takes the 68 iBUG landmarks, or the 51 without the contour; coordinates are pixels of FILE. Half a minute on
two CPU cores.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from facegpt.data.targets import to_tensor
from facegpt.errors import FaceGPTError, LandmarkError
from facegpt.export.coefficients import named_coefficients
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.files import atomic_path, write_json
from facegpt.fitting.photograph import FitSettings, fit_face
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

# Half the prior of training; the landmarks are weighed by `FitSettings` instead of the objective.
FIT_WEIGHTS = ObjectiveWeights(landmark=0.0, regularization=0.05)


@dataclass
class Photograph:
    """A crop to fit: its target, which landmarks count, and where it lies in the photograph."""

    crop: Image.Image
    target: FaceTarget
    valid: Tensor  # (68,) bool
    matrix: Tensor  # (3, 3): photo pixels to crop pixels


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        head = HeadModel.open(options.head)
        photograph = read_photograph(options.image, options.landmarks, options.size)
        objective = FaceObjective(*weights_and_recognizer(options.recognizer), head.layout)
        with tqdm(total=1, unit="step", leave=False) as bar:

            def show(stage: str, done: int, steps: int) -> None:
                bar.set_description(stage)
                bar.total, bar.n = steps, done
                bar.refresh()

            fitted = fit_face(head, photograph.target, objective, FitSettings(), photograph.valid, show)
        errors = write_results(options, head, photograph, fitted)
    except (FaceGPTError, ValueError, OSError) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 1
    for name, (before, after) in errors.items():
        print(f"{name}: {before:.3f} for the mean face, {after:.3f} after the fit")
    print(f"wrote {options.out}/face.glb, overlay.png and parameters.json")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", required=True, type=Path, help="a photograph of one face")
    parser.add_argument("--landmarks", required=True, type=Path, help="its landmarks, .pts or .npy")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--head", default="builtin", help='"builtin" or a head file (FLAME .pkl, .npz, .safetensors)'
    )
    parser.add_argument(
        "--recognizer", default="tiny", help='"tiny", an ArcFace file, or "none": no perceptual loss'
    )
    parser.add_argument("--size", default=224, type=int, help="side of the crop in pixels")
    parser.add_argument("--rigged", action="store_true", help="write a rigged GLB too")
    return parser.parse_args(arguments)


def weights_and_recognizer(name: str) -> tuple[ObjectiveWeights, Recognizer | None]:
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
    options: argparse.Namespace, head: HeadModel, photograph: Photograph, fitted: FaceParameters
) -> dict[str, tuple[float, float]]:
    """Write the three files; returns metric -> (mean face, fitted)."""
    size, target = options.size, photograph.target
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
    options.out.mkdir(parents=True, exist_ok=True)
    export_mesh(head.mesh(fitted), options.out / "face.glb")
    if options.rigged:
        export_rigged_head(head, fitted, options.out / "face_rigged.glb")
    with atomic_path(options.out / "overlay.png") as path:
        sheet.save(path)
    write_json(
        options.out / "parameters.json",
        {
            "image": str(options.image),
            "landmarks": {"file": str(options.landmarks), "used": int(photograph.valid.sum())},
            "head": {"id": head.id, "name": head.data.metadata.get("name", options.head)},
            "crop": {"size": size, "photo_to_crop": photograph.matrix.tolist()},
            "errors": {k: {"mean_face": before, "fitted": after} for k, (before, after) in errors.items()},
            "coefficients": named_coefficients(fitted, head),
        },
    )
    return errors  # type: ignore[return-value]


if __name__ == "__main__":
    sys.exit(main())

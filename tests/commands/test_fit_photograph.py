"""`facegpt fit` on photographs alone: whose face is fitted, where it goes, and what is said when none is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_head import small_head, small_head_data

from facegpt.commands import fit, fit_photograph
from facegpt.commands.fit_photograph import find_faces
from facegpt.config import run
from facegpt.errors import FaceGPTError, LandmarkError
from facegpt.fitting.photograph import FitSettings
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel
from facegpt.metrics.image import landmark_error
from facegpt.perception.face_landmarker import FaceLandmarker, FoundFace
from facegpt.render.renderer import render
from facegpt.standins.synthetic import sample_parameters

QUICK = FitSettings(landmark_steps=10, pixel_steps=2)
SIDE = 128


@dataclass
class FakeLandmarker:
    """Finds the faces that it was told of."""

    faces: list[torch.Tensor]
    shown: list[Image.Image] = field(default_factory=list)

    def find(self, image: Image.Image) -> list[FoundFace]:
        self.shown.append(image)
        return [FoundFace(torch.zeros(478, 3), points, 1.0, (0.0, 0.0, 1.0, 1.0)) for points in self.faces]

    def blendshapes(self, points: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(points), 52)


@pytest.fixture
def landmarker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLandmarker:
    """A photograph of two faces, photo.png, the small head, head.npz, and a network that sees them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "FitSettings", lambda: QUICK)
    parameters = sample_parameters(small_head(), 2, torch.Generator().manual_seed(3))
    shown = render(small_head(), parameters, SIDE, background=torch.tensor([0.2, 0.3, 0.6]))
    pixels = (255 * torch.cat(list(shown.image.clamp(0, 1)), dim=2)).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save("photo.png")
    save_head(small_head_data(), "head.npz")
    fake = FakeLandmarker([shown.landmarks[0], shown.landmarks[1] + torch.tensor([SIDE, 0])])
    monkeypatch.setattr(fit_photograph.FaceLandmarker, "open", lambda: fake)
    return fake


def call(*words: str) -> int:
    return run(fit.main, ["--image", "photo.png", "--head", "head.npz", "--size", "64", *words])


def places(file: str) -> np.ndarray:
    """Of the crop's corner in the photograph."""
    matrix = np.array(json.loads(Path(file).read_text())["crop"]["photo_to_crop"])
    return -matrix[:2, 2] / matrix[0, 0]


def test_a_photograph_is_enough_and_the_largest_face_is_taken(
    landmarker: FakeLandmarker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call() == 0
    printed = capsys.readouterr()
    assert "photo.png has 2 faces" in printed.err and "photo_face/face.glb" in printed.out
    names = sorted(file.name for file in Path("photo_face").iterdir())
    assert names == ["face.glb", "overlay.png", "parameters.json"]
    landmarks = json.loads(Path("photo_face/parameters.json").read_text())["landmarks"]
    assert landmarks == {"found_by": "face_landmarker", "used": 68, "face": 1, "of": 2, "score": 1.0}


def test_a_face_by_number_and_all_of_them(landmarker: FakeLandmarker) -> None:
    assert call("--face", "2", "--out", "second") == 0
    assert call("--face", "all", "--out", "every") == 0
    assert sorted(path.name for path in Path("every").iterdir()) == ["1", "2"]
    assert places("every/1/parameters.json")[0] < SIDE / 2 < places("every/2/parameters.json")[0]
    one, other = (json.loads(Path(f"{d}/parameters.json").read_text()) for d in ("second", "every/2"))
    assert one["coefficients"] == other["coefficients"]


def test_a_face_that_cannot_be_fitted_does_not_keep_the_others(
    landmarker: FakeLandmarker, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = landmarker.faces[0].clone()
    flat[:, 1] = 0.1 * flat[:, 0]
    landmarker.faces.insert(1, flat)  # on a line
    landmarker.faces.append(flat * 1e-3)  # of no pixel
    assert call("--face", "all", "--out", "every") == 1
    assert sorted(path.name for path in Path("every").iterdir()) == ["1", "3"]
    error = capsys.readouterr().err
    assert "photo.png, face 2: " in error and "line" in error and "photo.png, face 4: " in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--face", "3"), 1, "no face 3, 2 found"),
        (("--face", "0"), 2, "face=0"),
        (("--face", "\u0663"), 2, "neither a number"),
        (("--face", "1", "--image", "missing.jpg"), 1, "no such image"),
        (("--face", "2", "--landmarks", "photo.npy"), 2, "one face"),
    ],
)
def test_faces_that_are_not_there_are_refused_in_a_sentence(
    landmarker: FakeLandmarker,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    assert call(*words) == code
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not Path("photo_face").exists()


def test_a_picture_without_a_face_is_refused(
    landmarker: FakeLandmarker, capsys: pytest.CaptureFixture[str]
) -> None:
    landmarker.faces.clear()
    assert call() == 1
    assert "photo.png: no face was found" in capsys.readouterr().err and not Path("photo_face").exists()


def test_without_the_part_the_command_that_fetches_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "home"))
    Image.new("RGB", (40, 40)).save("photo.png")
    assert run(fit.main, ["--image", "photo.png"]) == 1
    assert "`facegpt fetch face_landmarker`" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["L", "I;16", "CMYK", "P", "RGBA", "animated", "turned"])
def test_pictures_of_every_kind_reach_the_network_upright_in_color(
    landmarker: FakeLandmarker, kind: str
) -> None:
    image = Image.open("photo.png").convert("RGB")
    if kind == "I;16":
        gray = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(gray).save("kind.png")
    elif kind == "animated":
        image.save("kind.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
        image.transpose(Image.Transpose.ROTATE_90).save("kind.jpg", exif=exif)
    else:
        image.convert(kind).save("kind.tiff")
    (path,) = Path(".").glob("kind.*")
    (face,) = find_faces(path, 64, 1)
    assert landmarker.shown[0].mode == "RGB" and landmarker.shown[0].size == image.size
    assert face.target.image.shape == (3, 64, 64)
    usual = find_faces(Path("photo.png"), 64, 1)[0].target.image.mean(dim=0)
    other = face.target.image.mean(dim=0)
    assert float(torch.corrcoef(torch.stack([usual.flatten(), other.flatten()]))[0, 1]) > 0.9


def test_a_rendered_face_is_found_and_fitted_without_a_landmark_file(tmp_path: Path) -> None:
    try:
        FaceLandmarker.open()
    except FaceGPTError as error:
        pytest.skip(f"needs the part face_landmarker: {error}")
    head = HeadModel.builtin()
    truth = sample_parameters(head, 1, torch.Generator().manual_seed(11))
    shown = render(head, truth, 224, background=torch.tensor([0.2, 0.3, 0.6]))
    pixels = (255 * shown.image[0].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (face,) = find_faces(tmp_path / "photo.png", 112, 1)
    objective = fit.FaceObjective(*fit.weights_and_recognizer("none"), head.layout)
    plan = FitSettings(landmark_steps=40, pixel_steps=3)
    fitted = fit.fit_face(head, face.target, objective, plan, face.valid, face.expected(head))
    again = render(head, fitted, 112).landmarks
    matrix = face.matrix.float()
    true = shown.landmarks @ matrix[:2, :2].T + matrix[:2, 2]
    assert float(landmark_error(again, true, 112)) < 6  # pixels of 224
    assert float((fitted.pose[:, :3] - truth.pose[:, :3]).norm()) < 0.2


def test_a_tiny_face_beside_the_picture_is_refused(landmarker: FakeLandmarker) -> None:
    landmarker.faces[:] = [landmarker.faces[0] + torch.tensor([10.0 * SIDE, 0])]
    with pytest.raises(LandmarkError, match=r"photo\.png, face 1: .*outside"):
        find_faces(Path("photo.png"), 64, None)

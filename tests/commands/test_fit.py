"""Analysis by synthesis: exact closed forms, a descent that follows the photograph, files that explain."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from small_head import small_head, small_head_data

from facegpt.commands import fit
from facegpt.config import run
from facegpt.errors import LandmarkError
from facegpt.export.coefficients import named_coefficients
from facegpt.fitting.photograph import FitSettings, fit_face
from facegpt.fitting.start import estimate_light, place_head
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective, ObjectiveWeights
from facegpt.metrics.image import landmark_error, photometric_error
from facegpt.render.renderer import render
from facegpt.sample import FaceTarget
from facegpt.standins.synthetic import sample_parameters

SIZE = 64
QUICK = FitSettings(landmark_steps=50, pixel_steps=15)


def target_of(parameters: FaceParameters, head: HeadModel | None = None) -> FaceTarget:
    shown = render(head or small_head(), parameters, SIZE)
    return FaceTarget(shown.image[0].clamp(0, 1), shown.landmarks[0], shown.skin_mask[0])


def face(seed: int = 0) -> FaceParameters:
    return sample_parameters(small_head(), 1, torch.Generator().manual_seed(seed))


def objective() -> FaceObjective:
    weights = ObjectiveWeights(perceptual=0.0, landmark=0.0, regularization=0.01)
    return FaceObjective(weights, None, small_head().layout)


@pytest.mark.parametrize(("pitch", "yaw", "roll"), [(0, 0, 0), (0.2, 0.3, -0.1), (-0.2, -0.5, 0.25)])
def test_a_rigidly_moved_mean_face_is_placed_exactly(pitch: float, yaw: float, roll: float) -> None:
    head = small_head()
    truth = head.mean_parameters()
    truth.pose[0, :3] = torch.tensor([pitch, yaw, roll])
    truth.camera[0] = torch.tensor([7.5, 0.01, -0.02])
    found = place_head(head, target_of(truth).landmarks, SIZE)
    assert torch.allclose(found.pose, truth.pose, atol=2e-4)
    assert torch.allclose(found.camera, truth.camera, rtol=1e-3, atol=1e-4)


def test_landmarks_that_do_not_count_change_nothing() -> None:
    target, valid = target_of(face()), torch.arange(68) >= 17
    broken = FaceTarget(target.image, target.landmarks.clone(), target.skin_mask)
    broken.landmarks[:17] = 1000.0
    few = FitSettings(landmark_steps=3, pixel_steps=2)
    fits = [fit_face(small_head(), t, objective(), few, valid).to_vector() for t in (target, broken)]
    assert torch.equal(*fits)


@pytest.mark.parametrize(("count", "line"), [(5, False), (68, True)])
def test_too_few_landmarks_and_landmarks_on_a_line_are_refused(count: int, line: bool) -> None:
    landmarks = target_of(face()).landmarks
    if line:
        landmarks[:, 1] = landmarks[:, 0]
    with pytest.raises(LandmarkError, match="line" if line else "at least 6"):
        place_head(small_head(), landmarks, SIZE, torch.arange(68) < count)


def test_the_light_of_an_average_face_is_found_by_least_squares() -> None:
    head = small_head()
    truth = head.mean_parameters()
    bands = torch.tensor([2.2, 0.3, 0.4, 0.2, 0.05, -0.04, 0.03, 0.02, -0.03])
    truth.lighting[0] = bands.repeat_interleave(3)
    found = estimate_light(head, truth, target_of(truth), ridge=1e-9)
    assert torch.allclose(found[0], truth.lighting[0], atol=2e-3)
    # Coloured light is not light to it: the estimate is white, the colour is left to the albedo.
    truth.lighting[0, ::3] *= 1.3
    white = estimate_light(head, truth, target_of(truth)).view(9, 3)
    assert torch.equal(white[:, 0], white[:, 1]) and torch.equal(white[:, 1], white[:, 2])


def test_a_fit_explains_landmarks_and_pixels_far_better_than_its_start() -> None:
    head, truth = small_head(), face(1)
    target = target_of(truth)
    stages: list[tuple[str, int, int]] = []
    fitted = fit_face(head, target, objective(), QUICK, progress=lambda *step: stages.append(step))
    start = place_head(head, target.landmarks, SIZE)
    shown, before = render(head, fitted, SIZE), render(head, start, SIZE)
    distances = [landmark_error(r.landmarks, target.landmarks[None], SIZE) for r in (before, shown)]
    assert distances[1] < 0.7 * distances[0]
    mask = target.skin_mask[None]
    errors = [float(photometric_error(target.image[None], r.image, mask)) for r in (before, shown)]
    assert errors[1] < 0.4 * errors[0]
    assert {name for name, _, _ in stages} == {"place", "landmarks", "pixels"}
    assert stages[-1] == ("pixels", 15, 15)
    assert not fitted.to_vector().requires_grad


def test_named_movements_stay_between_absent_and_full_and_the_jaw_in_its_range() -> None:
    data = small_head_data()
    data.expression_names = ["smile", "frown", "expression 3", "expression 4"]
    head = HeadModel(data)
    far = face(2).replace(expression=torch.tensor([[-3.0, 3.0, -3.0, 3.0]]))
    fitted = fit_face(head, target_of(far, head), objective(), QUICK)
    assert float(fitted.expression[0, :2].min()) >= 0 and float(fitted.expression[0, :2].max()) <= 1
    assert float(fitted.expression[0, 2]) < -0.3  # principal components are free
    assert -0.05 <= float(fitted.pose[0, 3]) <= 0.6


def test_every_coefficient_has_a_name_a_unit_and_its_value() -> None:
    parameters = face().replace(neck=torch.tensor([[0.1, 0.2, 0.3]]))
    rows = named_coefficients(parameters, small_head())
    assert [row["index"] for row in rows] == list(range(parameters.layout.total))
    assert [row["value"] for row in rows] == parameters.to_vector()[0].tolist()
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)  # no name twice
    assert by_name["jaw_x"]["value"] == float(parameters.pose[0, 3]) and "radians" in by_name["jaw_x"]["unit"]
    assert by_name["scale"]["unit"] == "image half-widths per metre"
    assert by_name["band1_green"]["value"] == float(parameters.lighting[0, 4])
    assert by_name["neck_z"]["value"] == pytest.approx(0.3)
    with pytest.raises(ValueError, match="one face"):
        named_coefficients(small_head().mean_parameters(2), small_head())


def photograph(folder: Path, inner_only: bool = False) -> list[str]:
    """A photograph of 200 x 160 pixels with a face in it, its landmarks, and the command line for it."""
    truth = face(3)
    shown = render(small_head(), truth, (160, 200), background=torch.tensor([0.2, 0.3, 0.6]))
    pixels = (255 * shown.image[0].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / "photo.png")
    points = shown.landmarks[0].numpy()
    np.save(folder / "photo.npy", points[17:] if inner_only else points)
    save_head(small_head_data(), folder / "head.npz")
    names = {"image": "photo.png", "landmarks": "photo.npy", "head": "head.npz", "out": "out"}
    words = [word for name, file in names.items() for word in (f"--{name}", str(folder / file))]
    return [*words, "--recognizer", "none", "--size", "64"]


@pytest.mark.parametrize("inner_only", [False, True])
def test_the_script_writes_mesh_picture_and_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner_only: bool
) -> None:
    monkeypatch.setattr(fit, "FitSettings", lambda: QUICK)
    rigged = ["--rigged"] * inner_only
    assert run(fit.main, [*photograph(tmp_path, inner_only), *rigged]) == 0
    out = tmp_path / "out"
    names = ["face.glb", *["face_rigged.glb"] * inner_only, "overlay.png", "parameters.json"]
    assert sorted(file.name for file in out.iterdir()) == names
    mesh = trimesh.load_mesh(out / "face.glb")
    assert len(mesh.faces) == len(small_head().triangles)
    assert Image.open(out / "overlay.png").width > 4 * 64
    saved = json.loads((out / "parameters.json").read_text())
    for errors in saved["errors"].values():
        assert errors["fitted"] < 0.5 * errors["mean_face"]
    assert saved["landmarks"]["used"] == (51 if inner_only else 68) and saved["head"]["id"] == small_head().id
    vector = torch.tensor([[row["value"] for row in saved["coefficients"]]])
    again = render(small_head(), FaceParameters.from_vector(vector, small_head().layout), 64).landmarks[0]
    matrix = torch.tensor(saved["crop"]["photo_to_crop"], dtype=torch.float32)
    points = torch.from_numpy(np.load(tmp_path / "photo.npy")) @ matrix[:2, :2].T + matrix[:2, 2]
    distance = float((again[-len(points) :] - points).norm(dim=1).mean()) * 224 / 64
    assert distance == pytest.approx(saved["errors"]["landmark_error_px"]["fitted"], rel=1e-3)


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--image", None, "no such image"),
        ("--image", b"not a picture", "cannot be decoded"),
        ("--landmarks", None, "no such landmark file"),
        ("--landmarks", b"not numbers", "not a readable .npy"),
        ("--head", None, "wrong.npz"),
        ("--recognizer", None, "no such recogniser"),
    ],
)
def test_bad_input_is_one_sentence_that_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, content: bytes | None, words: str
) -> None:
    arguments = photograph(tmp_path)
    suffix = {"--image": ".png", "--landmarks": ".npy", "--head": ".npz", "--recognizer": ".onnx"}[option]
    file = tmp_path / f"wrong{suffix}"
    if content is not None:
        file.write_bytes(content)
    arguments[arguments.index(option) + 1] = str(file)
    assert run(fit.main, arguments) == 1
    error = capsys.readouterr().err
    assert words in error and "wrong" in error and "Traceback" not in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_landmarks_far_from_the_photograph_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = photograph(tmp_path)
    np.save(tmp_path / "photo.npy", np.load(tmp_path / "photo.npy") + 1e4)
    assert run(fit.main, arguments) == 1
    assert "photo.npy" in capsys.readouterr().err


def test_a_flat_landmark_file_does_not_end_in_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = photograph(tmp_path)
    points = np.load(tmp_path / "photo.npy")
    np.save(tmp_path / "photo.npy", np.stack([points[:, 0], points[:, 0] * 0.5 + 10], 1))
    assert run(fit.main, arguments) == 1
    assert "line" in capsys.readouterr().err
    assert math.isfinite(points.sum())


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        ("size=0", 2, "size"),
        ("size=1", 2, "size"),
        ("size=4096", 2, "size"),
        ("image=out/overlay.png", 2, "overwritten"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_fit(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    word: str,
    code: int,
    says: str,
) -> None:
    monkeypatch.setattr(fit, "fit_face", None)
    monkeypatch.chdir(tmp_path)
    assert run(fit.main, [*photograph(tmp_path), "out=out", word]) == code
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_folder_that_cannot_be_written_to_is_found_before_the_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "fit_face", None)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "access", lambda path, mode: "closed" not in str(path))  # root may write anywhere
    (tmp_path / "closed").mkdir()
    for out, says in (("file/out", "is no folder"), ("closed/out", "may not be written to")):
        assert run(fit.main, [*photograph(tmp_path), f"out={tmp_path / out}"]) == 1
        assert says in capsys.readouterr().err

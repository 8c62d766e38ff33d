"""Errors in the image plane: the same pixels for everybody."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from small_head import small_head

from facegpt.data.held_out import target_groups
from facegpt.errors import SampleError
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.image_errors import ImageErrors, image_errors, outline
from facegpt.render.renderer import render
from facegpt.sample import FaceRecord
from facegpt.standins.synthetic import sample_parameters

SIZE = 48


def records(truth: FaceParameters) -> list[FaceRecord]:
    shown = render(small_head(), truth, SIZE)
    pixels = (255 * shown.image.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy()
    return [
        FaceRecord(f"face-{n}", Image.fromarray(pixels[n]), shown.landmarks[n], shown.skin_mask[n])
        for n in range(len(truth))
    ]


def errors(
    known: list[FaceRecord], faces: dict[str, FaceParameters], right: FaceParameters | None, size: int = SIZE
) -> dict[str, ImageErrors]:
    names = [record.id for record in known]
    return image_errors(names, target_groups(known, size), faces, small_head(), right)


def truth(count: int = 3) -> FaceParameters:
    return sample_parameters(small_head(), count, torch.Generator().manual_seed(0))


def test_the_truth_has_no_error_but_rounding_and_anything_else_has_more() -> None:
    faces, mean = truth(), small_head().mean_parameters()
    found = errors(records(faces), {"truth": faces, "mean": mean}, faces)
    assert found["truth"].landmark.max() < 1e-3
    assert found["truth"].photometric.max() <= math.sqrt(3) * 0.5 / 255 + 1e-6
    assert (found["mean"].landmark > 1).all() and (found["mean"].photometric > 0.02).all()


def test_a_face_outside_the_image_pays_for_every_pixel_of_the_true_skin() -> None:
    faces = truth()
    gone = faces.replace(camera=faces.camera + torch.tensor([0.0, 10.0, 0.0]))
    shrunk = faces.replace(camera=faces.camera * torch.tensor([0.3, 1.0, 1.0]))
    found = errors(records(faces), {"gone": gone, "shrunk": shrunk}, faces)
    shown = render(small_head(), faces, SIZE)
    brightness = shown.image.clamp(0, 1).norm(dim=1)  # distance to black
    expected = (brightness * shown.skin_mask).sum((1, 2)) / shown.skin_mask.sum((1, 2))
    assert torch.allclose(found["gone"].photometric, expected, atol=2e-3)
    assert (found["shrunk"].photometric > 0.3 * expected).all()


def test_without_known_parameters_the_outline_of_the_landmarks_bounds_the_skin() -> None:
    faces = truth()
    known = records(faces)
    for record in known:
        record.skin_mask = torch.ones(SIZE, SIZE)
    found = errors(known, {"truth": faces}, None)["truth"]
    assert (
        found.photometric < 0.1
    ).all()  # the black surroundings, which the truth matches too, do not count
    far = faces.replace(camera=faces.camera + torch.tensor([0.0, 10.0, 0.0]))
    inside = errors(known, {"far": far}, None)["far"].photometric
    assert (inside > 0.4).all()  # black face: the mask holds face pixels, not background


def test_errors_are_those_of_a_224_crop_at_any_size() -> None:
    faces = truth(1)
    record = records(faces)[0]
    moved = faces.replace(camera=faces.camera + torch.tensor([[0.0, 0.004, 0.0]]))
    expected = 0.004 * float(faces.camera[0, 0]) * 112
    for size in (SIZE, 24):
        found = errors([record], {"moved": moved}, faces, size)["moved"].landmark
        assert float(found) == pytest.approx(expected, rel=1e-3)


def test_a_face_without_skin_is_named() -> None:
    faces = truth(1)
    record = records(faces)[0]
    record.skin_mask = torch.zeros(SIZE, SIZE)
    with pytest.raises(SampleError, match="face-0 shows no skin"):
        errors([record], {"truth": faces}, faces)


def test_the_outline_has_the_area_of_its_polygon() -> None:
    angles = torch.linspace(0, 2 * math.pi, 28)[:-1]
    circle = torch.stack([50 + 30 * torch.cos(angles), 50 + 30 * torch.sin(angles)], 1)
    landmarks = torch.full((68, 2), 50.0)
    landmarks[[*range(17), *range(26, 16, -1)]] = circle
    x, y = circle.T.double()
    shoelace = 0.5 * float((x * y.roll(-1) - y * x.roll(-1)).sum())
    filled = outline(landmarks, 100)
    # Pillow also fills the pixels that the border line touches: about half a pixel around.
    assert shoelace <= float(filled.sum()) <= shoelace + 2 * math.pi * 30
    rows, columns = torch.nonzero(filled, as_tuple=True)
    assert float(rows.double().mean()) + 0.5 == pytest.approx(50, abs=0.5)
    assert float(columns.double().mean()) + 0.5 == pytest.approx(50, abs=0.5)


def test_landmarks_that_were_not_given_are_not_compared() -> None:
    faces, mean = truth(2), {"mean": small_head().mean_parameters()}
    known = records(faces)
    expected = errors(known, mean, faces)["mean"].landmark
    for record in known:
        record.landmarks[:17] += 5.0
        record.landmark_valid = torch.arange(68) >= 17
    found = errors(known, mean, faces)["mean"].landmark
    shown = render(small_head(), mean["mean"], SIZE).landmarks
    inner = (shown - torch.stack([r.landmarks for r in known]))[:, 17:].norm(dim=2).mean(1) * 224 / SIZE
    assert torch.allclose(found, inner) and not torch.allclose(found, expected)

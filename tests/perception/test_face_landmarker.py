"""Faces of photographs: the geometry around the networks by mathematics, the networks by rendered faces."""

import io
import math
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from facegpt.errors import CheckpointError, FaceGPTError
from facegpt.head.model import HeadModel
from facegpt.parts import part_path
from facegpt.perception.align import crop_face
from facegpt.perception.face_detector import Detection, anchors, merge, views
from facegpt.perception.face_landmarker import SIZE, FaceLandmarker, _distinct, read_task
from facegpt.perception.face_points import BLENDSHAPE_POINTS, BLENDSHAPES, COUNT, to_landmarks
from facegpt.perception.photo import crop_largest_face
from facegpt.perception.squares import Square, cut_square
from facegpt.render.renderer import render
from facegpt.standins.synthetic import background, photograph, sample_parameters
from facegpt.visualize import to_pil
from tests.tflite_writer import Model


def ramp(width: int, height: int) -> Image.Image:
    """A picture whose red is x and whose green is y, at pixel centers."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("side", [20.0, 61.0, 190.0])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
def test_a_square_shows_what_lies_where_its_points_say(side, angle):
    square = Square(128.0, 120.0, side, angle)
    seen = cut_square(ramp(256, 256), square, 16) * 255
    centers = (np.stack(np.meshgrid(np.arange(16), np.arange(16)), axis=-1) + 0.5) / 16
    places = square.to_picture(centers)
    within = (np.abs(places - 128) < 120).all(axis=-1)
    # A pixel's value is that of its center, half a pixel from its corner; 8-bit values are rounded twice.
    np.testing.assert_allclose(seen[:2].permute(1, 2, 0).numpy()[within], places[within] - 0.5, atol=1.01)


def test_a_turned_square_has_its_x_axis_along_the_angle():
    ends = Square(10, 20, 4, math.radians(30)).to_picture(np.array([[0.0, 0.5], [1.0, 0.5]]))
    np.testing.assert_allclose(ends[1] - ends[0], [4 * math.cos(math.radians(30)), 2.0])
    np.testing.assert_allclose(ends.mean(axis=0), [10, 20])


def test_what_lies_outside_the_picture_is_black():
    white = Image.new("RGB", (10, 10), "white")
    assert cut_square(white, Square(100, 100, 20), 8).sum() == 0
    seen = cut_square(white, Square(0, 5, 10), 10)
    assert seen[:, :, :4].sum() == 0
    assert (seen[:, :, 6:] == 1).all()


@pytest.mark.parametrize("size", [(100, 80), (640, 300), (300, 900), (4000, 3000)])
def test_the_detector_sees_the_whole_picture_and_every_place_in_two_views_or_more(size):
    squares = views(*size)
    assert squares[0].side == max(size)
    places = np.random.default_rng(0).uniform(0, 1, (200, 2)) * size
    for place in places:
        seen = sum(max(abs(place[0] - s.x), abs(place[1] - s.y)) <= s.side / 2 + 1e-9 for s in squares)
        assert seen >= (2 if max(size) < 256 else 3)


def test_anchors_are_centers_of_cells():
    centers = anchors()
    assert centers.shape == (896, 2)
    torch.testing.assert_close(centers[:3], torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.5, 0.5]]) / 16)
    torch.testing.assert_close(centers[512 + 6], torch.tensor([1.5, 0.5]) / 8)
    torch.testing.assert_close(centers.mean(dim=0), torch.tensor([0.5, 0.5]))


def test_detections_of_one_face_are_averaged_by_their_score():
    eyes = np.array([[3.0, 4.0], [7.0, 4.0]])
    found = merge(
        [
            Detection(5, 5, 10, 10, eyes, 0.6),
            Detection(6, 5, 10, 12, eyes + 1, 0.9),
            Detection(50, 5, 10, 10, eyes, 0.7),
        ]
    )
    assert [face.score for face in found] == [0.9, 0.7]
    assert found[0].x == pytest.approx((5 * 0.6 + 6 * 0.9) / 1.5)
    assert found[0].height == pytest.approx((10 * 0.6 + 12 * 0.9) / 1.5)
    np.testing.assert_allclose(found[0].eyes, eyes + 0.6)
    assert merge([]) == []


def test_the_square_of_a_detection_is_level_with_its_eyes():
    square = Detection(5, 6, 10, 8, np.array([[0.0, 0.0], [2.0, 2.0]]), 1.0).square()
    assert (square.x, square.y, square.side) == (5, 6, 15)
    assert math.degrees(square.angle) == pytest.approx(45)


def mesh(scale: float = 100.0) -> torch.Tensor:
    """Some mesh (1,478,3) with eyes apart and the chin below the forehead."""
    points = torch.rand(1, COUNT, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for index, place in {
        33: (0.2, 0.4, 0.5),
        263: (0.8, 0.4, 0.5),
        10: (0.5, 0, 0.5),
        152: (0.5, 1, 0.6),
    }.items():
        points[0, index] = torch.tensor(place, dtype=torch.float64)
    return scale * points


def test_landmarks_turn_and_grow_with_the_points():
    points, angle = mesh(), 0.7
    turn = torch.eye(3, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    shift = torch.tensor([5.0, -8.0, 0.0], dtype=torch.float64)
    moved = to_landmarks(2 * points @ turn + shift)
    torch.testing.assert_close(moved, 2 * to_landmarks(points) @ turn[:2, :2] + shift[:2])


def test_landmarks_of_a_mirrored_face_are_those_of_the_face_mirrored():
    """The corners of eyes and mouth, for which the mirrored points are known."""
    points = mesh()
    mirrored = points.clone()
    for left, right in ((33, 263), (133, 362), (61, 291)):
        mirrored[:, [left, right]] = points[:, [right, left]]
    mirrored[..., 0] = 100 - mirrored[..., 0]
    a, b = to_landmarks(points)[0], to_landmarks(mirrored)[0]
    for left, right in ((36, 45), (39, 42), (48, 54)):
        torch.testing.assert_close(
            a[left] * a.new_tensor([-1, 1]) + a.new_tensor([100, 0]), b[right], atol=3, rtol=0
        )


def test_what_lies_within_a_larger_face_is_none():
    big, small = mesh(100).numpy(), mesh(30).numpy()
    aside = small + np.array([300, 0, 0])
    points = np.concatenate([small + 10, big, aside, big + 500])
    faces = _distinct(points, np.array([0.99, 0.9, 0.8, 0.3]))
    assert [face.score for face in faces] == [0.9, 0.8]
    assert faces[1].box[0] == pytest.approx(300, abs=1)
    assert faces[0].landmarks.shape == (68, 2)
    assert _distinct(big * np.nan, np.ones(1)) == []


def test_tables_name_each_thing_once():
    assert len(set(BLENDSHAPES)) == len(BLENDSHAPES) == 52
    assert len(set(BLENDSHAPE_POINTS)) == len(BLENDSHAPE_POINTS) == 146
    assert max(BLENDSHAPE_POINTS) == COUNT - 1


def archive(path, **files: bytes):
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            out.writestr(f"{name}.tflite", content)
    return path


def test_other_files_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "a.task").write_bytes(b"no archive at all")
    small = Model((1, 4))
    content = small.content(small.add("NEG", [0], (1, 4)))
    broken = bytearray(archive(tmp_path / "c.task", face_detector=content).read_bytes())
    broken[60] ^= 255
    (tmp_path / "d.task").write_bytes(bytes(broken))
    archive(tmp_path / "b.task", something=content)
    for name, said in {
        "missing.task": "cannot be read", "a.task": "cannot be read", "b.task": "face_detector",
        "c.task": "another design", "d.task": "cannot be read",
    }.items():  # fmt: skip
        with pytest.raises(CheckpointError, match=f"{name}: .*{said}"):
            read_task(tmp_path / name)


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    try:
        return FaceLandmarker.open(part_path("face_landmarker"))
    except FaceGPTError as error:
        pytest.skip(f"needs the part face_landmarker: {error}")


@pytest.fixture(scope="module")
def rendered() -> tuple[list[Image.Image], torch.Tensor]:
    """Four crops that the face fills, as training has them, and their true landmarks."""
    generator = torch.Generator().manual_seed(11)
    head = HeadModel.builtin()
    with torch.no_grad():
        rendering = render(head, sample_parameters(head, 4, generator), 224)
    images = photograph(rendering, background(4, 224, generator), generator)
    return [to_pil(image) for image in images], rendering.landmarks


def error(found: torch.Tensor, true: torch.Tensor, first: int = 0) -> float:
    """Mean distance, from a first landmark on, over that of the outer corners of the eyes."""
    return float((found - true)[first:].norm(dim=-1).mean() / (true[36] - true[45]).norm())


def test_rendered_faces_are_found_once_with_their_landmarks(landmarker, rendered):
    """Over 200 faces the mean is 0.036, of the inner 51 points 0.027; far turned ones have twice that."""
    found = []
    for image in rendered[0]:
        (face,) = landmarker.find(image)
        assert face.score > 0.9
        found.append(face.landmarks)
    pairs = list(zip(found, rendered[1], strict=True))
    assert max(error(*pair) for pair in pairs) < 0.1
    assert np.mean([error(*pair) for pair in pairs]) < 0.06
    assert np.mean([error(*pair, 17) for pair in pairs]) < 0.045


def test_a_turned_and_larger_picture_has_the_same_points(landmarker, rendered):
    image = rendered[0][0].resize((448, 448), Image.Resampling.BICUBIC)
    (small,) = landmarker.find(rendered[0][0])
    (turned,) = landmarker.find(image.rotate(25, Image.Resampling.BICUBIC))
    cos, sin = math.cos(math.radians(25)), math.sin(math.radians(25))
    # Counterclockwise to the eye, about the center, with y down.
    expected = (2 * small.points[:, :2] - 224) @ torch.tensor([[cos, -sin], [sin, cos]]) + 224
    eyes = float((expected[33] - expected[263]).norm())
    assert float((turned.points[:, :2] - expected).norm(dim=1).mean()) < 0.05 * eyes


def test_faces_come_largest_first(landmarker, rendered):
    canvas = Image.new("RGB", (700, 400), (90, 100, 110))
    canvas.paste(rendered[0][0].resize((120, 120)), (20, 40))
    canvas.paste(rendered[0][1], (300, 80))
    faces = landmarker.find(canvas)
    assert len(faces) == 2
    assert faces[0].box[0] > 300 > 140 > faces[1].box[2]
    assert error(faces[0].landmarks, rendered[1][1] + torch.tensor([300, 80])) < 0.06


def test_grey_pictures_and_pictures_without_a_face(landmarker, rendered):
    assert len(landmarker.find(ImageOps.grayscale(rendered[0][0]))) == 1
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    for image in (Image.fromarray(noise), Image.new("RGB", (1, 1)), Image.new("RGB", (3, 900), "white")):
        assert landmarker.find(image) == []
        assert crop_largest_face(image, landmarker) is None


def test_a_photograph_becomes_the_crop_of_training_data(landmarker, rendered):
    """A training crop within a larger picture is cut out again, to a twentieth of its side."""
    image, true = rendered[0][2], rendered[1][2]
    crop, expected, _ = crop_face(image, true)
    canvas = Image.new("RGB", (900, 700), (60, 70, 80))
    canvas.paste(image.resize((448, 448), Image.Resampling.BICUBIC), (200, 100))
    found = crop_largest_face(canvas, landmarker)
    assert found is not None
    assert found[0].size == crop.size == (224, 224)
    assert float((found[1] - expected).norm(dim=1).mean()) < 224 / 20
    assert torch.isclose(
        found[2][0].landmarks.mean(dim=0), 2 * true.mean(dim=0) + torch.tensor([200, 100]), atol=8
    ).all()


def test_blendshapes_do_not_depend_on_place_and_size(landmarker, rendered):
    points = torch.stack([landmarker.find(image)[0].points for image in rendered[0]])
    values = landmarker.blendshapes(points)
    assert values.shape == (4, 52)
    assert 0 <= float(values.min()) <= float(values.max()) <= 1
    torch.testing.assert_close(landmarker.blendshapes(3 * points + 50), values, atol=1e-4, rtol=0)


def test_points_are_differentiable_in_the_picture(landmarker):
    crop = torch.rand(1, 3, SIZE, SIZE, requires_grad=True)
    points, score = landmarker.locate(crop)
    (points.mean() + score.sum()).backward()
    assert crop.grad is not None
    assert float(crop.grad.abs().max()) > 0


def test_networks_equal_the_reference_runtime(landmarker, rendered):
    reference = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="needs ai-edge-litert to compare with"
    )
    crops = torch.stack([torch.from_numpy(np.array(image.resize((SIZE, SIZE)))) for image in rendered[0]])
    with zipfile.ZipFile(part_path("face_landmarker")) as part, torch.no_grad():
        runs = {}
        for name in ("face_landmarks_detector", "face_blendshapes"):
            content = io.BytesIO(part.read(f"{name}.tflite")).getvalue()
            runs[name] = reference.Interpreter(model_content=content)
            runs[name].allocate_tensors()
        points, _ = landmarker.locate(crops.permute(0, 3, 1, 2) / 255)
        values = landmarker.blendshapes(points)
    for crop, mesh_, weights in zip(crops, points, values, strict=True):
        (raw, *_) = invoke(runs["face_landmarks_detector"], crop[None].numpy() / np.float32(255))
        expected = raw.reshape(COUNT, 3)
        assert np.abs(mesh_.numpy() - expected).max() < 0.5
        (raw,) = invoke(runs["face_blendshapes"], expected[None, list(BLENDSHAPE_POINTS), :2])
        assert np.abs(weights.numpy() - raw.reshape(52)).max() < 0.01


def invoke(interpreter, given: np.ndarray) -> list[np.ndarray]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]

"""The recipe for real photographs, on renderings of known faces in larger pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from evaluation_world import World
from PIL import Image
from recipes import load_recipe

from facegpt.errors import ConfigError, ImageError, LandmarkError, SampleError
from facegpt.evaluation.annotated_photographs import annotated_faces, cut_faces, same_face
from facegpt.files import read_jsonl
from facegpt.model.generation import Reply
from facegpt.render.renderer import render
from facegpt.sample import FACE_TOKEN
from facegpt.visualize import to_pil

photographs = load_recipe("eval/photographs.py")
WIDTH, HEIGHT, SIDE, CORNER = 300, 200, 128, (90, 40)


@dataclass
class Found:
    landmarks: torch.Tensor


class Everywhere:
    """Finds what it was told to find."""

    def __init__(self, *landmarks: torch.Tensor) -> None:
        self.found = [Found(points) for points in landmarks]

    def find(self, image: Image.Image) -> list[Found]:
        return self.found


def write_photographs(folder: Path, world: World, count: int = 2) -> torch.Tensor:
    """`count` renderings pasted into pictures, with their landmarks (count,68,2) in .npy and .pts files."""
    folder.mkdir()
    shown = render(world.head, world.truth[slice(count)], SIDE)
    landmarks = shown.landmarks + torch.tensor(CORNER)
    for number in range(count):
        picture = Image.new("RGB", (WIDTH, HEIGHT), "gray")
        picture.paste(to_pil(shown.image[number]), CORNER)
        picture.save(folder / f"{number}.png")
        rows = "\n".join(f"{x} {y}" for x, y in (landmarks[number] + 0.5).tolist())
        (folder / f"{number}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    Image.new("RGB", (9, 9)).save(folder / "not annotated.png")
    return landmarks


def write_xml(path: Path, landmarks: torch.Tensor, image: str) -> None:
    boxes = ""
    for points in landmarks:
        parts = [
            f"<part name='{k:02d}' x='{x:.4f}' y='{y:.4f}'/>"
            for k, (x, y) in enumerate((points - 0.5).tolist())
        ]
        boxes += f"<box>{''.join(parts)}</box>"
    path.write_text(f"<dataset><images><image file='{image}'>{boxes}</image></images></dataset>")


def run(world: World, name: str, folder: Path, out: Path, *more: str) -> dict:
    words = [word for word in world.words(name, out) if not word.startswith("data=")]
    photographs.main([*words, f"photographs={folder}", *more])
    return json.loads(out.read_text())


def test_faces_of_point_files_and_of_imglab_are_found(world: World, tmp_path: Path) -> None:
    landmarks = write_photographs(tmp_path / "p", world)
    write_xml(tmp_path / "p" / "faces.xml", landmarks, "1.png")
    faces = annotated_faces(tmp_path / "p")
    assert [face.id for face in faces] == ["1.png#1", "1.png#2", "0", "1"]
    assert torch.allclose(faces[0].landmarks, landmarks[0], atol=1e-3)
    assert torch.allclose(faces[3].landmarks, landmarks[1], atol=1e-3)
    assert [face.id for face in annotated_faces(tmp_path / "p" / "faces.xml")] == ["1.png#1", "1.png#2"]


def test_a_crop_maps_its_points_back_to_the_photograph(world: World, tmp_path: Path) -> None:
    landmarks = write_photographs(tmp_path / "p", world)
    cut = cut_faces(annotated_faces(tmp_path / "p"), Everywhere(landmarks[1] + 2, landmarks[1] + 90), 64)
    for one in cut:
        assert one.annotated.image.size == (64, 64) and one.found is not None
        inside = one.face.landmarks.double() @ one.annotated.matrix[:2, :2].T + one.annotated.matrix[:2, 2]
        assert inside.min() > 0 and inside.max() < 64
        assert torch.allclose(one.annotated.to_photograph(inside), one.face.landmarks.double(), atol=1e-4)
        assert one.found_landmarks is not None and torch.equal(one.found_landmarks, landmarks[1] + 2)
    nothing = cut_faces(annotated_faces(tmp_path / "p"), Everywhere(landmarks[1] + 90), 64)
    assert all(one.found is None and one.found_landmarks is None for one in nothing)


def test_the_face_with_the_largest_overlap_is_the_same() -> None:
    square = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    assert same_face(square, []) is None
    half = square + torch.tensor([5.0, 0.0])  # a third of the union
    assert same_face(square, [half]) is None
    near = square + torch.tensor([2.0, 0.0])  # two thirds
    assert same_face(square, [half, near, square + 100]) is near


def test_true_faces_spoken_into_the_crop_lie_on_the_points(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landmarks = write_photographs(tmp_path / "p", world)

    def know(evaluated: object, samples: list, *_: object) -> list[Reply]:
        """The true faces, with the camera that the crop needs: the picture's pixels are a similarity."""
        replies = []
        for number, (_, one) in enumerate(zip(samples, cut, strict=True)):
            zoom, shift = float(one.annotated.matrix[0, 0]), one.annotated.matrix[:2, 2]
            face = world.truth[number]
            scale, tx, ty = face.camera[0].tolist()
            side, half = zoom * SIDE, photographs.SIZE / 2
            # column = zoom * (corner + side/2 (1 + s (x + tx))) + shift must be half (1 + s' (x + tx')).
            new = scale * side / photographs.SIZE
            middle = [
                zoom * (corner + SIDE / 2) + float(move) for corner, move in zip(CORNER, shift, strict=True)
            ]
            camera = [new, tx + (middle[0] - half) / (half * new), ty - (middle[1] - half) / (half * new)]
            spoken = face.replace(camera=torch.tensor([camera]))
            replies.append(Reply(FACE_TOKEN, torch.zeros(1), spoken, torch.ones(1)))
        return replies

    cut = cut_faces(annotated_faces(tmp_path / "p"), None, photographs.SIZE)
    monkeypatch.setattr(photographs, "replies_to", know)
    result = run(world, "silent", tmp_path / "p", tmp_path / "r.json")
    table = result["annotated"]["point_error"]
    assert set(table) == {"all", "inner", "contour"} and table["all"]["median"] < 1e-3
    assert result["mean_face_best_place"]["all"]["median"] > 0.02
    assert result["annotated"]["emission"]["share_with_face"] == 1.0 and result["n"] == 2
    assert len(landmarks) == 2 and "found" not in result and result["landmarker"] is None


def test_both_crops_are_asked_about_and_drawn(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landmarks = write_photographs(tmp_path / "p", world)
    monkeypatch.setattr(photographs, "open_finder", lambda path: Everywhere(landmarks[0] + 1))
    faces = tmp_path / "p"
    result = run(world, "speaks", faces, tmp_path / "r.json", "landmarker=x", "prompt=Show me", "pictures=1")
    assert result["found"]["n"] == 2 and result["annotated"]["n"] == 2 and result["photographs"] == 2
    eyes = landmarks[0, 45] - landmarks[0, 36]
    rows = read_jsonl(tmp_path / "r_samples.jsonl")
    assert [(row["kind"], row["id"]) for row in rows] == [
        (way, name) for way in ("annotated", "found") for name in ("0", "1")
    ]
    assert result["landmarker"]["inner"]["median"] > 0
    own = 2**0.5 / float(eyes.norm())
    errors = [own, result["landmarker"]["all"]["mean"] * 2 - own]
    assert min(errors) == pytest.approx(own, rel=1e-3)
    for way in ("annotated", "found"):
        with Image.open(tmp_path / f"r_{way}_01.jpg") as sheet:
            assert sheet.width > 3 * photographs.SIZE and sheet.height < 2 * photographs.SIZE


def test_a_silent_model_is_scored_as_the_mean_face_in_the_crop(world: World, tmp_path: Path) -> None:
    write_photographs(tmp_path / "p", world)
    result = run(world, "silent", tmp_path / "p", tmp_path / "r.json", "n=1", "pictures=0")
    assert result["n"] == 1 and result["annotated"]["emission"]["share_with_face"] == 0.0
    error = result["annotated"]["point_error"]["all"]["median"]
    assert error == pytest.approx(result["annotated"]["mean_face"]["all"]["median"], rel=1e-4)
    assert error >= result["mean_face_best_place"]["all"]["median"] > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["p", "r.json", "r_samples.jsonl"]


def test_what_cannot_be_measured_is_named(world: World, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with pytest.raises(ConfigError, match="photographs"):
        photographs.main([f"checkpoint={world.path / 'speaks'}", f"out={out}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SampleError, match="has no annotated faces"):
        run(world, "speaks", tmp_path / "empty", out)
    landmarks = write_photographs(tmp_path / "p", world)
    write_xml(tmp_path / "p" / "faces.xml", landmarks, "../secret.png")
    with pytest.raises(ImageError, match="leaves"):
        run(world, "speaks", tmp_path / "p", out)
    write_xml(tmp_path / "p" / "faces.xml", landmarks, "gone.png")
    with pytest.raises(ImageError, match=r"gone\.png"):
        run(world, "speaks", tmp_path / "p", out)
    write_xml(tmp_path / "p" / "faces.xml", landmarks + 1000, "0.png")
    with pytest.raises(LandmarkError, match=r"0\.png#1 does not fit"):
        run(world, "speaks", tmp_path / "p", out)
    assert not out.exists()

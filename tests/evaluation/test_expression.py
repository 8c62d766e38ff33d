"""Expressions in ARKit's units: faces with known coefficients, the numbers made of them, and the recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import load_recipe

from facegpt.config import UsageError
from facegpt.errors import HeadMismatchError, SampleError
from facegpt.evaluation.blendshapes import (
    FULL_JAW,
    calibrate,
    calibration_faces,
    compare,
    mean_correlation,
    movements,
)
from facegpt.export.face_files import write_faces
from facegpt.files import read_jsonl
from facegpt.head.model import HeadModel
from facegpt.perception.face_points import BLENDSHAPES

expression = load_recipe("eval/expression.py")


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.builtin()


def test_every_unit_is_moved_once():
    moved = [unit for units in movements().values() for unit in units]
    assert sorted(moved) == sorted(BLENDSHAPES[1:])
    assert movements()["eyeBlink"] == ("eyeBlinkLeft", "eyeBlinkRight")
    assert movements()["jawLeft"] == ("jawLeft",)


def test_calibration_faces_are_at_rest_but_for_one_movement(head):
    faces, names, amounts = calibration_faces(head, 2, torch.Generator().manual_seed(0), 0.5)
    assert 0 <= float(amounts.min()) < float(amounts.max()) <= 0.5
    columns = head.expression_names
    for row, name in enumerate(names):
        moved = {columns[k] for k in torch.nonzero(faces.expression[row])[:, 0].tolist()}
        assert moved == set(movements()[name]) & set(columns)
        opened = name in ("jawOpen", "mouthClose")
        assert bool(faces.pose[row, 3] > 0) == opened and float(faces.pose[row, 4:].abs().max()) == 0
        assert bool(faces.eyes[row].any()) == name.startswith(("gaze", "eyeLook"))
    row = names.index("jawOpen")
    assert float(faces.pose[row, 3]) == pytest.approx(FULL_JAW * float(amounts[row]))


def test_eyes_turn_where_the_movement_says(head):
    """The front of the eyeballs moves to the subject's left (x), or up (y)."""
    faces, names, _ = calibration_faces(head, 1, torch.Generator().manual_seed(0))
    still = faces.replace(
        eyes=torch.zeros_like(faces.eyes), pose=torch.zeros_like(faces.pose),
        expression=torch.zeros_like(faces.expression), shape=torch.zeros_like(faces.shape),
    )  # fmt: skip
    with torch.no_grad():
        before, after = head(still).vertices, head(still.replace(eyes=faces.eyes)).vertices
    weights = torch.as_tensor(head.data.skinning_weights)
    for joint in (3, 4):
        ball = weights[:, joint] > 0.99
        front = torch.nonzero(ball)[before[0, ball, 2].argmax()].item()
        for name, axis, sign in (
            ("gazeLeft", 0, 1), ("gazeRight", 0, -1), ("eyeLookUp", 1, 1), ("eyeLookDown", 1, -1),
        ):  # fmt: skip
            way = (after - before)[names.index(name), front]
            assert sign * float(way[axis]) > 0.8 * float(way.norm()) > 0


def test_other_heads_are_refused():
    class Numbered:
        expression_names = ("expression_0",)

    with pytest.raises(HeadMismatchError, match="ARKit's names"):
        calibration_faces(Numbered(), 1, torch.Generator())  # type: ignore[arg-type]


def test_calibration_says_what_follows_its_coefficient():
    names = ["mouthSmile"] * 40 + ["cheekPuff"] * 40 + ["noseSneer"] * 40
    random = torch.Generator().manual_seed(0)
    amounts = torch.rand(120, generator=random)
    seen = torch.rand(120, 52, generator=random)  # of the other movements, whose values must not count
    left, right, puff = (BLENDSHAPES.index(u) for u in ("mouthSmileLeft", "mouthSmileRight", "cheekPuff"))
    seen[:40, left] = 0.1 + 0.8 * amounts[:40]
    seen[:40, right] = 0.3
    seen[40:80, puff] = 1e-4 * amounts[40:80]
    seen[80:83] = torch.nan
    table = calibrate(names, amounts, seen, 0)
    smile = table["mouthSmileLeft"]
    assert smile["seen"] and smile["n"] == 40 and smile["movement"] == "mouthSmile"
    assert smile["correlation"] == pytest.approx(1) and smile["slope"] == pytest.approx(0.8)
    assert table["mouthSmileRight"]["correlation"] == 0 and not table["mouthSmileRight"]["seen"]
    assert (
        table["cheekPuff"]["correlation"] == pytest.approx(1) and not table["cheekPuff"]["seen"]
    )  # too weak
    assert table["noseSneerLeft"]["n"] == 37 and not table["noseSneerLeft"]["seen"]
    assert table["jawOpen"] == {
        "movement": "jawOpen", "n": 0, "correlation": None, "slope": None, "seen": False,
    }  # fmt: skip


def test_comparison_has_pearsons_correlation_and_leaves_out_lost_faces():
    random = torch.Generator().manual_seed(1)
    photograph = torch.rand(50, 52, generator=random)
    rendering = 0.5 * photograph + 0.3 * torch.rand(50, 52, generator=random)
    photograph[:, 5] = 0.01
    rendering[7] = torch.nan
    table = compare(photograph, rendering, 0)
    kept = [k for k in range(50) if k != 7]
    expected = np.corrcoef(photograph[kept, 9].numpy(), rendering[kept, 9].numpy())[0, 1]
    row = table[BLENDSHAPES[9]]
    assert row["n"] == 49 and row["varies"] and row["correlation"] == pytest.approx(expected, abs=1e-6)
    assert row["correlation_95"][0] < expected < row["correlation_95"][1]
    assert not table[BLENDSHAPES[5]]["varies"] and BLENDSHAPES[0] not in table
    count, mean = mean_correlation(table, "varies")
    others = [table[name]["correlation"] for k, name in enumerate(BLENDSHAPES) if k not in (0, 5)]
    assert count == 50 and mean == pytest.approx(np.mean(others))
    assert compare(photograph[:1], rendering[:1], 0) == {}


@dataclass
class Found:
    points: torch.Tensor
    landmarks: torch.Tensor


class Landmarker:
    """Sees in every unit how bright the picture is, and no face in a black one."""

    def __init__(self) -> None:
        self.mixer = torch.nn.Linear(1, 1)

    def find(self, image: Image.Image) -> list[Found]:
        light = float(np.asarray(image.convert("L")).mean()) / 255
        corners = torch.tensor([[0.3, 0.3], [0.7, 0.7]]).repeat(34, 1) * torch.tensor(image.size)
        return [Found(torch.full((478, 3), light), corners)] if light else []

    def blendshapes(self, points: torch.Tensor) -> torch.Tensor:
        return points[:, :52, 0]


@pytest.fixture
def seeing(monkeypatch):
    monkeypatch.setattr(expression.FaceLandmarker, "open", lambda path: Landmarker())
    monkeypatch.setattr(expression, "SIZE", 24)


def test_fits_are_compared_with_their_photographs(seeing, head, tmp_path, capsys):
    photos, fits = tmp_path / "photos", tmp_path / "fits"
    for number, light in enumerate((60, 120, 180, 0)):
        photos.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (light,) * 3).save(photos / f"{number}.png")
        face = head.mean_parameters()
        (fits / str(number)).mkdir(parents=True)
        brighter = face.replace(lighting=face.lighting * (light + 20) / 150, pose=torch.full((1, 6), 0.05))
        write_faces(fits / str(number) / "parameters.json", brighter, head)
    out = tmp_path / "out.json"
    expression.main([f"photographs={photos}", f"fits={fits}", f"out={out}", "each=0"])
    result = json.loads(out.read_text())["faces"]
    assert result["n"] == 3 and result["without_a_face"] == {"faces": 0, "at_rest": 0}
    smile = result["units"]["faces"]["mouthSmileLeft"]
    assert smile["correlation"] > 0.99 and smile["varies"] and not smile["varies_and_seen"]
    assert result["faces"]["mean_varies"][0] == 51
    rows = read_jsonl(tmp_path / "out_samples.jsonl")
    assert [row["kind"] for row in rows] == ["photograph"] * 3 + ["faces"] * 3 + ["at_rest"] * 3
    assert rows[1]["seen"]["jawOpen"] == pytest.approx(120 / 255, abs=1e-3)
    assert "3.png: no face" in capsys.readouterr().err
    with pytest.raises(SampleError, match=r"parameters\.json"):
        (fits / "1" / "parameters.json").unlink()
        expression.main([f"photographs={photos}", f"fits={fits}", f"out={out}", "each=0"])


def test_the_calibration_is_written(seeing, tmp_path):
    out = tmp_path / "out.json"
    expression.main([f"out={out}", "each=1", "strength=2"])
    result = json.loads(out.read_text())
    assert set(result["calibration"]) == set(BLENDSHAPES[1:]) and result["head_id"]
    assert len(read_jsonl(tmp_path / "out_samples.jsonl")) == len(movements())


@pytest.mark.parametrize(
    "words", [["photographs=p"], ["checkpoint=c"], ["each=0"], ["photographs=p", "checkpoint=c", "fits=f"]]
)
def test_impossible_wishes_are_refused(words):
    with pytest.raises(UsageError):
        expression.main(words)

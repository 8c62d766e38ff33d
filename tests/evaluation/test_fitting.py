"""eval/fitting.py: fits of faces with known parameters, with and without a prior."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from data_files import encode, write_shards
from recipes import load_recipe
from small_head import small_head, small_head_data

from facegpt.config import run
from facegpt.fitting.photograph import FitSettings
from facegpt.head.files.format import save_head
from facegpt.perception.face_landmarker import FoundFace
from facegpt.render.renderer import render
from facegpt.standins.synthetic import sample_parameters
from facegpt.visualize import to_pil

SIZE = 64


def test_fits_are_compared_with_the_truth_and_a_prior_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = load_recipe("eval/fitting.py")
    truth = sample_parameters(small_head(), 3, torch.Generator().manual_seed(0))
    shown = render(small_head(), truth, SIZE)
    rows = [
        {
            "id": f"face-{k}",
            "image": encode(to_pil(shown.image[k])),
            "landmarks": shown.landmarks[k].flatten().tolist(),
            "skin_mask": encode(to_pil(shown.skin_mask[k].expand(3, -1, -1)).convert("L")),
            "parameters": truth[k].to_vector()[0].tolist(),
        }
        for k in range(3)
    ]
    write_shards(tmp_path / "faces", rows)
    save_head(small_head_data(), tmp_path / "head.npz")
    queue = [*shown.landmarks[:2], None] * 2  # the third is not found
    plans: list[FitSettings] = []

    class Landmarker:
        open = staticmethod(lambda: Landmarker())

        def find(self, image: object) -> list[FoundFace]:
            points = queue.pop(0)
            return [] if points is None else [FoundFace(torch.zeros(478, 3), points, 1.0, (0, 0, 1, 1))]

        def blendshapes(self, points: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, 52)

    def quick(head: object, target: object, objective: object, plan: FitSettings, **rest: object) -> object:
        plans.append(plan)
        return truth[len(plans) - 1 : len(plans)] if len(plans) <= 2 else small_head().mean_parameters()

    monkeypatch.setattr(recipe, "FaceLandmarker", Landmarker)
    monkeypatch.setattr(recipe, "fit_face", quick)
    words = ["--data", str(tmp_path / "faces"), f"head={tmp_path / 'head.npz'}", f"size={SIZE}"]
    reports = []
    for extra in ([], ["without=crooked,robust"]):
        assert run(recipe.main, [*words, f"out={tmp_path / 'out.json'}", *extra]) == 0, (
            capsys.readouterr().err
        )
        reports.append(json.loads((tmp_path / "out.json").read_text()))
    exact, mean = reports
    assert exact["faces"] == 2 and exact["not_found"] == 1
    assert exact["expression_rms"] == 0 and exact["landmark_error_px"] < 0.01
    assert "crooked" not in exact, "the small head's components have no sides"
    assert exact["photometric_error"] < 0.02
    expected = float(truth.expression[:2].square().mean().sqrt())
    assert mean["expression_rms"] == pytest.approx(expected, rel=1e-5) and mean["landmark_error_px"] > 1
    assert plans[0] == FitSettings()
    assert plans[2].crooked == plans[2].landmark_delta == plans[2].pixel_delta == 0
    assert plans[2].color == FitSettings().color
    assert run(recipe.main, [*words, "out=x.json", "without=nose"]) == 2
    assert "there is no prior 'nose'" in capsys.readouterr().err

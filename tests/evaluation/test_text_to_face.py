"""The text-to-face recipe from command line to file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from evaluation_world import COUNT, World, write_faces
from recipes import load_recipe

from facegpt.errors import SampleError
from facegpt.evaluation import evaluated_model as evaluation
from facegpt.files import read_jsonl
from facegpt.model.generation import Reply
from facegpt.sample import FACE_TOKEN

text_to_face = load_recipe("eval/text_to_face.py")


def run(world: World, name: str, out: Path, *more: str) -> dict:
    text_to_face.main(world.words(name, out, *more))
    return json.loads(out.read_text())


def test_a_model_that_knows_the_faces_matches_them_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def know(evaluated: object, samples: list, *_: object) -> list[Reply]:
        numbers = [int(sample.id.removeprefix("face-")) for sample in samples]
        return [Reply(FACE_TOKEN, torch.zeros(1), world.truth[n], torch.ones(1)) for n in numbers]

    monkeypatch.setattr(text_to_face, "replies_to", know)
    result = run(world, "silent", tmp_path / "t.json", f"training_data={world.path / 'faces'}")
    assert result["n"] == COUNT
    drawn = result["matching_draws"]
    assert set(drawn) == {"both", "expression", "pose"}
    for table in drawn.values():
        assert table["model"]["share"] == 1.0 and table["model"]["factor_over_chance"] == 16
        assert table["shuffled_text"]["share"] < 0.3 and 0 <= table["ngram_ridge"]["share"] <= 1
    assert result["matching_draws_64"]["both"]["model"]["share"] == 1.0  # of all twenty
    surface, expression = result["surface"], result["expression_agreement"]
    names = {"model", "mean_face", "shuffled_text", "ngram_ridge", "nearest_text"}
    assert set(surface) == set(expression) == set(result["identity"]) == names
    assert surface["model"]["chamfer_mm"]["mean"] < 1e-3 < surface["mean_face"]["chamfer_mm"]["mean"]
    assert surface["model"]["complete_rate"]["mean"] == 100 and surface["model"]["chamfer_mm"]["n"] == COUNT
    assert expression["model"]["cosine"]["mean"] == pytest.approx(1.0)
    assert result["identity"]["model"]["recognition_rate"] == pytest.approx(100, abs=0.01)
    found = result["matching_16"]
    assert found["model"] == 1.0 and found["chance"] == 0.0625 and found["shuffled_text"] < 0.3
    assert result["by_aspect"]["pose"]["model"] == 1.0 and set(result["by_aspect"]) == {"pose", "expression"}
    rows = read_jsonl(tmp_path / "t_samples.jsonl")
    assert all(row["place_among_16"]["both"] == 1 and row["faces"] == 1 for row in rows)
    assert rows[3]["description"] == "A long face. It looks 3 degrees up."


def test_real_generation_gets_the_text_and_no_image(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    original = evaluation.answer

    def spy(model: object, samples: list, *rest: object) -> list[Reply]:
        seen.extend(samples)
        return original(model, samples, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "answer", spy)
    result = run(world, "speaks", tmp_path / "t.json")
    assert len(seen) == 2 * COUNT and all(sample.images == [] for sample in seen)
    assert result["emission"] == {"recall": 1.0, "recall_held_out_wording": 1.0}
    rows = read_jsonl(tmp_path / "t_samples.jsonl")
    assert [row["id"] for row in rows] == [f"face-{n}" for n in range(COUNT)]
    assert all(row["description"] in row["prompt"] for row in rows)


def test_a_silent_model_is_scored_as_the_mean_face(world: World, tmp_path: Path) -> None:
    result = run(world, "silent", tmp_path / "t.json")
    assert result["emission"]["recall"] == 0.0
    mean = world.head.mean_parameters().to_vector()[0].tolist()
    assert all(row["parameters"] == mean for row in read_jsonl(tmp_path / "t_samples.jsonl"))
    assert result["matching_16"]["model"] == result["matching_16"]["shuffled_text"]


def test_missing_descriptions_name_the_recipe_that_writes_them(world: World, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", world.head, world.truth[slice(2)], described=False)
    with pytest.raises(SampleError, match=r"describe\.py"):
        run(world, "silent", tmp_path / "t.json", f"data={tmp_path / 'faces'}")
    with pytest.raises(SampleError, match="matching among 16"):
        run(world, "silent", tmp_path / "t.json", "n=7")
    assert not (tmp_path / "t.json").exists()

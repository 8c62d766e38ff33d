"""The reconstruction recipe from command line to file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from data_files import write_photographs
from evaluation_world import COUNT, SIZE, World, write_faces
from recipes import load_recipe
from small_head import small_head_data

from facegpt.data.records import read_records
from facegpt.errors import CheckpointError, ConfigError, HeadMismatchError, SampleError
from facegpt.files import read_jsonl
from facegpt.head.files.format import save_head
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.image import landmark_error
from facegpt.render.renderer import render
from facegpt.sample import Sample

reconstruct = load_recipe("eval/reconstruct.py")


def run(world: World, name: str, out: Path, *more: str) -> dict:
    words = [f"instruct={world.path / 'chat.json'}", f"size={SIZE}", "questions=6", *more]
    reconstruct.main(world.words(name, out, *words))
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def spoken(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, list[dict]]:
    out = tmp_path_factory.mktemp("spoken") / "reconstruct.json"
    result = run(world, "speaks", out, f"training_data={world.path / 'faces'}")
    return result, read_jsonl(out.with_name("reconstruct_samples.jsonl"))


def test_the_file_has_the_promised_keys(spoken: tuple[dict, list[dict]]) -> None:
    result, _ = spoken
    assert result["n"] == COUNT
    for metric in ("landmark_error_px", "photometric_error"):
        assert all(result[metric][name] > 0 for name in ("model", "mean_face", "mean_face_training"))
    assert set(result["emission"]) >= {"recall", "false_positive_rate"}
    assert result["seed"] == 0 and result["training"] == {"step": 7} and "torch" in result["versions"]
    for groups in result["by_group"].values():
        assert sum(group["n"] for group in groups.values()) == COUNT


def test_a_model_that_always_shows_a_face_has_full_recall_and_full_false_positives(
    spoken: tuple[dict, list[dict]],
) -> None:
    emission = spoken[0]["emission"]
    assert emission["recall"] == 1.0 and emission["false_positive_rate"] == 1.0
    assert emission["requests"] == COUNT + 6 + 6 + 6 and emission["questions"] == 6 + 3


def test_the_errors_are_the_means_over_the_faces_that_were_answered(
    world: World, spoken: tuple[dict, list[dict]]
) -> None:
    result, rows = spoken
    shown = [row for row in rows if row["kind"] == "image"]
    assert [row["id"] for row in shown] == [f"face-{n}" for n in range(COUNT)]
    records = read_records(world.path / "faces")
    vectors = torch.tensor([row["parameters"] for row in shown])
    rendering = render(world.head, FaceParameters.from_vector(vectors, world.head.layout), SIZE)
    errors = landmark_error(rendering.landmarks, torch.stack([r.landmarks for r in records]), SIZE)
    assert result["landmark_error_px"]["model"] == pytest.approx(float(errors.mean()), rel=1e-4)
    mean = torch.stack([torch.tensor(row["photometric_error"]["mean_face"]) for row in shown]).mean()
    assert result["photometric_error"]["mean_face"] == pytest.approx(float(mean), rel=1e-5)


def test_the_training_baseline_is_the_face_of_the_mean_parameters(
    world: World, spoken: tuple[dict, list[dict]]
) -> None:
    mean = FaceParameters.from_vector(world.truth.to_vector().mean(0, keepdim=True), world.head.layout)
    points = render(world.head, mean, SIZE).landmarks
    truth = torch.stack([record.landmarks for record in read_records(world.path / "faces")])
    expected = float((points - truth).norm(dim=-1).mean()) * 224 / SIZE
    assert spoken[0]["landmark_error_px"]["mean_face_training"] == pytest.approx(expected, rel=1e-4)


def test_a_silent_model_is_scored_as_the_mean_face(world: World, tmp_path: Path) -> None:
    result = run(world, "silent", tmp_path / "r.json", "n=5")
    assert result["n"] == 5
    assert result["emission"]["recall"] == 0.0 and result["emission"]["false_positive_rate"] == 0.0
    for metric in ("landmark_error_px", "photometric_error"):
        assert result[metric]["model"] == result[metric]["mean_face"]


def test_bad_input_is_named_before_anything_is_written(world: World, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with pytest.raises(ConfigError, match="checkpoint"):
        reconstruct.main([f"out={out}"])
    with pytest.raises(CheckpointError, match="nothing-here"):
        reconstruct.main([*world.words("speaks", out), f"checkpoint={tmp_path / 'nothing-here'}"])
    with pytest.raises(SampleError, match="no-faces"):
        reconstruct.main([*world.words("speaks", out), f"data={tmp_path / 'no-faces'}"])
    save_head(small_head_data(seed=1), tmp_path / "other.npz")
    with pytest.raises(HeadMismatchError, match="trained with head model"):
        reconstruct.main([*world.words("speaks", out), f"head={tmp_path / 'other.npz'}"])
    with pytest.raises(ConfigError, match="n must be 0"):
        reconstruct.main([*world.words("speaks", out), "n=-3"])
    with pytest.raises(ConfigError, match="batch must be at least 1"):
        reconstruct.main([*world.words("speaks", out), "batch=0"])
    assert list(tmp_path.iterdir()) == [tmp_path / "other.npz"]


def test_the_side_of_the_comparison_is_not_what_the_model_sees_of_a_photograph(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def replies_to(evaluated: object, samples: list[Sample], *_: object) -> None:
        seen.extend(image.size for sample in samples for image in sample.images)
        raise KeyboardInterrupt

    monkeypatch.setattr(reconstruct, "replies_to", replies_to)
    photographs = write_photographs(tmp_path / "photographs")
    with pytest.raises(KeyboardInterrupt):
        run(world, "silent", tmp_path / "r.json", f"data={photographs}")  # size=48
    assert seen == [(224, 224)] * 2


def test_truth_of_another_head_is_refused(world: World, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", world.head, world.truth[slice(2)])
    file = tmp_path / "faces" / "dataset.json"
    file.write_text(json.dumps({"head_id": "another"}))
    with pytest.raises(HeadMismatchError, match="made with head model another"):
        run(world, "silent", tmp_path / "r.json", f"data={tmp_path / 'faces'}")

"""Training's validation and the evaluation recipe say the same of the same answers."""

from __future__ import annotations

import json

import pytest
import torch
from evaluation_world import World, write_faces
from recipes import load_recipe

from facegpt.head.parameters import FaceParameters
from facegpt.model.checkpoint import load_facegpt
from facegpt.model.generation import Reply
from facegpt.training.engine import Ranks
from facegpt.training.settings import DataSettings, SourceSettings, TrainSettings, ValidationSettings
from facegpt.training.validation import Validation, answered

reconstruct = load_recipe("eval/reconstruct.py")


def replies(world: World) -> dict[str, Reply]:
    """By record: a face near the truth, much too small or far off; and for every fourth no face at all."""
    ids, found = torch.zeros(1, dtype=torch.long), {}
    for number in range(len(world.truth)):
        truth = world.truth[number]
        changed = [truth.camera * 1.1, truth.camera * torch.tensor([0.2, 1, 1]), truth.camera + 0.02]
        face = None if number % 4 == 3 else truth.replace(camera=changed[number % 4])
        assert face is None or isinstance(face, FaceParameters)
        found[f"face-{number}"] = Reply("" if face is None else "<FACE>", ids, face, torch.ones(1))
    return found


@pytest.mark.parametrize("known", [True, False])
def test_the_same_sixteen_answers_give_the_same_numbers(world: World, tmp_path, monkeypatch, known) -> None:
    said = replies(world)
    data = tmp_path / "faces"
    write_faces(data, world.head, world.truth, known=known)
    monkeypatch.setattr(
        reconstruct, "replies_to", lambda evaluated, samples, *_: [said[sample.id] for sample in samples]
    )
    reconstruct.main(world.words("speaks", tmp_path / "r.json", f"data={data}", "n=16"))
    result = json.loads((tmp_path / "r.json").read_text())

    checkpoint = world.path / "speaks" / "checkpoints" / "step_000007"
    model, processor = load_facegpt(checkpoint, world.head, "cpu")
    settings = TrainSettings(
        data=DataSettings(sources={"faces": SourceSettings("image_to_face", str(data))}),
        validation=ValidationSettings(path=str(data), faces=16),
    )
    ranks = Ranks(0, 1, torch.device("cpu"))
    validation = Validation(settings, ranks, world.head, model, processor)
    monkeypatch.setattr(
        validation, "_ask", lambda prompts, _: [answered(p, said[p.sample.id]) for p in prompts]
    )
    values, _ = validation(None)
    assert values["image/landmark_error"] == pytest.approx(result["landmark_error_px"]["model"], rel=1e-5)
    assert values["image/photometric_error"] == pytest.approx(result["photometric_error"]["model"], rel=1e-5)
    assert values["image/emission_recall"] == 75.0

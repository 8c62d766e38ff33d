"""The speculative recipe from command line to file, with a model and from a predictions file alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_world import World
from recipes import ROOT, load_recipe

from facegpt.errors import SampleError
from facegpt.evaluation.action_units import FEELINGS
from facegpt.evaluation.replies import read_replies
from facegpt.evaluation.speculative_picture import prototype_face
from facegpt.evaluation.speculative_set import read_situations, speculative_requests
from facegpt.head.model import HeadModel

speculative = load_recipe("eval/speculative.py")
SITUATIONS = read_situations(ROOT / "eval" / "data" / "speculative.jsonl", "test", 1)


def reply(name: str, expression: dict[str, float], jaw: float = 0.0, pitch: float = 0.0) -> dict[str, Any]:
    rows = [{"group": "expression", "name": part, "value": value} for part, value in expression.items()]
    rows += [
        {"group": "pose", "name": "jaw_x", "value": jaw},
        {"group": "pose", "name": "head_x", "value": pitch},
    ]
    return {"id": name, "parameters": [rows]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prototype_replies() -> list[dict[str, Any]]:
    """What a model would say that knows every feeling, in no particular order."""
    head = HeadModel.builtin()
    shown = {feeling: prototype_face(head, feeling) for feeling in FEELINGS}
    right = {request.id: request.id.split("-")[0] for request in speculative_requests(SITUATIONS)}
    faces = {name: shown[feeling] for name, feeling in right.items()}
    return [reply(name, face.expression, face.jaw, face.pitch) for name, face in sorted(faces.items())]


def score(world: World, replies: Path, out: Path, *more: str) -> dict[str, Any]:
    words = [f"replies={replies}", f"out={out}", f"head={world.path / 'head.npz'}", "n=1", "names=false"]
    speculative.main([*words, *more])
    return json.loads(out.read_text())


def test_another_model_is_scored_from_its_predictions_alone(world: World, tmp_path: Path) -> None:
    rows = prototype_replies()
    first = score(world, write(tmp_path / "a.jsonl", rows), tmp_path / "a.json")
    table = first["situations"]
    assert table["nearest"]["of_faces"]["mean"] == table["direction"]["of_faces"]["mean"] == 1
    assert table["nearest"]["shuffled"]["mean"] == 0 and first["wordings_agree"]["mean"] == 1
    assert first["explicit"]["nearest"]["of_faces"]["n"] == len(FEELINGS) == first["n"]
    assert first["face_at_rest"]["moved"]["of_all"]["mean"] == 0 and first["reading"] == {}
    assert first["anatomy_mm"]["n"] == 0  # these predictions have no shape
    assert (tmp_path / "a.jpg").stat().st_size > 1000
    again = score(world, write(tmp_path / "b.jsonl", rows[::-1]), tmp_path / "b.json")
    assert again["situations"] == table and again["feelings"] == first["feelings"]


def test_a_model_that_gives_no_faces_is_wrong_everywhere(world: World, tmp_path: Path) -> None:
    rows = [{"id": request.id, "parameters": []} for request in speculative_requests(SITUATIONS)]
    found = score(world, write(tmp_path / "a.jsonl", rows), tmp_path / "a.json")
    assert found["situations"]["nearest"]["of_all"]["mean"] == 0
    assert found["situations"]["nearest"]["of_faces"]["mean"] is None
    assert found["emission"]["situations"]["share"] == 0


def test_the_model_is_asked_in_a_batch_and_its_backbone_what_it_reads(world: World, tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    words = [f"checkpoint={world.path / 'speaks'}", f"head={world.path / 'head.npz'}", f"out={out}"]
    speculative.main([*words, "n=1", "device=cpu", "max_new_tokens=2", "batch=7"])
    found = json.loads(out.read_text())
    assert found["emission"]["situations"]["share"] == 1 and found["anatomy_mm"]["n"] == 48
    assert set(found["reading"]["read_right"]) == {"calibrated", "pmi", "likelihood"}
    assert sum(sum(row["is_named"].values()) for row in found["feelings"].values()) == 48
    replies = tmp_path / "s_replies" / "replies.jsonl"
    scored = score(world, replies, tmp_path / "t.json")  # its own file gives the same numbers
    assert scored["situations"] == found["situations"] and scored["explicit"] == found["explicit"]


def test_missing_and_strange_replies_are_one_sentence(world: World, tmp_path: Path) -> None:
    rows = prototype_replies()
    with pytest.raises(SampleError, match="has no reply to happiness-02_2 and 0 more"):
        score(
            world,
            write(tmp_path / "a.jsonl", [r for r in rows if r["id"] != "happiness-02_2"]),
            tmp_path / "a.json",
        )
    assert not (tmp_path / "a.json").exists()
    strange = reply("x", {"mouthSmileLeft": float("nan")})
    with pytest.raises(SampleError, match=r"a\.jsonl:2 is no reply"):
        read_replies(write(tmp_path / "a.jsonl", [rows[0], strange]))
    with pytest.raises(SampleError, match="comes once"):
        read_replies(write(tmp_path / "a.jsonl", [rows[0], rows[0]]))
    with pytest.raises(SampleError, match="is not a file"):
        read_replies(tmp_path / "none.jsonl")

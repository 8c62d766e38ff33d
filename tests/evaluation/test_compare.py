"""Methods side by side: from results and from anybody's files, with numbers that are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_world import COUNT, SIZE, World
from html_pages import parse
from recipes import load_recipe

from facegpt.errors import ConfigError, HeadMismatchError, SampleError
from facegpt.evaluation.predictions import read_predictions
from facegpt.export.face_files import write_faces
from facegpt.export.mesh_io import export_mesh
from facegpt.files import read_jsonl

compare = load_recipe("eval/compare.py")
IDS = np.array([f"face-{n}" for n in range(COUNT)])


@pytest.fixture()
def codes(world: World, tmp_path: Path) -> Path:
    """The truth as vectors in DECA's order, in another order of faces, without the last one."""
    order = np.arange(COUNT)[::-1][1:]
    np.savez(tmp_path / "truth.npz", ids=IDS[order], codes=world.truth.to_vector().numpy()[order])
    return tmp_path / "truth.npz"


def words(world: World, out: Path, *more: str) -> list[str]:
    folder, head = world.path / "faces", world.path / "head.npz"
    return [f"data={folder}", f"head={head}", f"out={out}", f"size={SIZE}", "device=cpu", *more]


def test_the_truth_beats_the_mean_face_on_every_face(world: World, codes: Path, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    for index, name in enumerate(IDS):
        export_mesh(world.head.mesh(world.truth[index]), meshes / f"{name}.obj")
    out = tmp_path / "compare.json"
    compare.main(words(world, out, f"predictions={codes},{meshes}", "names=ours,meshes <b>", "faces=2"))
    found = json.loads(out.read_text())
    assert found["n"] == COUNT - 1 and found["methods"]["ours"]["missing"] == 1
    assert found["metrics"]["landmark_error_px"]["ours"]["mean"] < 1e-2
    assert found["metrics"]["identity"]["ours"]["mean"] == pytest.approx(100, abs=1e-3)
    for metric in ("vertices_face", "vertices_nose_aligned"):
        assert (
            found["metrics"][metric]["ours"]["mean"] < 1e-3 > found["metrics"][metric]["meshes <b>"]["mean"]
        )
        assert found["metrics"][metric]["mean face"]["mean"] > 0.1
    assert "meshes <b>" not in found["metrics"]["landmark_error_px"]  # a mesh has no camera
    rows = [row for row in found["paired"] if (row["first"], row["second"]) == ("ours", "mean face")]
    assert {row["metric"] for row in rows} == set(found["metrics"])
    assert all(row["first_better"] == 1.0 and row["p_adjusted"] < 0.01 for row in rows)
    singles = read_jsonl(tmp_path / "compare_samples.jsonl")
    assert [row["id"] for row in singles] == list(IDS[:-1])
    mean = np.mean([row["vertices_face"]["mean face"] for row in singles])
    assert found["metrics"]["vertices_face"]["mean face"]["mean"] == pytest.approx(mean)
    page = parse(out.with_suffix(".html").read_text(encoding="utf-8"))
    assert "meshes <b>" in page.text and "ours less mean face" in page.text
    assert all(source.startswith("data:") for source in page.sources)


def test_all_forms_of_a_face_are_read_alike(world: World, codes: Path, tmp_path: Path) -> None:
    expected = read_predictions(codes, world.head).of(["face-3"]).faces
    for form in ("json", "npz"):
        folder = tmp_path / form
        folder.mkdir()
        write_faces(folder / f"face-3.{form}", world.truth[3], world.head)
        found = read_predictions(folder, world.head)
        assert found.ids == ["face-3"] and found.faces is not None and expected is not None
        assert np.allclose(found.faces.to_vector(), expected.to_vector(), atol=1e-6)
    rows = [{"kind": "image", "id": "face-3", "parameters": world.truth[3].to_vector()[0].tolist()}]
    rows += [{"kind": "question", "id": "face-3"}]
    (tmp_path / "r_samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.json").write_text(json.dumps({"head_id": world.head.id}))
    found = read_predictions(tmp_path / "r.json", world.head)
    assert found.faces is not None and expected is not None
    assert np.allclose(found.faces.to_vector(), expected.to_vector())


def test_predictions_that_cannot_be_compared_are_refused(world: World, codes: Path, tmp_path: Path) -> None:
    vectors = world.truth.to_vector().numpy()
    for name, arrays, says in (
        ("short", {"ids": IDS, "codes": vectors[:, :-1]}, "the head takes"),
        ("few", {"ids": IDS[:3], "codes": vectors}, "3 ids for 20 faces"),
        ("nan", {"ids": IDS, "codes": vectors * np.nan}, "not finite"),
        ("none", {"ids": IDS}, "ids, and codes or one array"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(SampleError, match=says):
            read_predictions(tmp_path / f"{name}.npz", world.head)
    np.savez(tmp_path / "other.npz", ids=IDS, codes=vectors, head_id="another")
    with pytest.raises(HeadMismatchError, match="another"):
        read_predictions(tmp_path / "other.npz", world.head)
    (tmp_path / "r.json").write_text(json.dumps({"head_id": "another"}))
    with pytest.raises(HeadMismatchError, match="another"):
        read_predictions(tmp_path / "r.json", world.head)
    out = tmp_path / "c.json"
    with pytest.raises(ConfigError, match="names that differ"):
        compare.main(words(world, out, f"predictions={codes},{codes}"))
    np.savez(tmp_path / "strange.npz", ids=np.array(["x"]), codes=vectors[:1])
    with pytest.raises(SampleError, match="no record"):
        compare.main(words(world, out, f"predictions={tmp_path / 'strange.npz'}"))
    assert not out.exists()

"""The NoW benchmark in its own layout: a head is its own scan, known changes have known distances."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from evaluation_world import World
from PIL import Image
from recipes import load_recipe
from small_head import small_head

from facegpt.errors import ConfigError, LandmarkError, SampleError
from facegpt.evaluation.now_distances import now_distances, statistics
from facegpt.evaluation.now_folder import NowImage, NowPrediction, NowScan, read_images, write_prediction
from facegpt.export.mesh_reading import read_mesh
from facegpt.files import read_jsonl

now = load_recipe("eval/now.py")
SUBJECTS = ("FaMoS_1_TA", "FaMoS_2_TA")
IMAGES = [NowImage(s, c, "IMG_1") for s in SUBJECTS for c in ("multiview_neutral", "selfie")]


def heads() -> list[NowPrediction]:
    """A neutral head in metres for each subject."""
    head = small_head()
    faces = head.mean_parameters(2)
    faces.shape[0, 0], faces.shape[1, 1] = 1.0, -1.0
    found: list[NowPrediction] = now.neutral(head, faces)
    return found


@pytest.fixture()
def benchmark(tmp_path: Path) -> Path:
    """Scans in mm, turned and shifted, with uv so that a reader might split them, landmarks and the list."""
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    for subject, head in zip(SUBJECTS, heads(), strict=True):
        vertices, points = (
            1000 * p.astype(float) @ turn.T + [5, 50, -20] for p in (head.vertices, head.landmarks)
        )
        lines = [f"v {x:.9f} {y:.9f} {z:.9f}" for x, y, z in vertices] + ["vt 0 0", "vt 1 0", "vt 0 1"]
        lines += [f"f {a}/1 {b}/2 {c}/3" for a, b, c in head.triangles + 1]
        scan = tmp_path / "scans" / subject / "natural_head_rotation.000001.obj"
        scan.parent.mkdir(parents=True)
        scan.write_text("\n".join(lines))
        picked = [
            f' <point active="1" y="{y}" x="{x}" z="{z}" name="{k}"/>' for k, (x, y, z) in enumerate(points)
        ]
        file = tmp_path / "scans_lmks_onlypp" / subject / "natural_head_rotation.000001_picked_points.pp"
        file.parent.mkdir(parents=True)
        file.write_text(
            "<!DOCTYPE PickedPoints>\n<PickedPoints>\n" + "\n".join(picked) + "\n</PickedPoints>\n"
        )
    listed = [f"{i.subject}/{i.challenge}/{i.name}.jpg" for i in IMAGES]
    (tmp_path / "imagepathsvalidation.txt").write_text("\n".join(listed) + "\n")
    return tmp_path


def predict(folder: Path, change: float, images: list[NowImage] = IMAGES) -> None:
    """The true heads, larger by a share `change`, moved away, as the predictions."""
    for image in images:
        true = heads()[SUBJECTS.index(image.subject)]
        moved = [(1 + change) * points + [0.3, -0.1, 1.0] for points in (true.vertices, true.landmarks)]
        write_prediction(folder, image, NowPrediction(moved[0], true.triangles, moved[1]))


def run(benchmark: Path, predictions: Path, *more: str) -> dict:
    out = benchmark / "now.json"
    now.main([f"data={benchmark}", f"predictions={predictions}", f"out={out}", *more])
    return json.loads(out.read_text())


@pytest.mark.parametrize("protocol", ["metrical=false", "metrical=true"])
def test_the_truth_as_its_own_prediction_is_at_no_distance(benchmark: Path, protocol: str) -> None:
    predict(benchmark / "p", 0.0)
    found = run(benchmark, benchmark / "p", protocol)
    assert found["n"] == len(IMAGES) and found["missing"] == []
    assert found["predictions"]["median"] < 1e-4 and found["predictions"]["mean"] < 1e-4
    assert found["mean_face"]["mean"] > 0.1  # what the other shape is worth
    assert found["predictions"]["curve"]["share"][1] == 1.0
    rows = read_jsonl(benchmark / "now_samples.jsonl")
    assert [row["name"] for row in rows] == [image.name for image in IMAGES]


def test_a_wrong_size_counts_in_the_metrical_protocol_alone(benchmark: Path) -> None:
    predict(benchmark / "p", 0.05)
    assert run(benchmark, benchmark / "p")["predictions"]["mean"] < 1e-4
    assert run(benchmark, benchmark / "p", "metrical=true")["predictions"]["mean"] > 0.2


def test_a_bump_of_known_height_is_the_distance_of_the_points_on_it() -> None:
    plane = trimesh.creation.box(extents=[100, 100, 20]).subdivide_to_size(4.0)
    side = np.random.default_rng(0).uniform(-45, 45, (4000, 2))
    points = np.c_[side, np.full(len(side), 10.0)]
    bump = np.abs(side).max(axis=1) < 4.5
    points[bump, 2] += 2.0
    landmarks = np.array([[-30.0, 20, 10], [-10, 20, 10], [10, 20, 10], [30, 20, 10], [0, 0, 10]])
    landmarks = np.concatenate([landmarks, [[-20.0, -20, 10], [20, -20, 10]]])
    prediction = NowPrediction(plane.vertices, plane.faces, landmarks)
    found = now_distances(NowScan(points, landmarks), prediction, millimeters=1.0)
    share = bump.mean()  # the plane rises towards the bump by the mean of all heights
    assert np.median(found[bump]) == pytest.approx(2 * (1 - share), abs=0.02)
    assert np.median(found[~bump]) == pytest.approx(2 * share, abs=0.02)


def test_statistics_are_over_all_distances_together() -> None:
    found = statistics([np.array([1.0, 3.0]), np.array([2.0, 2.0, 7.0])], ["a", "b"], seed=0)
    assert (found["median"], found["mean"], found["subjects"]) == (2.0, 3.0, 2)
    assert found["std"] == pytest.approx(np.std([1, 3, 2, 2, 7]))
    assert found["mean_95"] == pytest.approx([2.0, 11 / 3]) and found["median_95"][0] == pytest.approx(
        1, abs=0.02
    )
    curve = dict(zip(found["curve"]["mm"], found["curve"]["share"], strict=True))
    assert (curve[0.9], curve[1.0], curve[2.0], curve[7.0]) == (0, 0.2, 0.6, 1)


def test_a_run_writes_its_predictions_in_the_layout(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(now, "read_picture", lambda path: (Image.open(path), ""))  # no face to look for
    for image in IMAGES[:2]:
        file = image.path(tmp_path / "iphone_pictures", ".jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), "gray").save(file)
    settings = [f"checkpoint={world.path / 'speaks'}", f"head={world.path / 'head.npz'}", "device=cpu"]
    parsed = now.parse_config(
        now.NowSettings, [f"data={tmp_path}", f"predictions={tmp_path / 'p'}", *settings]
    )
    about = now.predict(IMAGES[:2], parsed)
    assert about["with_face"] == 2
    vertices, triangles = read_mesh(IMAGES[0].path(tmp_path / "p", ".obj"))
    assert vertices.shape == (306, 3) and np.array_equal(triangles, world.head.triangles.numpy())
    assert np.load(IMAGES[0].path(tmp_path / "p", ".npy")).shape == (7, 3)


def test_what_is_missing_or_broken_is_named(benchmark: Path) -> None:
    predict(benchmark / "p", 0.0, IMAGES[:2])
    found = run(benchmark, benchmark / "p", "challenge=selfie")
    assert found["missing"] == [f"{SUBJECTS[1]}/selfie/IMG_1"] and found["n"] == 1
    IMAGES[0].path(benchmark / "p", ".obj").write_text("v 0 0 0\nf 1 2 3\n")
    with pytest.raises(SampleError, match="a vertex that does not exist"):
        run(benchmark, benchmark / "p")
    np.save(IMAGES[1].path(benchmark / "p", ".npy"), np.zeros((6, 3)))
    with pytest.raises(LandmarkError, match=r"IMG_1\.npy does not hold the seven"):
        run(benchmark, benchmark / "p", "challenge=selfie")
    with pytest.raises(ConfigError, match="no prediction for any"):
        run(benchmark, benchmark / "nowhere")
    (benchmark / "list.txt").write_text("../../etc/passwd\n")
    with pytest.raises(SampleError, match=r"list\.txt:1 is not of the form"):
        read_images(benchmark / "list.txt")

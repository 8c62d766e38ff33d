"""What is measured of faces with a known truth, on faces made for it."""

from __future__ import annotations

import pytest
import torch
from evaluation_world import COUNT, SIZE, World

from facegpt.data.records import read_records
from facegpt.evaluation.candidate_draws import share_of_wins
from facegpt.evaluation.face_measures import mean_face_in_place, shares_of_mean_face, summarize
from facegpt.evaluation.fitted_faces import fitted_faces
from facegpt.evaluation.identity_matching import identity_features, identity_rank_1
from facegpt.evaluation.linear_readout import penalty_groups
from facegpt.evaluation.parameter_agreement import (
    agreement,
    component_agreement,
    component_names,
    group_columns,
    rows_of,
)
from facegpt.evaluation.placed_mean import placed_mean_face
from facegpt.fitting.photograph import FitSettings
from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.metrics.image_errors import ImageErrors
from facegpt.perception.recognizer import load_recognizer
from facegpt.render.camera import project
from facegpt.render.renderer import render


def halved(truth: FaceParameters) -> FaceParameters:
    mean = truth.to_vector().mean(0)
    return FaceParameters.from_vector(mean + 0.5 * (truth.to_vector() - mean), truth.layout)


def test_a_face_halfway_to_the_mean_follows_the_truth_with_half_its_deviation(world: World) -> None:
    table = agreement(halved(world.truth), world.truth, seed=0)
    assert set(table) >= {"shape_first_20", "albedo_first_5", "pitch", "jaw", "camera_tx", "identity"}
    for row in table.values():
        assert row["correlation"] == pytest.approx(1.0, abs=1e-5)
        assert row["slope"] == pytest.approx(0.5, abs=1e-5)
        assert row["slope_95"] == pytest.approx([0.5, 0.5], abs=1e-4)


def test_the_mean_face_follows_nothing(world: World) -> None:
    mean = world.head.mean_parameters(COUNT)
    for row in agreement(mean, world.truth, seed=0).values():
        assert row["correlation"] == 0.0 and row["slope"] == pytest.approx(0.0, abs=1e-9)


def test_a_row_is_the_mean_over_its_components(world: World) -> None:
    other = world.truth[torch.arange(COUNT).roll(1)]
    table, single = (
        agreement(other, world.truth, 0)["camera"],
        component_agreement(world.head, other, world.truth, 0),
    )
    rs = [single[f"camera {name}"]["correlation"] for name in ("scale", "tx", "ty")]
    assert table["components"] == 3 and table["correlation"] == pytest.approx(sum(rs) / 3)  # type: ignore[arg-type]


def test_components_have_the_names_of_the_head_in_the_order_of_the_vector(world: World) -> None:
    names, layout = component_names(world.head, world.truth.layout), world.truth.layout
    columns = group_columns(layout)
    assert len(names) == layout.total and names[0] == f"shape {world.head.shape_names[0]}"
    assert names[columns["expression"]] == world.head.expression_names[: layout.expression]
    assert names[columns["pose"]][:4] == ["pitch", "yaw", "roll", "jaw"]
    assert names[columns["lighting"]][:2] == ["light band 0 red", "light band 0 green"]
    rows = rows_of(world.truth)
    assert [names[i] for i in rows["camera"]] == ["camera scale", "camera tx", "camera ty"]


def test_penalties_are_shared_by_like_parameters_and_every_column_has_one() -> None:
    layout = ParameterLayout(shape=4, expression=3, albedo=2, eyes=True)
    groups = penalty_groups(layout)
    columns = [column for part in groups.values() for column in range(part.start, part.stop)]
    assert columns == list(range(layout.total))
    assert {name: part.stop - part.start for name, part in groups.items()} == {
        **{"shape": 4, "albedo": 2, "expression": 3, "rotation": 3, "jaw": 1, "jaw_sideways": 2},
        **{"scale": 1, "shift": 2, "lighting": 27, "eyes": 6},
    }


def test_what_the_truth_never_moves_does_not_count(world: World) -> None:
    still = world.truth.replace(expression=torch.zeros_like(world.truth.expression))
    assert "expression" not in rows_of(still) and "lighting" in rows_of(still)


def test_neck_and_eyes_of_a_prediction_are_not_compared(world: World) -> None:
    wider = world.truth.replace(neck=torch.ones(COUNT, 3))
    assert agreement(wider, world.truth, 0)["lighting"]["correlation"] == pytest.approx(1.0)


def test_the_true_identity_is_recognised_in_one_pose_and_the_mean_face_never(world: World) -> None:
    recognizer = load_recognizer("tiny")
    truth = identity_features(world.head, world.truth, recognizer, size=64)
    turned = world.truth.replace(pose=torch.zeros(COUNT, 6), lighting=world.truth.lighting.flip(0))
    same = identity_features(world.head, turned, recognizer, size=64)
    found = identity_rank_1(same, truth, seed=0)
    assert found["share"] == 1.0 and found["chance"] == 1 / COUNT  # fewer than 64 faces: all are candidates
    assert found["recognition_rate"] == pytest.approx(100, abs=1e-3)
    mean = identity_features(world.head, world.head.mean_parameters(COUNT), recognizer, size=64)
    assert identity_rank_1(mean, truth, seed=0)["share"] == 1 / COUNT  # one face is the nearest for all


def test_wins_are_counted_over_draws_and_ties_are_misses() -> None:
    table = 1 - torch.eye(8)
    table[0] = 0.0  # says nothing: every candidate is a tie
    found = share_of_wins(table, 4, seed=0, draws=5)
    assert found["share"] == 7 / 8 and found["chance"] == 0.25 and found["factor_over_chance"] == 3.5
    assert found["lowest_draw"] == found["highest_draw"] == 7 / 8
    assert found["interval_95"][0] < 7 / 8 <= found["interval_95"][1]


def test_the_placed_mean_face_is_nearest_of_all_its_places(world: World) -> None:
    records = list(read_records(world.path / "faces"))
    placed = mean_face_in_place(records, world.head, SIZE)
    truth = torch.stack([record.landmarks for record in records])

    def squares(camera: torch.Tensor) -> torch.Tensor:
        points = project(world.head(placed).landmarks, camera, SIZE, SIZE)[..., :2]
        return (points - truth).square().sum(dim=(1, 2))

    best = squares(placed.camera)
    for column, step in ((0, 0.05), (1, 0.001), (2, 0.001)):
        for sign in (-1, 1):
            other = placed.camera.clone()
            other[:, column] += sign * step
            assert bool((squares(other) > best).all())


def test_a_mean_face_in_another_place_is_found_again(world: World) -> None:
    camera = torch.tensor([[9.0, 0.012, -0.03]])
    points = render(world.head, world.head.mean_parameters().replace(camera=camera), SIZE).landmarks
    found = placed_mean_face(world.head, points, SIZE)
    assert found.camera.tolist()[0] == pytest.approx(camera.tolist()[0], rel=1e-4)


def test_shares_of_the_mean_face_are_ratios_of_means() -> None:
    mean = ImageErrors(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 1.0]))
    model = ImageErrors(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.2]))
    found = shares_of_mean_face({"model": model, "mean_face": mean}, seed=0)
    assert found["landmark_error_px"]["model"] == {"share": 0.5, "interval_95": [0.5, 0.5]}
    assert found["photometric_error"]["model"]["share"] == pytest.approx(0.35)
    table = summarize({"model": model}, torch.tensor([True, False]), seed=0)
    assert table["landmark_error_px"]["model"] == 1.0
    assert table["landmark_error_px"]["interval_95"]["model"] == [1.0, 1.0]


def test_fits_follow_the_landmarks_better_than_any_placed_mean_face(world: World) -> None:
    records = list(read_records(world.path / "faces"))[:2]
    steps = FitSettings(landmark_steps=40, pixel_steps=0)
    fitted = fitted_faces(records, world.head, load_recognizer("tiny"), SIZE, steps)
    truth = torch.stack([record.landmarks for record in records])
    placed = mean_face_in_place(records, world.head, SIZE)
    ours, theirs = (render(world.head, faces, SIZE).landmarks - truth for faces in (fitted, placed))
    assert len(fitted) == 2 and bool((ours.norm(dim=2).mean(1) < 0.5 * theirs.norm(dim=2).mean(1)).all())

"""Matching generated faces among sixteen: geometry, candidates, ties and chance."""

from __future__ import annotations

import math

import pytest
import torch
from small_head import small_head

from facegpt.evaluation.matching import (
    ASPECTS,
    CANDIDATES,
    derangement,
    distances,
    draw_candidates,
    match,
    posed_faces,
    ranks,
)
from facegpt.head.parameters import FaceParameters
from facegpt.standins.synthetic import sample_parameters


def faces(count: int, seed: int = 0) -> FaceParameters:
    return sample_parameters(small_head(), count, torch.Generator().manual_seed(seed))


def test_the_truth_matches_itself_whatever_its_identity_light_and_camera() -> None:
    truth, other = faces(16), faces(16, seed=1)  # sixteen: the face of the other text is always a candidate
    predicted = truth.replace(
        shape=other.shape, albedo=other.albedo, lighting=other.lighting, camera=other.camera
    )
    found = match(small_head(), predicted, truth, seed=3)
    assert set(found) == set(ASPECTS)
    for aspect in ("both", "pose"):
        assert found[aspect].model == 1.0 and found[aspect].shuffled_text == 0.0
    # one face in eight of this head is neutral, and neutral faces tie with each other
    assert found["expression"].model > 0.7


def test_a_constant_answer_matches_as_often_as_the_nearest_truth_allows() -> None:
    truth = faces(40)
    found = match(small_head(), small_head().mean_parameters(40), truth, seed=0)["both"]
    # The same truths win whichever text is given: an answer that ignores the text gains nothing from its own.
    table = distances(
        posed_faces(small_head(), small_head().mean_parameters(1), "both"),
        posed_faces(small_head(), truth, "both"),
    )[0]
    candidates = draw_candidates(40, 0)
    nearest = table[candidates].argmin(dim=1) == 0
    assert found.model == pytest.approx(float(nearest.double().mean()))


def test_ties_count_against_the_model() -> None:
    head = small_head()
    found = match(head, head.mean_parameters(20), head.mean_parameters(20), seed=0)
    assert all(table.model == 0 and table.shuffled_text == 0 for table in found.values())
    assert found["both"].ranks.tolist() == [CANDIDATES] * 20


def test_random_distances_give_one_in_sixteen() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(4000, 16, generator=generator)
    share = (ranks(table, torch.arange(16).expand(4000, 16)) == 1).double().mean()
    assert abs(float(share) - 1 / 16) < 4 * math.sqrt(1 / 16 * 15 / 16 / 4000)


def test_the_distance_is_the_root_mean_square_of_vertex_distances_in_millimeters() -> None:
    head = small_head()
    a, b = faces(1, 5), faces(1, 6)
    flat = {"shape": torch.zeros_like(a.shape), "albedo": torch.zeros_like(a.albedo)}
    left = head(a.replace(**flat)).vertices[0, head.regions["face"]]
    right = head(b.replace(**flat)).vertices[0, head.regions["face"]]
    expected = 1000 * math.sqrt(
        sum(float((p - q).norm()) ** 2 for p, q in zip(left, right, strict=True)) / len(left)
    )
    found = distances(posed_faces(head, a, "both"), posed_faces(head, b, "both"))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_small_difference_is_not_lost_among_large_coordinates() -> None:
    points = torch.rand(1, 500, 3) + 10
    assert float(distances(points, points + 1e-6 * 2**5)) == pytest.approx(math.sqrt(3) * 0.032, rel=0.05)
    assert float(distances(points, points)) == 0


def test_expression_ignores_the_turn_of_the_head_and_pose_all_else() -> None:
    head = small_head()
    face, other = faces(1, 2), faces(1, 3)
    turned = face.replace(pose=torch.cat([other.pose[:, :3], face.pose[:, 3:]], 1))
    moved = face.replace(
        pose=torch.cat([face.pose[:, :3], other.pose[:, 3:] + 0.1], 1), expression=other.expression + 0.5
    )
    same = lambda a, b, aspect: torch.equal(posed_faces(head, a, aspect), posed_faces(head, b, aspect))  # noqa: E731
    assert same(face, turned, "expression") and not same(face, turned, "pose")
    assert same(face, moved, "pose") and not same(face, moved, "expression")
    assert not same(face, turned, "both") and not same(face, moved, "both")


def test_candidates_are_the_face_itself_and_fifteen_different_others() -> None:
    table = draw_candidates(30, seed=4)
    assert table.shape == (30, 16) and torch.equal(table[:, 0], torch.arange(30))
    assert all(len(set(row)) == 16 and max(row) < 30 for row in table.tolist())
    assert torch.equal(table, draw_candidates(30, seed=4)) and not torch.equal(
        table, draw_candidates(30, seed=5)
    )
    counts = torch.bincount(draw_candidates(200, 0)[:, 1:].flatten(), minlength=200)
    assert counts.min() > 0  # every face serves as another's candidate


@pytest.mark.parametrize("count", [2, 3, 17, 100])
def test_a_derangement_moves_every_text_and_loses_none(count: int) -> None:
    for seed in range(5):
        order = derangement(count, seed)
        assert sorted(order.tolist()) == list(range(count))
        assert not (order == torch.arange(count)).any()


def test_fewer_than_sixteen_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        match(small_head(), faces(15), faces(15), seed=0)

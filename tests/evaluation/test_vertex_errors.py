"""Vertex errors: closed forms, what each alignment forgives, and how the table is made."""

from __future__ import annotations

import pytest
import torch
from evaluation_world import COUNT, World

from facegpt.evaluation.face_measures import most_similar
from facegpt.evaluation.vertex_errors import ALIGNMENTS, mesh_errors, vertex_errors, vertex_table


def test_the_truth_is_at_no_distance_from_itself(world: World) -> None:
    for regions in vertex_errors(world.head, world.truth, world.truth).values():
        assert set(regions) == {"face", "nose", "lips"}
        assert all(float(errors.abs().max()) < 1e-6 for errors in regions.values())


def test_alignment_forgives_a_turned_head_and_identity_also_the_expression(world: World) -> None:
    turned = world.truth.replace(pose=world.truth.pose * torch.tensor([0.0, 0, 0, 1, 1, 1]))
    found = vertex_errors(world.head, turned, world.truth)
    assert float(found["not_aligned"]["face"].mean()) > 1
    assert float(found["aligned"]["face"].max()) < 1e-3  # micrometres: float32 heads
    still = turned.replace(expression=torch.zeros_like(turned.expression))
    found = vertex_errors(world.head, still, world.truth)
    assert float(found["aligned"]["face"].mean()) > 0.05
    assert float(found["identity"]["face"].max()) < 1e-3


def test_a_shift_is_its_length_in_millimeters_and_an_error_of_one_vertex_is_shared_by_its_region() -> None:
    points = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0)).double()
    regions = {"face": torch.ones(10, dtype=torch.bool), "nose": torch.arange(10) < 4}
    found = mesh_errors(points + torch.tensor([0.0, 0.003, 0.004]), points, points, points, regions)
    assert found["not_aligned"]["face"].tolist() == pytest.approx([5, 5])
    assert found["aligned"]["face"].tolist() == pytest.approx([0, 0], abs=1e-9)
    moved = points.clone()
    moved[:, 0, 0] += 0.002
    found = mesh_errors(moved, points, points, points, regions)
    assert found["not_aligned"]["nose"].tolist() == pytest.approx([0.5, 0.5])
    assert found["not_aligned"]["face"].tolist() == pytest.approx([0.2, 0.2])


def test_one_face_is_compared_with_all_and_chunks_do_not_matter(world: World) -> None:
    one, many = world.head.mean_parameters(), world.head.mean_parameters(COUNT)
    whole = vertex_errors(world.head, one, world.truth)
    for alignment, regions in vertex_errors(world.head, many, world.truth, chunk=3).items():
        for region, errors in regions.items():
            assert torch.allclose(errors, whole[alignment][region], atol=1e-4)
    table = vertex_table({"mean_face": whole}, seed=0)
    assert tuple(table) == ALIGNMENTS
    row = table["aligned"]["nose"]["mean_face"]
    assert row["mean"] == pytest.approx(float(whole["aligned"]["nose"].mean()))
    assert row["interval_95"][0] < row["mean"] < row["interval_95"][1]


def test_the_nearest_training_face_is_the_one_of_the_same_tokens_whatever_their_mean_and_scale() -> None:
    known = torch.randn(9, 40, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([4, 0, 8])
    nearly = known[order] + 0.1 * torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    assert most_similar(nearly, known).tolist() == [4, 0, 8]
    assert most_similar(3 * nearly + 100, 3 * known + 100).tolist() == [4, 0, 8]

"""The noise study: perturbations have the size that they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from evaluation_world import World
from recipes import load_recipe

from facegpt.evaluation.surface_agreement import face_surfaces
from facegpt.standins.synthetic import sample_parameters

noise = load_recipe("eval/noise.py")


def test_every_kind_of_perturbation_moves_the_vertices_by_what_is_asked(world: World) -> None:
    truth = sample_parameters(world.head, 3, torch.Generator().manual_seed(1))
    vertices, lengths = face_surfaces(world.head, truth).vertices, np.array([0.5, 2.0, 5.0])
    for kind in noise.KINDS:
        moved = noise.perturb(world.head, truth, vertices, kind, lengths, np.random.default_rng(0))
        assert np.allclose(1000 * np.linalg.norm(moved - vertices, axis=2).mean(axis=1), lengths)


def test_the_study_repeats_itself_and_has_its_tables(world: World, tmp_path: Path) -> None:
    found = []
    for name in ("a.json", "b.json"):
        noise.main(
            [f"out={tmp_path / name}", f"head={world.path / 'head.npz'}", "n=3", "matched=64", "seeds=2"]
        )
        found.append(json.loads((tmp_path / name).read_text()))
    first, second = ({key: run[key] for key in ("errors", "correlation", "matching")} for run in found)
    assert first == second
    assert len(first["errors"]) == 12 and all(
        0.4 < r["true_error_mm"]["mean"] / r["level_mm"] < 1.6 for r in first["errors"]
    )
    assert found[0]["other_faces"]["chamfer_mm"]["n"] == 6
    assert found[0]["no_better_than_chance"]["64"]["chance"] == 1 / 64

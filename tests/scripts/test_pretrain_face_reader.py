"""The reader's recipe learns what can be read, says how well, and repeats its faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import load_recipe

from facegpt.errors import MissingPartError
from facegpt.head.model import HeadModel
from facegpt.parts import part_path

RECIPE = load_recipe("scripts/pretrain_face_reader.py")
SETTINGS = RECIPE.ReaderSettings(faces=700, held_out=100, steps=120, batch=64, width=8, hidden=64)
FACTS = 236 + 2 * 68


def synthetic(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (count,64,176) that hold 4 hidden numbers, and facts (count,372), half of which tell of them."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, 4, generator=generator)
    tokens = torch.einsum("nh,htc->ntc", hidden, torch.randn(4, 64, 176, generator=generator))
    facts = torch.randn(count, FACTS, generator=generator)
    facts[:, : FACTS // 2] = hidden @ torch.randn(4, FACTS // 2, generator=generator)
    return tokens.half(), facts


def test_what_the_tokens_tell_is_read_and_the_rest_is_not_claimed() -> None:
    _, figures = RECIPE.train(*synthetic(SETTINGS.faces), SETTINGS)
    assert figures["n"] == SETTINGS.held_out
    assert figures["mean r, shape"] > 0.9 and figures["mean r, albedo"] > 0.9
    assert abs(figures["mean r, lighting"]) < 0.3


def test_the_landmark_error_is_in_pixels_of_a_224_crop() -> None:
    facts = torch.randn(50, FACTS)
    deviation = torch.full((FACTS,), 0.5)

    def moved(tokens: torch.Tensor) -> torch.Tensor:
        said = facts.clone()
        said[:, 236::2] += 0.04  # of half a spread: 0.02 image widths to the right
        return said

    figures = RECIPE.measure(moved, torch.zeros(50, 64, 176), facts, deviation, SETTINGS)
    assert figures["landmarks, px at 224"] == pytest.approx(0.02 * 224, abs=0.01)
    assert figures["mean r, shape"] == pytest.approx(1.0, abs=1e-3)


def test_tokens_are_standardized_as_the_tower_does_it() -> None:
    generator = np.random.default_rng(0)
    faces = {
        "map": generator.normal(3.0, 2.0, (40, 64, 128)).astype(np.float16),
        "cells": generator.integers(0, 255, (40, 64, 48)).astype(np.uint8),
    }
    tokens, center, spread = RECIPE.standardize(faces)
    raw = torch.cat([torch.from_numpy(faces["map"]).float(), torch.from_numpy(faces["cells"]) / 255], dim=2)
    torch.testing.assert_close(tokens.float(), (raw - center) / spread, atol=3e-3, rtol=1e-3)
    assert tokens.float().mean().abs() < 1e-3 and abs(float(tokens.float().std()) - 1) < 1e-2


def test_other_crops_change_the_scale_of_about_half_of_the_faces_and_nothing_else() -> None:
    parameters = HeadModel.builtin().mean_parameters(400)
    other = RECIPE.other_crops(parameters, torch.Generator().manual_seed(0))
    zoom = (other.camera[:, 0] / parameters.camera[:, 0]).log()
    assert 0.4 < float((zoom != 0).float().mean()) < 0.6
    assert RECIPE.ZOOM[0] - 1e-6 <= float(zoom.min()) and float(zoom.max()) <= RECIPE.ZOOM[1] + 1e-6
    back = other.replace(camera=parameters.camera)
    assert torch.equal(back.to_vector(), parameters.to_vector())
    assert torch.equal(other.camera[:, 1:], parameters.camera[:, 1:])


def test_faces_are_rendered_once_and_again_the_same(tmp_path: Path) -> None:
    try:
        part_path("face_landmarker")
    except MissingPartError as error:
        pytest.skip(str(error))
    pieces = []
    for name in ("first", "second"):
        path = tmp_path / f"{name}.npz"
        RECIPE.render_piece((path, 3, "0/0"))
        pieces.append(np.load(path))
    assert pieces[0]["map"].shape == (3, 64, 128) and pieces[0]["landmarks"].shape == (3, 68, 2)
    for name in pieces[0].files:
        assert np.array_equal(pieces[0][name], pieces[1][name]), name

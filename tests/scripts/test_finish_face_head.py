"""The face head's last training: it begins where the model is, and learns what the states tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from recipes import load_recipe
from small_facegpt import small_backbone, small_facegpt

from facegpt.model.checkpoint import load_facegpt, save_checkpoint
from facegpt.model.spec import FaceHeadSettings

RECIPE = load_recipe("scripts/finish_face_head.py")


@pytest.mark.parametrize("reads_image", [False, True])
def test_a_head_that_begins_to_read_text_says_the_same_first(reads_image: bool, tmp_path: Path) -> None:
    model = small_facegpt(head=FaceHeadSettings(reads_image=reads_image))
    states, images, texts = torch.randn(3, 5, model.face_head.network[0].normalized_shape[0]).unbind()
    with torch.no_grad():
        before = model.face_head(states, images)
        RECIPE.let_it_read_text(model)
        assert torch.equal(model.face_head(states, images, texts), before)
        torch.nn.init.normal_(model.face_head.network[1].weight)
        after = model.face_head(states, images, texts)
        assert not torch.allclose(model.face_head(states, images, -texts), after)
    save_checkpoint(model, tmp_path / "checkpoint", "builtin-1")
    loaded, _ = load_facegpt(tmp_path / "checkpoint", None, dtype="float32", backbone=small_backbone(8))
    with torch.no_grad():
        assert torch.equal(loaded.face_head(states, images, texts), after)


def test_rendered_pictures_come_under_the_words_of_photographs() -> None:
    faces = {name: torch.arange(6.0)[:, None] for name in ("states", "texts", "images", "truth")}
    faces["shown"] = torch.tensor([False, False, True, True, False, False])
    more = RECIPE.with_rendered(faces, -torch.ones(20, 1), torch.full((20, 1), 9.0))
    assert all(len(values) == 26 for values in more.values()) and bool(more["shown"][6:].all())
    assert set(more["states"][6:, 0].tolist()) == {2.0, 3.0} == set(more["texts"][6:, 0].tolist())
    assert torch.equal(more["states"][6:], more["texts"][6:]), "state and text of one request"
    assert bool((more["images"][6:] == -1).all()) and bool((more["truth"][6:] == 9).all())

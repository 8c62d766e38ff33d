"""The face head's last training: it begins where the model is, and learns what the states tell."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from recipes import load_recipe
from small_facegpt import small_backbone, small_facegpt

from facegpt.model.checkpoint import load_facegpt, save_checkpoint
from facegpt.model.spec import FaceHeadSettings
from facegpt.sample import FaceTarget, Message, Sample

RECIPE = load_recipe("scripts/finish_face_head.py")


@pytest.mark.parametrize("reads_image", [False, True])
def test_a_head_that_begins_to_read_text_says_the_same_first(reads_image: bool, tmp_path: Path) -> None:
    model = small_facegpt(head=FaceHeadSettings(reads_image=reads_image))
    width = model.face_head.network[0].normalized_shape[0]
    states, images = torch.randn(2, 5, width).unbind()
    words, told = torch.randn(5, 7, width), torch.arange(7) < torch.tensor([[7], [1], [3], [5], [2]])
    with torch.no_grad():
        before = model.face_head(states, images)
        RECIPE.let_it_read_text(model, 1)
        assert torch.equal(model.face_head(states, images, words, told), before)
        torch.nn.init.normal_(model.face_head.network[1].weight)
        after = model.face_head(states, images, words, told)
        assert not torch.allclose(model.face_head(states, images, -words, told), after)
    save_checkpoint(model, tmp_path / "checkpoint", "builtin-1")
    loaded, _ = load_facegpt(tmp_path / "checkpoint", None, dtype="float32", backbone=small_backbone(8))
    assert loaded.spec.head.text_layer == 1
    with torch.no_grad():
        assert torch.equal(loaded.face_head(states, images, words, told), after)


def test_the_words_of_faces_are_those_that_were_stored() -> None:
    lengths = torch.tensor([3, 1, 2])
    faces = {"states": torch.zeros(3, 1), "images": torch.zeros(3, 1), "words": torch.arange(6.0)[:, None]}
    faces |= {"length": lengths, "first": lengths.cumsum(0) - lengths}
    _, _, words, told = RECIPE.read_by_the_head(faces, torch.tensor([2, 0, 1]))
    assert [row[kept, 0].tolist() for row, kept in zip(words, told, strict=True)] == [[4, 5], [0, 1, 2], [3]]


def test_rendered_pictures_come_under_the_words_of_photographs() -> None:
    faces = {name: torch.arange(6.0)[:, None] for name in ("states", "first", "length", "images", "truth")}
    faces["words"] = torch.zeros(30, 1)
    faces["shown"] = torch.tensor([False, False, True, True, False, False])
    more = RECIPE.with_rendered(faces, -torch.ones(20, 1), torch.full((20, 1), 9.0))
    assert all(len(values) == 26 for name, values in more.items() if name != "words") and bool(
        more["shown"][6:].all()
    )
    assert set(more["states"][6:, 0].tolist()) == {2.0, 3.0} == set(more["first"][6:, 0].tolist())
    assert torch.equal(more["states"][6:], more["length"][6:]), "state and text of one request"
    assert bool((more["images"][6:] == -1).all()) and bool((more["truth"][6:] == 9).all())


def test_own_words_take_the_place_of_the_templates_only_where_one_face_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    face = FaceTarget(torch.zeros(3, 2, 2), torch.zeros(68, 2), torch.zeros(2, 2))
    said = {"a": "She looks sad: <FACE>", "b": "No.", "c": "Two: <FACE> <FACE>"}
    samples = [
        Sample(name, "text", [Message("user", name), Message("assistant", "<FACE>")], [], [face])
        for name in said
    ]

    def answer(model: object, asked: list[Sample], longest: int) -> list[SimpleNamespace]:
        assert all(len(sample.messages) == 1 and not sample.faces for sample in asked)
        return [SimpleNamespace(text=said[sample.id]) for sample in asked]

    monkeypatch.setattr(RECIPE, "answer", answer)
    spoken = RECIPE.in_own_words(None, samples)
    assert [sample.messages[1].text for sample in spoken] == [said["a"], "<FACE>", "<FACE>"]
    assert all(sample.faces == [face] and sample.messages[0].text == sample.id for sample in spoken)

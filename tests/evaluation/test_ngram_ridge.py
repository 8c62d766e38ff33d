"""Counting words: the baseline of text to face."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from evaluation_world import COUNT, World, write_faces

from facegpt.data.records import read_records
from facegpt.errors import SampleError
from facegpt.evaluation.ngram_ridge import nearest_text, ngram_faces, ngrams, presence, vocabulary


def test_a_text_is_its_words_and_their_pairs() -> None:
    assert ngrams("The brows, the Brows!") == {"the", "brows", "the brows", "brows the"}
    assert ngrams("...") == set()


def test_what_one_text_alone_says_does_not_count() -> None:
    columns = vocabulary(["a big smile", "a smile", "a big nose"])
    assert list(columns) == ["a", "a big", "big", "smile"]  # most frequent first, then by alphabet
    assert presence(["A big, big nose", "nothing"], columns).tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]


def describe(folder: Path, texts: list[str]) -> None:
    lines = [{"id": f"face-{n}", "description": {"pose": text}} for n, text in enumerate(texts)]
    (folder / "descriptions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_words_that_tell_a_parameter_are_read(world: World, tmp_path: Path) -> None:
    jaw = torch.arange(COUNT) % 2 * 0.3
    pose = torch.zeros(COUNT, 6)
    pose[:, 3] = jaw
    write_faces(tmp_path / "faces", world.head, world.truth.replace(pose=pose))
    texts = ["The mouth is open." if angle else "The mouth is closed." for angle in jaw]
    describe(tmp_path / "faces", texts)
    data = read_records(tmp_path / "faces")
    found = ngram_faces(data, list(data), world.head, limit=COUNT, seed=0)
    assert found["ngram_ridge"].pose[:, 3].tolist() == pytest.approx(jaw.tolist(), abs=0.02)
    assert torch.allclose(found["nearest_text"].pose[:, 3], jaw)


def test_the_nearest_text_weighs_rare_words_most() -> None:
    others = ["a face with a smile", "a face with a frown", "a face", "the smile", "the frown"]
    assert nearest_text(["frown, with a face", "the smile"], others) == [1, 3]
    assert nearest_text(["words that nobody said"], others) == [0]  # nothing in common: the first


def test_too_few_training_descriptions_are_named(world: World) -> None:
    data = read_records(world.path / "faces")
    with pytest.raises(SampleError, match="5 or more described faces"):
        ngram_faces(data, list(data), world.head, limit=3, seed=0)

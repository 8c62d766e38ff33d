"""Faces without pictures: the words are about the parameters that stand beside them."""

from __future__ import annotations

import random

import torch

from facegpt.data.sources import TextToFace
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.standins.descriptions import looks
from facegpt.standins.language import read_facts
from facegpt.standins.told_faces import told_faces


def test_every_face_is_told_by_its_own_parameters() -> None:
    head = HeadModel.builtin()
    records = told_faces(head, 12, 5)
    vectors = torch.stack([record.parameters for record in records if record.parameters is not None])
    assert len(records) == len(vectors) == 12 and records[3].id != records[4].id
    facts = read_facts(head, FaceParameters.from_vector(vectors, head.layout))
    for record, known in zip(records, facts, strict=True):
        assert len(record.texts) == 2 and bool(record.looks) == bool(looks(known, random.Random(0)))
        assert set(record.looks) <= set(looks(known, random.Random(1), 500))
    sample = TextToFace(records, 32, several_rate=0.0).sample(4, 0)
    target = sample.faces[0].parameters
    assert target is not None and torch.equal(target, vectors[4])


def test_a_seed_tells_the_same_and_another_seed_other_faces() -> None:
    head = HeadModel.builtin()
    first, again, other = (told_faces(head, 3, seed)[1] for seed in (1, 1, 2))
    assert first.texts == again.texts and torch.equal(first.parameters, again.parameters)
    assert first.texts != other.texts and not torch.equal(first.parameters, other.parameters)

"""Faces that are only told of: known parameters and texts without a picture, any number of them."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from PIL import Image

from facegpt.data.records import Annotation, FaceRecords
from facegpt.head.model import HeadModel
from facegpt.sample import FaceRecord
from facegpt.standins.descriptions import describe_freely, looks
from facegpt.standins.language import read_facts
from facegpt.standins.synthetic import sample_parameters

SIDE = 32  # of the empty picture in pixels
TEXTS = 2  # of each face


def told_faces(head: HeadModel, count: int, seed: int) -> FaceRecords:
    """`count` random faces of a head with named components, each with texts and a black picture.

    The same faces and texts for the same seed.
    """
    parameters = sample_parameters(head, count, torch.Generator().manual_seed(seed))
    rng = random.Random(f"told/{seed}")
    annotations = {
        f"told-{seed}-{number}": Annotation(
            texts=describe_freely(facts, rng, TEXTS), looks=looks(facts, rng, TEXTS)
        )
        for number, facts in enumerate(read_facts(head, parameters))
    }
    rows = _WithoutPictures([*annotations], parameters.to_vector().cpu())
    return FaceRecords(Path("told"), rows, annotations, {})


class _WithoutPictures:
    """Rows of `FaceRecords`; nothing looks at the landmarks."""

    def __init__(self, ids: list[str], parameters: torch.Tensor) -> None:
        self.ids, self.parameters = ids, parameters

    def load(self, index: int) -> FaceRecord:
        diagonal = torch.linspace(SIDE / 4, 3 * SIDE / 4, 68)[:, None].expand(68, 2)
        picture = Image.new("RGB", (SIDE, SIDE))
        skin = torch.zeros(SIDE, SIDE)
        return FaceRecord(self.ids[index], picture, diagonal, skin, self.parameters[index])

"""Who is who in 173 portraits of 30 people, by SFace and by the tiny stand-in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from real.photographs import CSU, folder_of

from facegpt.data.targets import to_tensor
from facegpt.perception.align import align_face
from facegpt.perception.images import read_image
from facegpt.perception.recognizer import load_recognizer

pytestmark = pytest.mark.real


def area_under_curve(same: torch.Tensor, other: torch.Tensor) -> float:
    """The share of pairs (one of the same person, one of others) in their right order (Mann and Whitney)."""
    order = torch.argsort(torch.cat([same, other]), stable=True)
    ranks = torch.empty(len(order), dtype=torch.float64)
    ranks[order] = torch.arange(1, len(order) + 1, dtype=torch.float64)
    wins = ranks[: len(same)].sum() - len(same) * (len(same) + 1) / 2
    return float(wins / (len(same) * len(other)))


def test_the_area_is_that_of_all_pairs():
    same, other = torch.tensor([0.9, 0.4, 0.6]), torch.tensor([0.1, 0.5])
    assert area_under_curve(same, other) == np.mean([a > b for a in same for b in other])


@pytest.fixture(scope="module")
def portraits(landmarker):
    """Aligned faces (N,3,112,112), their people, and how many photographs there are."""
    files = sorted(folder_of(CSU).glob("*.pgm"))
    aligned, people = [], []
    for file in files:
        image = read_image(file)
        found = landmarker.find(image)
        if found:
            pixels = to_tensor(image.convert("RGB"))[None]
            aligned.append(align_face(pixels, found[0].landmarks[None])[0])
            people.append(file.stem[:5])
    return torch.stack(aligned), people, len(files)


def rates(features: torch.Tensor, people: list[str]) -> dict[str, float]:
    """Rank-1: the nearest other photograph is of the same person. AUC: over all pairs."""
    cosines = features.double() @ features.double().T
    same = torch.tensor([[a == b for b in people] for a in people])
    pairs = torch.triu(torch.ones_like(same), diagonal=1).bool()
    nearest = cosines.clone().fill_diagonal_(-2).argmax(dim=1)
    return {
        "rank_1": float(same[torch.arange(len(people)), nearest].double().mean()),
        "auc": area_under_curve(cosines[pairs & same], cosines[pairs & ~same]),
        "same": float(cosines[pairs & same].mean()),
        "other": float(cosines[pairs & ~same].mean()),
    }


@torch.no_grad()
def test_sface_tells_thirty_people_apart(sface, portraits, say):
    aligned, people, count = portraits
    assert (count, len(set(people))) == (173, 30) and len(people) >= 170
    pixels = aligned.flatten(1) - aligned.flatten(1).mean(dim=1, keepdim=True)
    features = {
        "SFace": torch.cat([sface(some) for some in aligned.split(16)]),
        "tiny": torch.cat([load_recognizer("tiny")(some) for some in aligned.split(16)]),
        "pixels": torch.nn.functional.normalize(pixels, dim=1),
    }
    found = {name: rates(values, people) for name, values in features.items()}
    for name, row in found.items():
        words = ", ".join(f"{key} {value:.3f}" for key, value in row.items())
        say(f"{name}, {len(people)} of {count} portraits, {len(set(people))} people: {words}")
    assert found["SFace"]["rank_1"] > 0.95 and found["SFace"]["auc"] > 0.97
    assert found["SFace"]["auc"] > max(found["tiny"]["auc"], found["pixels"]["auc"])

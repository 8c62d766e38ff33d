"""The recipe that pretrains the tiny recogniser: its loss and figures by hand, and a run in miniature."""

import json
import math

import torch
import torch.nn.functional as F
from recipes import load_recipe
from small_head import small_head

from facegpt.perception.recognizer import load_recognizer

recipe = load_recipe("scripts/pretrain_tiny_recognizer.py")
GROUP = recipe.GROUP
RecognizerSettings = recipe.RecognizerSettings
arcface_loss = recipe.arcface_loss
auc = recipe.auc
held_out_identities = recipe.held_out_identities
pretrain = recipe.pretrain
rank_one = recipe.rank_one
training_identities = recipe.training_identities


def test_arcface_loss_without_margin_is_cross_entropy_and_the_margin_is_an_angle():
    cosines = torch.tensor([[0.8, 0.1, -0.3], [0.2, 0.5, 0.4]], dtype=torch.float64)
    identity = torch.tensor([0, 2])
    assert torch.isclose(arcface_loss(cosines, identity, 24.0, 0.0), F.cross_entropy(24 * cosines, identity))
    harder = cosines.clone()
    harder[0, 0], harder[1, 2] = math.cos(math.acos(0.8) + 0.3), math.cos(math.acos(0.4) + 0.3)
    assert torch.isclose(arcface_loss(cosines, identity, 24.0, 0.3), F.cross_entropy(24 * harder, identity))


def test_arcface_gradient_and_perfect_cosines():
    cosines = torch.tensor([[0.8, 0.1, -0.3], [0.2, 0.5, -0.9]], dtype=torch.float64, requires_grad=True)
    identity = torch.tensor([0, 2])
    assert torch.autograd.gradcheck(lambda c: arcface_loss(c, identity, 10.0, 0.3), cosines)
    perfect = torch.eye(3, requires_grad=True)  # acos has an infinite slope there
    arcface_loss(perfect, torch.arange(3), 24.0, 0.3).backward()
    assert torch.isfinite(perfect.grad).all()


def test_auc_counts_pairs_in_order():
    positive, negative = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.5, 0.2])
    # 0.9 beats both, 0.5 beats one and ties one, 0.1 beats none
    assert math.isclose(auc(positive, negative), (2 + 1.5) / 6)


def test_rank_one_compares_probes_with_the_gallery_only():
    identity = torch.tensor([0, 0, 1, 1])
    gallery = torch.tensor([True, False, True, False])
    likeness = torch.zeros(4, 4)
    likeness[1, [0, 2, 3]] = torch.tensor([0.5, 0.2, 0.9])  # right, although another probe is nearer
    likeness[3, [0, 2]] = torch.tensor([0.5, 0.2])  # wrong
    assert rank_one(likeness, gallery, identity) == 50


def test_identities_share_what_they_should():
    head, settings = small_head(), RecognizerSettings(identities=2 * GROUP, held_out=4)
    shape, albedo = training_identities(head, settings)
    assert len(shape.unique(dim=0)) == 2 * GROUP and len(albedo.unique(dim=0)) == GROUP + 1
    tests = held_out_identities(head, settings)
    counts = {name: (len(s.unique(dim=0)), len(a.unique(dim=0))) for name, (s, a) in tests.items()}
    assert counts == {"shape and albedo": (4, 4), "shape alone": (4, 1), "albedo alone": (1, 4)}
    assert not (shape[:, None] == tests["shape and albedo"][0][None]).all(-1).any()


def test_a_run_in_miniature_writes_weights_that_load(tmp_path):
    settings = RecognizerSettings(
        out=str(tmp_path / "out"), work=str(tmp_path / "work"),
        identities=8, views=2, held_out=4, held_out_views=2, size=48, steps=3, batch=8,
    )  # fmt: skip
    figures = pretrain(small_head(), settings)
    written = json.loads((tmp_path / "out" / "tiny_recognizer.json").read_text())
    assert written["shape alone: AUC"] == figures["shape alone: AUC"]
    assert written["head_id"] == small_head().id
    assert 0 <= figures["shape and albedo: rank-1"] <= 100
    recognizer = load_recognizer(tmp_path / "out" / "tiny_recognizer.safetensors")
    face = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(recognizer(face).norm(), torch.ones(()))
    again = pretrain(small_head(), settings)  # from the cache, with the same seed
    assert again == figures

"""Random faces are reproducible, framed, and within the limits that the docstrings state."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import small_head

from facegpt.render.lighting import shade
from facegpt.render.renderer import render
from facegpt.standins.synthetic import ARCHETYPES, _archetypes, background, photograph, sample_parameters


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def parameters():
    return sample_parameters(small_head(), 400, generator())


def test_a_seed_gives_the_same_faces_again(parameters):
    again = sample_parameters(small_head(), 400, generator())
    assert torch.equal(parameters.to_vector(), again.to_vector())
    other = sample_parameters(small_head(), 400, generator(1))
    assert not torch.equal(parameters.to_vector(), other.to_vector())


def test_groups_have_the_stated_spread_and_limits(parameters):
    assert parameters.shape.std().item() == pytest.approx(0.8, abs=0.05)
    assert parameters.albedo.std().item() == pytest.approx(1.0, abs=0.06)
    angles = Rotation.from_rotvec(parameters.pose[:, :3].numpy()).as_euler("YXZ", degrees=True)
    assert (abs(angles) <= [40.001, 20.001, 15.001]).all()
    assert (abs(angles).max(0) > [35, 17, 13]).all()
    jaw = parameters.pose[:, 3]
    assert jaw.min() >= 0 and 0.2 < jaw.max() <= 0.4 + 1e-6


def test_the_camera_frames_the_landmarks(parameters):
    head = small_head()
    points = head(parameters).landmarks[..., :2]
    center = parameters.camera[:, 1:] + (points.amin(1) + points.amax(1)) / 2
    assert center.abs().max() <= 0.008 + 1e-6
    relative = parameters.camera[:, 0] / head.default_camera[0]
    assert 0.88 - 1e-6 <= relative.min() < 0.9 and 1.1 < relative.max() <= 1.12 + 1e-6
    pixels = render(head, parameters[:40], 32).landmarks
    assert (pixels > 0).all() and (pixels < 32).all()


def test_light_is_natural_on_a_front_view(parameters):
    normals = torch.nn.functional.normalize(torch.randn(4000, 3, generator=generator()), dim=1)
    normals = normals[normals[:, 2] > 0.3].expand(len(parameters), -1, 3)
    shading = shade(normals, parameters.lighting)
    mean = shading.mean((1, 2))
    assert mean.min() > 0.75 and mean.max() < 1.2 and 0.88 < mean.mean() < 1.02
    assert shading.amin((1, 2)).quantile(0.1) > 0.1  # hardly any face has a side without light
    assert shading.std(1).mean() > 0.08  # but light is not flat


def fake_names(names):
    return _archetypes(names, len(names) + 2)


def test_named_components_move_both_sides_of_an_archetype_alike():
    table = fake_names(["mouthSmileLeft", "mouth_smile_R", "jawLeft", "jawRight", "browInnerUp"])
    smile = table.shares[list(ARCHETYPES).index("smile")]
    assert smile[1].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert smile[2].tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert table.known.tolist() == [True] * 5 + [False] * 2  # unnamed ones are left to chance
    alone = table.shares[len(ARCHETYPES) :].sum(1)
    assert alone[:, :5].nonzero().tolist() == [[0, 2], [1, 3]]  # a jaw moves left or right, never both


def test_a_head_without_known_names_still_has_expressions():
    for names in ([], ["component 0", "component 1"]):
        table = fake_names(names)
        assert len(table.shares) == len(ARCHETYPES) and not table.known.any()
    head = small_head()
    expression = sample_parameters(head, 200, generator()).expression
    assert (expression.std(0) > 0.3).all()


def test_backgrounds_fill_the_image_and_differ():
    images = background(16, 24, generator())
    assert images.shape == (16, 3, 24, 24) and images.min() >= 0 and images.max() <= 1
    assert torch.equal(images, background(16, 24, generator()))
    clutter = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    assert clutter.max() > 4 * clutter.min()
    assert images.mean((2, 3)).std(0).min() > 0.1


def test_a_photograph_shows_the_face_before_the_background():
    mask = torch.zeros(1, 4, 4)
    mask[:, 1:3, 1:3] = 1
    rendering = SimpleNamespace(image=1.5 * mask[:, None].expand(1, 3, 4, 4), mask=mask)
    image = photograph(rendering, torch.full((1, 3, 4, 4), 0.5), generator())
    expected = torch.where(mask[:, None] > 0, 1.0, 0.5).expand_as(image)
    assert 0 < (image - expected).abs().max() < 0.06
    assert image.max() <= 1
    assert math.isclose(image[0, 0, 0].mean(), 0.5, abs_tol=0.05)

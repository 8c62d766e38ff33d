"""Pictures are degraded without moving anything, and occluders lie where the head is."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from facegpt.standins import occluders, photographic
from facegpt.standins.occluders import EYES, head_frame, occlude

SIZE = 96


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def heads():
    """Eight images of one gray ellipse with landmarks of a frontal face on it, all alike."""
    x, y = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="xy")
    mask = (((x - 48) / 28) ** 2 + ((y - 46) / 38) ** 2 < 1).float()
    points = torch.zeros(68, 2)
    turn = torch.linspace(-1.57, 1.57, 17)
    points[:17] = torch.stack([48 + 25 * torch.sin(turn), 42 + 38 * torch.cos(turn)], dim=1)
    points[17:36] = torch.tensor([48.0, 55.0])
    points[27] = torch.tensor([48.0, 42.0])
    around = torch.linspace(0, 6.28, 7)[:6]
    for eye, place in zip(EYES, (37.0, 59.0), strict=True):
        points[eye] = torch.stack([place - 5 * torch.cos(around), 42 - 2 * torch.sin(around)], dim=1)
    points[48:] = torch.tensor([48.0, 68.0])
    images = (
        0.3 + 0.2 * mask.expand(8, 3, SIZE, SIZE) + 0.05 * torch.rand(8, 3, SIZE, SIZE, generator=generator())
    )
    return images, mask.expand(8, -1, -1), points.expand(8, -1, -1)


def test_a_seed_gives_the_same_photographs_and_the_input_is_left_alone(heads):
    before = heads[0].clone()
    made = photographic.photographic(*heads, generator())
    assert torch.equal(heads[0], before) and made.shape == before.shape
    assert made.isfinite().all() and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made, photographic.photographic(*heads, generator()))
    assert not torch.equal(made, photographic.photographic(*heads, generator(1)))


@pytest.mark.parametrize("name", ["blur", "resolution"])
def test_softer_images_stay_in_place(name):
    """A spot keeps its sum and its centre, at whatever width it is blurred."""
    images = torch.zeros(16, 3, 160, 200)
    images[:, :, 74:78, 118:122] = 1
    made = getattr(photographic, name)(images, generator())
    assert made.sum((2, 3)) == pytest.approx(images.sum((2, 3)), rel=0.05)
    x, y = torch.arange(200) + 0.5, torch.arange(160) + 0.5
    assert (made * x).sum((2, 3)) / made.sum((2, 3)) == pytest.approx(120, abs=0.3)
    assert (made * y[:, None]).sum((2, 3)) / made.sum((2, 3)) == pytest.approx(76, abs=0.3)
    assert made.amax((1, 2, 3)).min() < 0.8


def test_the_cosine_transform_is_scipys():
    tile = torch.rand(8, 8, generator=generator())
    ours = (photographic._cosine_transform() @ tile.flatten()).view(8, 8)
    assert np.allclose(ours, dctn(tile.numpy(), norm="ortho"), atol=1e-5)


def test_blocks_cost_about_as_much_as_a_jpeg_file_of_that_quality(monkeypatch):
    random = generator()
    coarse = torch.rand(1, 3, 12, 12, generator=random)
    image = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)
    image = (image + 0.02 * torch.randn(image.shape, generator=random)).clamp(0, 1)
    pixels = (255 * image[0]).round().byte().permute(1, 2, 0).numpy()
    for quality in (20, 50, 85):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
        real = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255
        monkeypatch.setattr(photographic, "uniform", lambda *_, q=quality: torch.tensor([float(q)]))
        ours = photographic.blocks(image, random)[0]
        errors = [(made - image[0]).square().mean().sqrt() for made in (ours, real)]
        assert 0.7 < errors[0] / errors[1] < 1.4


def test_an_odd_border_is_kept_by_the_blocks():
    image = torch.rand(2, 3, 20, 13, generator=generator())
    made = photographic.blocks(image, generator())
    assert torch.equal(made[..., 16:, :], image[..., 16:, :]) and torch.equal(made[..., 8:], image[..., 8:])
    assert not torch.equal(made[..., :16, :8], image[..., :16, :8])


def test_gray_has_no_color_but_a_tone():
    made = photographic.gray(torch.rand(30, 3, 8, 8, generator=generator()), generator())
    ratio = made / made[:, 1:2]
    assert (ratio - ratio[..., :1, :1]).abs().max() < 1e-4
    colorless = (ratio - 1).abs().amax((1, 2, 3)) < 1e-4
    assert 5 < colorless.sum() < 25


def test_the_frame_of_a_head_follows_its_roll(heads):
    images, mask, points = (value[:1] for value in heads)
    frame = head_frame(images, mask, points)
    assert frame.landmarks[0, 27].abs().max() < 1e-6
    assert torch.allclose(frame.landmarks[0, 8], torch.tensor([0.0, 1.0]), atol=1e-3)
    assert frame.landmarks[0, 36, 0] < 0 < frame.landmarks[0, 45, 0]
    turned = torch.stack([SIZE - points[..., 1], points[..., 0]], dim=-1)  # a quarter turn, clockwise
    again = head_frame(images, mask.mT.flip(2), turned)
    assert torch.allclose(again.landmarks, frame.landmarks, atol=1e-5)
    assert torch.allclose(again.across, frame.across.mT.flip(2), atol=1e-4)
    assert torch.allclose(again.top, frame.top) and torch.allclose(again.left, frame.left, atol=1e-4)


def test_occluders_lie_where_they_belong(heads):
    images, mask, points = (value[:1].expand(200, *value.shape[1:]) for value in heads)
    frame = head_frame(images, mask, points)
    covered = {}
    for name in ("hair", "hat", "clothes", "glasses", "hand"):
        color, opacity = getattr(occluders, name)(images, frame, generator())
        assert color.isfinite().all() and opacity.isfinite().all()
        assert opacity.min() >= 0 and opacity.max() <= 1
        covered[name] = opacity.mean(0)
    crown, brow, eye, mouth, neck = (14, 48), (20, 48), (42, 37), (68, 48), (94, 48)  # rows and columns
    assert covered["hair"][crown] > 0.8 and covered["hair"][mouth] < 0.02
    assert covered["hat"][crown] > 0.8 and covered["hat"][eye] < 0.1 < covered["hat"][brow]
    assert covered["clothes"][neck] > 0.5 and covered["clothes"][mouth] < 0.05
    assert covered["glasses"][35:49, 26:70].mean() > 3 * covered["glasses"].mean()
    assert covered["hand"][mouth] > 0.1 > covered["hand"][crown]


def test_a_head_that_wears_nothing_stays_as_it_is(heads, monkeypatch):
    for name in ("CLOTHES", "HAIR", "HAT", "GLASSES", "HAND"):
        monkeypatch.setattr(occluders, name, 0.0)
    images, mask, points = (value[:1].expand(100, *value.shape[1:]) for value in heads)
    assert torch.equal(occlude(images, mask, points, generator()), images)


def test_a_head_beside_the_image_is_no_error(heads):
    images, mask, points = heads
    made = occlude(images, torch.zeros_like(mask), points + 500, generator())
    assert made.isfinite().all()

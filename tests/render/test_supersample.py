"""Supersampled renderings: means of the fine one, for pictures."""

import torch
from small_head import small_head

from facegpt.render import render


def test_each_pixel_is_the_mean_of_its_samples() -> None:
    head = small_head()
    parameters = head.mean_parameters(2)
    photo = torch.rand(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    coarse = render(head, parameters, (12, 20), background=photo, supersample=2)
    fine = render(
        head, parameters, (24, 40), background=photo.repeat_interleave(2, 2).repeat_interleave(2, 3)
    )
    blocks = fine.image.reshape(2, 3, 12, 2, 20, 2).transpose(3, 4)
    torch.testing.assert_close(coarse.image, blocks.mean(dim=(4, 5)))
    covered = fine.mask.reshape(2, 12, 2, 20, 2).transpose(2, 3).sum(dim=(3, 4))
    torch.testing.assert_close(coarse.mask, covered / 4)
    assert ((covered > 0) & (covered < 4)).any()  # there is an outline with coverage in between
    depth = fine.depth.reshape(2, 12, 2, 20, 2).transpose(2, 3).sum(dim=(3, 4))
    seen = covered > 0
    torch.testing.assert_close(coarse.depth[seen], (depth / covered.clamp(min=1))[seen])
    lengths = coarse.normals.norm(dim=1)
    torch.testing.assert_close(lengths, seen.float(), rtol=0, atol=1e-5)


def test_landmarks_and_shapes_are_those_of_the_coarse_image() -> None:
    head = small_head()
    parameters = head.mean_parameters()
    plain, fine = render(head, parameters, 16), render(head, parameters, 16, supersample=3)
    torch.testing.assert_close(fine.landmarks, plain.landmarks, rtol=0, atol=1e-4)
    assert fine.fragments.triangle.shape == plain.fragments.triangle.shape == (1, 16, 16)
    # Of three samples per axis the middle one is at the pixel's centre.
    assert torch.equal(fine.fragments.triangle, plain.fragments.triangle)
    torch.testing.assert_close(fine.fragments.depth, plain.fragments.depth, rtol=0, atol=1e-5)

"""Sharpness falls with blur; the hash survives another encoding and tells pictures apart."""

from __future__ import annotations

import io

import numpy as np
import pytest
from data_files import face_image
from PIL import Image, ImageFilter

from facegpt.perception.quality import HASH_BITS, SeenPictures, picture_hash, sharpness


def noisy(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (128, 128), dtype=np.uint8)
    return Image.fromarray(noise)


def test_sharpness_of_noise_is_that_of_the_laplacian():
    """Independent values of variance s2 give 20 s2 = (4^2 + 4) s2, for bytes (256^2 - 1) / 12."""
    assert sharpness(noisy()) == pytest.approx((20 * (256**2 - 1) / 12) ** 0.5, rel=0.02)
    blurred = [sharpness(noisy().filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert blurred == sorted(blurred, reverse=True)
    assert sharpness(noisy().resize((16, 16)).resize((224, 224))) < sharpness(noisy().resize((224, 224)))


def test_near_duplicates_are_found_and_others_are_not():
    seen = SeenPictures()
    for number in range(1500):  # more than were made room for
        seen.add(picture_hash(face_image(96, number)), str(number))
    for number in (0, 700, 1499):
        buffer = io.BytesIO()
        again = face_image(96, number).resize((140, 140)).point(lambda value: int(0.7 * value) + 30)
        again.save(buffer, "JPEG", quality=70)
        assert seen.find(picture_hash(Image.open(buffer)), 24) == str(number)
    assert seen.find(picture_hash(face_image(96, 5000)), 24) is None
    assert seen.find(picture_hash(face_image(96, 7)), -1) is None
    assert len(picture_hash(noisy())) * 8 == HASH_BITS

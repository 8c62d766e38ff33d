"""Photographs are read upright and whole, or refused by name."""

import pytest
from PIL import Image

from facegpt.errors import ImageError
from facegpt.perception import images
from facegpt.perception.images import read_image


def test_image_is_upright_rgb(tmp_path):
    image = Image.new("L", (8, 4))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise to see it upright
    image.save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png")
    assert upright.mode == "RGB" and upright.size == (4, 8)
    assert upright.getpixel((3, 0)) == (255, 255, 255)


def test_broken_images_are_named(tmp_path, monkeypatch):
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.png", "text.jpg", "empty.png", "missing.png", "."):
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)
    monkeypatch.setattr(images, "LARGEST_IMAGE", 64 * 64 - 1)
    with pytest.raises(ImageError, match=r"whole\.png: 64 x 64"):
        read_image(tmp_path / "whole.png")


def test_a_decompression_bomb_is_refused_before_decoding(tmp_path):
    """A PNG header that promises 100000 x 100000 pixels, with almost no data behind it."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)))
    with pytest.raises(ImageError, match=r"bomb\.png"):
        read_image(path)

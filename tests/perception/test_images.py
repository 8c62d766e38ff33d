"""Photographs are read upright and whole, or refused by name."""

import os
import warnings
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from facegpt.errors import ImageError
from facegpt.perception import images
from facegpt.perception.images import decode_image, read_image


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
    (tmp_path / "program.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    names = (
        "cut.png",
        "text.jpg",
        "empty.png",
        "missing.png",
        "program.eps",
        "pipe.png",
        "zero.png",
        "folder.png",
    )
    for name in (*names, "name" * 200, "a\0b.png"):
        for coarse in (False, True):
            with pytest.raises(ImageError) as caught:
                read_image(tmp_path / name, coarse)
            assert name.replace("\0", "\\x00") in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setattr(images, "LARGEST_IMAGE", 64 * 64 - 1)
    with pytest.raises(ImageError, match=r"whole\.png: 64 x 64"):
        read_image(tmp_path / "whole.png")
    with pytest.raises(ImageError, match="a picture: 64 x 64"):
        decode_image(whole, "a picture")
    monkeypatch.setattr(images, "LARGEST_FILE", 99)
    with pytest.raises(ImageError, match=r"whole\.png: .* bytes are too many"):
        read_image(tmp_path / "whole.png")
    with pytest.raises(ImageError, match=r"a picture: .* bytes are too many"):
        decode_image(whole, "a picture")


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


RAMP = np.linspace(0, 1, 256).reshape(16, 16)


def grays(path):
    image = read_image(path)
    assert image.mode == "RGB"
    values = np.asarray(image).astype(int)
    assert (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all()
    return values[..., 0]


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "I;16"), ("a.tif", "I;16"), ("b.tif", "I;16B"), ("a.pgm", "I;16")]
)
def test_gray_of_16_bits_keeps_its_range(tmp_path, name, mode):
    values = np.round(RAMP * 65535).astype(">u2" if mode == "I;16B" else "<u2")
    Image.frombytes(mode, (16, 16), values.tobytes()).save(tmp_path / name)
    assert (grays(tmp_path / name) == np.arange(256).reshape(16, 16)).all()
    buffer = BytesIO((tmp_path / name).read_bytes())
    assert (np.asarray(decode_image(buffer.getvalue(), "bytes"))[..., 1] == grays(tmp_path / name)).all()


def test_16_bits_are_rounded_to_the_nearest_of_8(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(512, 128)  # two strips
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (grays(tmp_path / "a.png") == np.rint(values / 257)).all()


def test_floating_point_colors_lie_between_0_and_1(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "a.tif")
    assert (grays(tmp_path / "a.tif") == np.arange(256).reshape(16, 16)).all()
    for values in (RAMP * 255, RAMP - 0.5, RAMP * np.nan, np.full((16, 16), np.inf)):
        Image.fromarray(values.astype(np.float32)).save(tmp_path / "b.tif")
        with pytest.raises(ImageError, match=r"b\.tif.*must be in \[0,1\]"):
            read_image(tmp_path / "b.tif")


def test_whole_numbers_of_32_bits_are_refused(tmp_path):
    Image.fromarray((RAMP * 255).astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="32-bit whole numbers"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("transparency", [3, bytes(range(256))])
def test_a_palette_with_transparency_shows_its_colors(tmp_path, transparency):
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16), "P")
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(tmp_path / "a.png", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = np.asarray(read_image(tmp_path / "a.png")).reshape(256, 3)
    assert (pixels == np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 7)], 1)).all()


def test_a_coarse_look_finds_what_a_whole_one_finds(tmp_path):
    Image.effect_noise((256, 128), 50).convert("RGB").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", coarse=True).size == (32, 16)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) * 9 // 10])
    for coarse in (False, True):
        with pytest.raises(ImageError, match=r"a\.jpg: cannot be decoded"):
            read_image(tmp_path / "a.jpg", coarse)


def test_embedded_bytes_keep_their_pixels_where_they_are(tmp_path):
    """A record's landmarks are in pixels of the stored image, whatever its EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, "JPEG", exif=exif)
    assert decode_image(buffer.getvalue(), "x").size == (8, 4)

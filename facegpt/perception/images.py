"""Read photographs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from facegpt.errors import ImageError
from facegpt.files import file_size, printable

LARGEST_IMAGE = 80_000_000  # pixels; below Pillow's own bomb limit, above any camera we know of at 224
LARGEST_FILE = 500_000_000  # bytes; 80 million pixels of three uncompressed 16-bit colours
STRIP = 256  # rows whose numbers are converted at once, so that copies of them stay small
# Formats of photographs and textures, of those that Pillow reads: EPS would start Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")


def read_image(path: str | Path, coarse: bool = False) -> Image.Image:
    """A photograph as RGB, turned upright by its EXIF orientation and fully decoded.

    Grey of 16 bits is scaled to 8; floating-point colours must lie in [0,1], whole numbers of 32 bits are
    refused, for nothing says what their white is. Transparency is dropped, of an animation the first frame
    counts. Decoding takes up to 9 bytes per pixel. coarse: a JPEG may come out smaller, up to 8 times; every
    byte is decoded all the same, so this finds what is wrong with a file, only faster.

    Raises ImageError, naming the file, when it is missing, no regular file (a pipe, a device), truncated, not
    an image, or larger than `LARGEST_FILE` bytes or `LARGEST_IMAGE` pixels (both refused before decoding).
    """
    path = Path(path)
    size = file_size(path)
    if size is None:
        raise ImageError(f"{printable(path)}: no such image file")
    if size > LARGEST_FILE:
        raise ImageError(f"{printable(path)}: {size} bytes are too many for an image; shrink it")
    return _decode(path, printable(path), coarse, upright=True)


def decode_image(content: bytes, name: str, upright: bool = False) -> Image.Image:
    """The bytes of an image file as RGB, as `read_image` does it; its pixels as they lie, or `upright`.

    Raises ImageError that begins with `name`.
    """
    if len(content) > LARGEST_FILE:
        raise ImageError(f"{name}: {len(content)} bytes are too many for an image; shrink it")
    return _decode(BytesIO(content), name, coarse=False, upright=upright)


def encode_image(image: Image.Image, quality: int) -> bytes:
    """An image as a JPEG of this quality with all of its colors, or as a PNG for quality 0."""
    buffer = BytesIO()
    if quality:
        image.save(buffer, "JPEG", quality=quality, subsampling=0)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _decode(source: Path | BytesIO, name: str, coarse: bool, upright: bool) -> Image.Image:
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise ImageError(f"{name}: {image.width} x {image.height} pixels are too many; shrink it")
            if coarse:
                image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            if upright:
                ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: cannot be decoded (it is none of {', '.join(FORMATS)}); drop it") from None
    except Exception as error:  # Pillow's decoders raise many types for broken bytes; all mean the same here
        raise ImageError(f"{name}: cannot be decoded ({error}); export it again or drop it") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image in any mode; Pillow alone would cut everything beyond 8 bits off at 255.

    Raises ValueError that says what is wrong.
    """
    # Of PNG and PPM, Pillow's 32-bit mode I holds numbers of 16 bits.
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen_bits or image.mode == "F":
        image = _to_gray(image)
    elif image.mode == "I":
        raise ValueError("32-bit whole numbers, which have no known white")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns of what it cannot keep
    return image.convert("RGB")


def _to_gray(image: Image.Image) -> Image.Image:
    """8-bit grey of an image of 16-bit numbers or of floating-point ones in [0,1], strip by strip."""
    gray = Image.new("L", image.size)
    for top in range(0, image.height, STRIP):
        values = np.asarray(image.crop((0, top, image.width, min(top + STRIP, image.height))))
        if image.mode == "F":
            low, high = float(values.min()), float(values.max())
            if not (low >= 0 and high <= 1):  # NaN fails both
                raise ValueError(
                    f"floating-point colours from {low:.3g} to {high:.3g}, they must be in [0,1]"
                )
            values = values * 255 + 0.5
        else:
            values = values // 257 + (values % 257 > 128)
        gray.paste(Image.fromarray(values.astype(np.uint8)), (0, top))
    return gray

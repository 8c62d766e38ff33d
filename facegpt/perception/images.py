"""Read photographs."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from facegpt.errors import ImageError

LARGEST_IMAGE = 80_000_000  # pixels; below Pillow's own bomb limit, above any camera we know of at 224


def read_image(path: str | Path) -> Image.Image:
    """A photograph as RGB, turned upright by its EXIF orientation and fully decoded.

    Raises ImageError, naming the file, when it is missing, truncated, not an image, or larger than
    `LARGEST_IMAGE` pixels (refused before decoding).
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            if image.width * image.height > LARGEST_IMAGE:
                raise ImageError(f"{path}: {image.width} x {image.height} pixels are too many; shrink it")
            return ImageOps.exif_transpose(image).convert("RGB")
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for broken bytes; all mean the same here
        raise ImageError(f"{path}: cannot be decoded ({error}); export it again or drop it") from error

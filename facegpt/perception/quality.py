"""What tells a good picture of a face from a bad one: sharpness, and whether it is there twice."""

from __future__ import annotations

import numpy as np
from PIL import Image

SHARPNESS_SIZE = 128  # pixels a side of what sharpness is measured on
HASH_SIDE = 16
HASH_BITS = HASH_SIDE**2


def sharpness(face: Image.Image) -> float:
    """Standard deviation of the Laplacian of a face crop's gray values (0..255) at 128 x 128 pixels.

    The focus measure of Pech-Pacheco et al. 2000 (there the variance). At one size for all, so that a small
    face that was scaled up counts as what it shows: not sharp.
    """
    gray = np.asarray(face.convert("L").resize((SHARPNESS_SIZE,) * 2, Image.Resampling.BICUBIC), np.float32)
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((around - 4 * gray[1:-1, 1:-1]).std())


def picture_hash(face: Image.Image) -> bytes:
    """256 bits (32 bytes) that re-encoding, scaling and light hardly change: the difference hash.

    Bit (y,x) says whether a pixel is brighter than its left neighbor in the picture scaled to 17 x 16 (dHash,
    Krawetz 2013). Near-duplicates differ in few bits, different pictures in about half of them.
    """
    exact = face.convert("L").convert("F")  # rounded means would make neighbors equal that are not
    gray = np.asarray(exact.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    return np.packbits(gray[:, 1:] > gray[:, :-1]).tobytes()


class SeenPictures:
    """The hashes of the pictures kept so far, 32 bytes each; comparing with 100,000 takes about 1 ms."""

    def __init__(self) -> None:
        self._hashes = np.zeros((1024, HASH_BITS // 64), dtype=np.uint64)
        self._names: list[str] = []

    def add(self, value: bytes, name: str) -> None:
        """Remember a picture."""
        if len(self._names) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[len(self._names)] = np.frombuffer(value, dtype=np.uint64)
        self._names.append(name)

    def find(self, value: bytes, most_bits: int) -> str | None:
        """The name of the nearest picture that differs in at most `most_bits` bits, None without one."""
        known = self._hashes[: len(self._names)]
        differing = np.bitwise_count(known ^ np.frombuffer(value, dtype=np.uint64)).sum(
            axis=1, dtype=np.int64
        )
        nearest = int(differing.argmin()) if len(differing) else -1
        return self._names[nearest] if nearest >= 0 and differing[nearest] <= most_bits else None

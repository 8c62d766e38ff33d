"""Small data folders for the tests of this room."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image

from facegpt.data.records import FEATURES


def face_image(size: int = 64, seed: int = 0) -> Image.Image:
    """A smooth random picture, so that resampling and JPEG change it little."""
    coarse = np.random.default_rng(seed).integers(40, 220, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def face_landmarks(size: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2 * size, 0.8 * size, (68, 2)).astype(np.float32)


def encode(image: Image.Image, kind: str = "PNG") -> dict:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


def face_row(number: int, size: int = 64) -> dict:
    mask = Image.fromarray((255 * (np.indices((size, size)).sum(0) % 2)).astype(np.uint8))
    return {
        "id": f"face-{number}",
        "image": encode(face_image(size, number)),
        "landmarks": face_landmarks(size, number).ravel().tolist(),
        "skin_mask": encode(mask),
        "parameters": torch.linspace(-1, 1, 236).tolist(),
    }


def write_shards(path: Path, rows: list[dict], shard: int = 3) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(rows), shard):
        part = datasets.Dataset.from_list(rows[start : start + shard], features=FEATURES)
        part.to_parquet(str(path / f"faces-{start:05d}.parquet"))
    return path


def write_annotations(path: Path, numbers: list[int]) -> None:
    rows = [
        {
            "id": f"face-{number}",
            "description": {"shape": f"A long face {number}.", "pose": "It looks up."},
            "conversation": [["Hair?", f"Dark {number}."], ["Place?", "A room."], ["Clothes?", "A shirt."]],
        }
        for number in numbers
    ]
    (path / "descriptions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_photographs(path: Path, count: int = 2) -> Path:
    (path / "more").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        folder = path if number % 2 == 0 else path / "more"
        face_image(160, number).save(folder / f"photo{number}.jpg", quality=95)
        points = face_landmarks(80, number) + 40
        if number % 2 == 0:
            np.save(folder / f"photo{number}.npy", points)
        else:
            lines = "\n".join(f"{x + 0.5} {y + 0.5}" for x, y in points)
            (folder / f"photo{number}.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    return path

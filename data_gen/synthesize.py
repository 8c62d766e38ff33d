"""python data_gen/synthesize.py --config configs/tiny/data.yaml [key=value ...]

Renders random faces with known parameters, for training the tiny setup and for measuring:

    OUT/train/*.parquet, OUT/test/*.parquet   image, landmarks, skin mask, parameters (facegpt.data.records)
    OUT/train/dataset.json, ...               head id, seed, layout, size, count
    OUT/instruct.json                         plain conversations in LLaVA's format, for training
    OUT/instruct_test.json                    others of the same kind, a tenth as many, for measuring
    OUT/train/descriptions.jsonl              texts=N: N descriptions of each face in many words, from what
                                              is known of it (heads whose components have names)
    OUT/faces.png                             a contact sheet to look at

A shard that exists is kept, so an interrupted run continues where it stopped; a folder that was made with
other settings is refused. The same settings give the same faces.

landmark_noise, mask and photographic make the training faces more like what a photograph and the detectors on
it would give; the faces are the same with and without, and those to test with stay exact.
"""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from PIL import Image
from tqdm import tqdm

from facegpt.config import at_least, parse_config, run
from facegpt.data.records import (
    ANNOTATIONS,
    FEATURES,
    METADATA,
    Shards,
    read_annotations,
    read_metadata,
    read_records,
)
from facegpt.errors import ConfigError
from facegpt.files import append_jsonl, atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.perception.images import encode_image
from facegpt.perception.skin import skin_probability
from facegpt.render.renderer import render
from facegpt.sample import REFERENCE_SIZE
from facegpt.standins.conversations import instructions
from facegpt.standins.descriptions import MOVEMENTS, describe_freely, looks
from facegpt.standins.detector import detector_noise
from facegpt.standins.language import read_facts
from facegpt.standins.photographic import photographic
from facegpt.standins.synthetic import background, photograph, sample_parameters
from facegpt.standins.talk import talk_about
from facegpt.visualize import contact_sheet, draw_landmarks, to_pil

AT_ONCE = 25  # faces rendered together; part of what the seed means, as every batch draws from one generator
EXACT = {"landmark_noise": 0.0, "mask": "truth", "photographic": False}  # what the test faces always have


@dataclass
class SynthesisSettings:
    """train, test: number of faces. size: side of the images in pixels. shard: faces per file. quality: of
    the JPEG images, 0 for PNG. instruct: number of plain conversations. texts: descriptions of each
    face in words; talk: questions about its photograph with answers. out: folder for all of it.
    head: "builtin" or a head file. seed: of everything that is drawn.
    landmark_noise: standard deviation in pixels of a 224 image by which the landmarks of training faces are
    off, see `detector_noise`. mask: of the skin of training faces, its true place or where the color of the
    image looks so. photographic: whether training images are degraded and their faces partly hidden as in
    photographs.
    """

    out: str = "outputs/demo/data"
    head: str = "builtin"
    train: int = 2000
    test: int = 200
    size: int = 224
    shard: int = 250
    seed: int = 0
    quality: int = 95
    instruct: int = 2000
    texts: int = 0
    talk: int = 0
    landmark_noise: float = 0.0
    mask: Literal["truth", "color"] = "truth"
    photographic: bool = False

    def __post_init__(self) -> None:
        at_least(1, self, "size", "shard")
        at_least(0, self, "train", "test", "instruct", "texts", "talk", "landmark_noise")
        if not self.landmark_noise <= 30:  # beyond, or if it is no number, landmarks would not be a face's
            raise ValueError(f"landmark_noise must be between 0 and 30, it is {self.landmark_noise}")
        if not 0 <= self.quality <= 100:
            raise ValueError(f"quality must be between 0 and 100, it is {self.quality}")


def main(argv: list[str]) -> None:
    settings = parse_config(SynthesisSettings, argv, __doc__)
    out = Path(settings.out)
    head = HeadModel.open(settings.head)
    datasets.disable_progress_bars()
    for split, count in (("train", settings.train), ("test", settings.test)):
        if count:
            write_split(head, settings, split, count, out / split)
            if settings.texts or settings.talk:
                write_texts(head, settings, out / split)
    if settings.instruct:
        write_json(out / "instruct.json", instructions(settings.seed, settings.instruct))
        others = instructions(settings.seed + 1_000_003, max(1, settings.instruct // 10))
        write_json(out / "instruct_test.json", others)
    shown = next((out / split for split in ("train", "test") if (out / split).is_dir()), None)
    if shown is not None:
        write_contact_sheet(shown, out / "faces.png")
    print(f"{out}: {settings.train} faces to train with, {settings.test} to test, {settings.instruct} texts")


def write_split(head: HeadModel, settings: SynthesisSettings, split: str, count: int, folder: Path) -> None:
    """Write the missing shards of one split; ConfigError when those present have other settings."""
    if split == "test":
        settings = replace(settings, **EXACT)  # type: ignore[arg-type]
    metadata = {
        "head_id": head.id,
        "layout": asdict(head.layout),
        "seed": settings.seed,
        "size": settings.size,
        "quality": settings.quality,
        "shard": settings.shard,
        "count": count,
        **{key: getattr(settings, key) for key in EXACT},
    }
    present = read_metadata(folder)
    for key, value in metadata.items():
        if present and present.get(key, EXACT.get(key)) != value:
            raise ConfigError(
                f"{folder} was made with {key} {present.get(key, EXACT.get(key))} and not {value}; "
                "remove it or choose another out"
            )
    write_json(folder / METADATA, metadata)
    with tqdm(total=count, desc=split, unit="face") as progress:
        for number, start in enumerate(range(0, count, settings.shard)):
            faces = min(settings.shard, count - start)
            file = folder / f"faces-{number:05d}.parquet"
            if not file.is_file():
                names = [f"{split}-{index:06d}" for index in range(start, start + faces)]
                rows = make_rows(head, settings, names, _seed(settings.seed, split, number), progress)
                with atomic_path(file) as temporary:
                    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(str(temporary))
            else:
                progress.update(faces)


def make_rows(
    head: HeadModel,
    settings: SynthesisSettings,
    names: list[str],
    seed: int,
    progress: tqdm[Any],
) -> list[dict[str, Any]]:
    """Rows of a shard (`FEATURES`) with these ids: random faces, all drawn from this seed."""
    # One for the faces, and one for each thing done to them, so that they are the same with and without.
    generator, taking, detecting = (torch.Generator().manual_seed(seed + offset) for offset in range(3))
    rows = []
    for start in range(0, len(names), AT_ONCE):
        chunk = names[start : start + AT_ONCE]
        parameters = sample_parameters(head, len(chunk), generator)
        with torch.no_grad():
            rendering = render(head, parameters, settings.size)
        images = photograph(rendering, background(len(chunk), settings.size, generator), generator)
        if settings.photographic:
            images = photographic(images, rendering.mask, rendering.landmarks, taking)
        landmarks = rendering.landmarks
        if settings.landmark_noise:
            sigma = settings.landmark_noise * settings.size / REFERENCE_SIZE
            landmarks = detector_noise(landmarks, sigma, detecting)
        skin = rendering.skin_mask if settings.mask == "truth" else skin_probability(images)
        vectors = parameters.to_vector()
        for i, name in enumerate(chunk):
            mask = Image.fromarray((255 * skin[i]).round().byte().cpu().numpy())
            rows.append(
                {
                    "id": name,
                    "image": {"bytes": encode_image(to_pil(images[i]), settings.quality), "path": None},
                    "landmarks": landmarks[i].flatten().tolist(),
                    "skin_mask": {"bytes": encode_image(mask, 0), "path": None},
                    "parameters": vectors[i].tolist(),
                }
            )
        progress.update(len(chunk))
    return rows


def write_texts(head: HeadModel, settings: SynthesisSettings, folder: Path) -> None:
    """Append a row of descriptions.jsonl for every face without one; ConfigError for a head without names."""
    if not set(head.expression_names) & {part for parts in MOVEMENTS.values() for part in parts}:
        raise ConfigError("texts and talk need a head whose components have names; leave them out or at 0")
    records, path = read_records(folder), folder / ANNOTATIONS
    assert isinstance(records.rows, Shards)  # as `write_split` wrote them
    done = read_annotations(path) if path.is_file() else {}
    rows = records.rows.table.select_columns(["id", "parameters"])  # no image is decoded
    missing = [index for index, name in enumerate(records.ids) if name not in done]
    for start in tqdm(range(0, len(missing), 250), desc=f"texts of {folder.name}", unit="250 faces"):
        chunk = rows.select(missing[start : start + 250]).to_dict()
        vectors = torch.tensor(chunk["parameters"])
        facts = read_facts(head, FaceParameters.from_vector(vectors, head.layout))
        lines = []
        for name, known in zip(chunk["id"], facts, strict=True):
            rng = random.Random(f"{settings.seed}/{name}")
            lines.append(
                {
                    "id": name,
                    "conversation": talk_about(known, rng, settings.talk),
                    "texts": describe_freely(known, rng, settings.texts),
                    "looks": looks(known, rng, settings.texts),
                }
            )
        append_jsonl(path, lines)


def write_contact_sheet(folder: Path, path: Path, columns: int = 8, lines: int = 3) -> None:
    """Photographs as they lie on disk, and below each of them its landmarks and skin mask."""
    records = read_records(folder)[: columns * lines]
    sheet: list[list[Any]] = []
    for start in range(0, len(records), columns):
        row = records[start : start + columns]
        sheet.append([record.image for record in row])
        checked = []
        for record in row:
            mask = Image.fromarray((255 * record.skin_mask).byte().numpy())
            tinted = Image.composite(record.image, Image.new("RGB", mask.size, (40, 60, 90)), mask)
            checked.append(draw_landmarks(tinted, record.landmarks, (0, 255, 0)))
        sheet.append(checked)
    with atomic_path(path) as temporary:
        contact_sheet(sheet).save(temporary)


def _seed(seed: int, split: str, shard: int) -> int:
    """A seed of its own for every shard, so that shards can be made in any order and after a break."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{split}/{shard}".encode()).digest()[:7], "big")


if __name__ == "__main__":
    sys.exit(run(main))

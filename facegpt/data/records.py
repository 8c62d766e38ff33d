"""Face records on disk: a folder of parquet shards, or a folder of photographs with landmark files."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facegpt.data.targets import check_landmarks, check_record
from facegpt.errors import ImageError, LandmarkError, SampleError
from facegpt.files import read_jsonl
from facegpt.perception.align import crop_face
from facegpt.perception.images import read_image
from facegpt.perception.landmark_files import read_landmarks
from facegpt.sample import FaceRecord

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LANDMARK_SUFFIXES = (".npy", ".pts")
ANNOTATIONS, METADATA = "descriptions.jsonl", "dataset.json"

# Columns of a face shard; skin_mask and parameters may be absent or null.
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "image": datasets.Image(),
        "landmarks": datasets.List(datasets.Value("float32")),
        "skin_mask": datasets.Image(),
        "parameters": datasets.List(datasets.Value("float32")),
    }
)


@dataclass
class Annotation:
    """What the untouched VLM said about one photograph; fields as in `FaceRecord`."""

    description: dict[str, str] = field(default_factory=dict)
    conversation: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class FaceRecords(Sequence[FaceRecord]):
    """The face records of one folder; images are read when a record is asked for.

    rows: where the records lie. annotations: by record id. metadata: content of `dataset.json` (head id,
    seed, layout, count), {} when there is none.
    """

    path: Path
    rows: Shards | Photographs
    annotations: dict[str, Annotation]
    metadata: dict[str, Any]

    @property
    def ids(self) -> list[str]:
        return self.rows.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.rows.load(range(len(self))[index])  # the range checks the bounds and allows -1
        annotation = self.annotations.get(record.id)
        if annotation is not None:
            record.description, record.conversation = annotation.description, annotation.conversation
        return record

    def __iter__(self) -> Iterator[FaceRecord]:
        return (self[index] for index in range(len(self)))


def read_records(path: str | Path, size: int = 224) -> FaceRecords:
    """The face records in folder `path`, with what `descriptions.jsonl` in the same folder says of them.

    A folder with parquet files is read as shards (see `FEATURES`). Any other is read as photographs
    (`PHOTO_SUFFIXES`, sub-folders too) with NAME.npy or NAME.pts beside NAME.jpg; each is cropped around its
    landmarks to `size` pixels, and its id is its path within the folder without the suffix.

    Raises SampleError when the folder is missing, empty, of another schema, or has an id twice, and
    LandmarkError when a photograph has no landmark file.
    """
    path = Path(path)
    if not path.is_dir():
        raise SampleError(f"{path} is not a folder; give one with parquet shards or photographs")
    rows = Shards(path) if any(path.glob("*.parquet")) else Photographs(path, size)
    name, count = Counter(rows.ids).most_common(1)[0]
    if count > 1:
        raise SampleError(f"{path} has the id {name} {count} times; rename or remove records")
    notes, metadata = path / ANNOTATIONS, path / METADATA
    return FaceRecords(
        path,
        rows,
        read_annotations(notes) if notes.is_file() else {},
        json.loads(metadata.read_text(encoding="utf-8")) if metadata.is_file() else {},
    )


def read_annotations(path: str | Path) -> dict[str, Annotation]:
    """Annotations by record id from a `descriptions.jsonl`.

    Raises SampleError, naming file and row, for a row that does not have the schema
    {"id", "description": {aspect: text}, "conversation": [[question, answer], ...]}.
    """
    annotations = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        description, conversation = row.get("description", {}), row.get("conversation", [])
        good = (
            isinstance(row.get("id"), str)
            and isinstance(description, dict)
            and all(isinstance(text, str) for text in description.values())
            and isinstance(conversation, list)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in conversation)
            and all(isinstance(text, str) for pair in conversation for text in pair)
        )
        if not good:
            raise SampleError(
                f"row {number} of {path} is not of the form "
                '{"id", "description": {aspect: text}, "conversation": [[question, answer], ...]}'
            )
        annotations[row["id"]] = Annotation(description, [(pair[0], pair[1]) for pair in conversation])
    return annotations


class Shards:
    """Rows of the parquet files in a folder, memory-mapped by `datasets`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        files = sorted(str(file) for file in path.glob("*.parquet") if not file.name.startswith("."))
        try:
            table = datasets.load_dataset("parquet", data_files=files, split="train")
        except Exception as error:  # `datasets` wraps whatever pyarrow raises for broken or differing files
            raise SampleError(f"the parquet files in {path} cannot be read together: {error}") from error
        missing = {"id", "image", "landmarks"} - set(table.column_names)
        if missing:
            raise SampleError(f"the parquet files in {path} lack the columns {', '.join(sorted(missing))}")
        for column in {"image", "skin_mask"} & set(table.column_names):
            table = table.cast_column(column, datasets.Image(decode=False))
        self.table = table
        self.ids = [str(name) for name in table["id"]]

    def load(self, index: int) -> FaceRecord:
        """Record `index` without annotation; raises ImageError or LandmarkError, naming it, when broken."""
        row = self.table[index]
        name = f"{row['id']} in {self.path}"
        landmarks = row["landmarks"] or []
        if len(landmarks) != 136:
            raise LandmarkError(f"{name} has {len(landmarks)} landmark numbers instead of 68 x 2")
        mask, parameters = row.get("skin_mask"), row.get("parameters")
        return FaceRecord(
            id=str(row["id"]),
            image=_decode(row["image"], name).convert("RGB"),
            landmarks=torch.tensor(landmarks, dtype=torch.float32).view(68, 2),
            skin_mask=None if mask is None else _to_mask(_decode(mask, f"the skin mask of {name}")),
            parameters=None if parameters is None else torch.tensor(parameters, dtype=torch.float32),
        )

    def check(self, index: int) -> None:
        """Raise what `load` and the making of a target would raise, without computing one."""
        check_record(self.load(index))


class Photographs:
    """Photographs with landmark files beside them, in a folder and its sub-folders."""

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in PHOTO_SUFFIXES]
        files = [file for file in files if not file.name.startswith(".")]  # half-written or hidden
        if not files:
            raise SampleError(f"{path} has no parquet shards and no {', '.join(PHOTO_SUFFIXES)} files")
        self.files = [(photo, _landmark_file(photo)) for photo in files]
        self.ids = [file.relative_to(path).with_suffix("").as_posix() for file in files]

    def load(self, index: int) -> FaceRecord:
        """Record `index` without annotation; raises ImageError or LandmarkError, naming the file."""
        photo, landmarks = self.files[index]
        points = read_landmarks(landmarks)
        try:
            image, points, _ = crop_face(read_image(photo), points, self.size)
        except LandmarkError as error:
            raise LandmarkError(f"{landmarks} does not fit {photo.name}: {error}") from None
        return FaceRecord(id=self.ids[index], image=image, landmarks=points.float())

    def check(self, index: int) -> None:
        """Raise what `load` would raise for broken files; a photograph is decoded coarsely, which is fast."""
        photo, landmarks = self.files[index]
        points = read_landmarks(landmarks)
        check_landmarks(points, str(landmarks))
        try:
            with Image.open(photo) as image:
                width, height = image.size
                image.draft("RGB", (width // 8, height // 8))
                image.load()
        except Exception as error:  # Pillow's decoders raise many types for broken bytes
            raise ImageError(f"{photo} cannot be decoded ({error}); export it again or drop it") from error
        center, side = (points.amin(0) + points.amax(0)) / 2, max(width, height)
        if bool((center < 0).any()) or bool((center > side).any()):
            raise LandmarkError(
                f"the landmarks in {landmarks} lie outside of {photo.name}; detect them again"
            )


def _landmark_file(photo: Path) -> Path:
    for suffix in LANDMARK_SUFFIXES:
        if photo.with_suffix(suffix).is_file():
            return photo.with_suffix(suffix)
    raise LandmarkError(f"{photo} has no landmarks; write {photo.stem}.npy or {photo.stem}.pts beside it")


def _decode(value: dict[str, Any] | None, name: str) -> Image.Image:
    """A `datasets` image ({"bytes", "path"}), fully decoded."""
    try:
        if value is None or (value["bytes"] is None and value["path"] is None):
            raise ValueError("it is empty")
        content = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        image = Image.open(io.BytesIO(content))
        image.load()
        return image
    except Exception as error:  # Pillow's decoders raise many types for broken bytes
        raise ImageError(f"the image of {name} cannot be decoded ({error}); replace or drop it") from error


def _to_mask(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("L"))).float() / 255

"""Face records on disk: a folder of parquet shards, or a folder of photographs with landmark files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from facegpt.data.targets import check_landmarks
from facegpt.errors import ImageError, LandmarkError, SampleError
from facegpt.files import file_size, printable, read_json, read_jsonl
from facegpt.perception.align import crop_face
from facegpt.perception.images import LARGEST_FILE, decode_image, read_image
from facegpt.perception.landmark_files import LANDMARK_SUFFIXES, complete_landmarks, read_landmarks
from facegpt.sample import FaceRecord

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LONGEST_LIST = 10_000  # numbers of a column in a row; landmarks are 136, parameters some hundreds
LONGEST_TEXT, MOST_TEXTS = 10_000, 1000  # characters of a whole description, and how many a face can have
ANNOTATIONS, METADATA = "descriptions.jsonl", "dataset.json"

# Columns of a face shard; skin_mask and parameters may be absent or null. Two more may be there: view, the
# wider picture, and landmark_valid, 68 times whether the landmark was given. Others are not read.
FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "image": datasets.Image(),
        "landmarks": datasets.List(datasets.Value("float32")),
        "skin_mask": datasets.Image(),
        "parameters": datasets.List(datasets.Value("float32")),
    }
)
READ = (*FEATURES, "view", "landmark_valid")


@dataclass
class Annotation:
    """What the pretrained VLM said about one photograph; fields as in `FaceRecord`."""

    description: dict[str, str] = field(default_factory=dict)
    conversation: list[tuple[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)


class Rows(Protocol):
    """Where records lie: their ids in order, and record `index` without its annotation."""

    ids: list[str]

    def load(self, index: int) -> FaceRecord: ...


@dataclass
class FaceRecords(Sequence[FaceRecord]):
    """The face records of one folder; images are read when a record is asked for.

    rows: `Shards`, `Photographs` or others like them. annotations: by record id.
    metadata: content of `dataset.json` (head id, seed, layout, count), {} when there is none.
    """

    path: Path
    rows: Rows
    annotations: dict[str, Annotation]
    metadata: dict[str, Any]

    @property
    def ids(self) -> list[str]:
        """The ids of all records, in their order; each is there once."""
        return self.rows.ids

    @property
    def described(self) -> list[int]:
        """Indices of the records that have a description or whole texts."""
        notes = (self.annotations.get(name, Annotation()) for name in self.ids)
        return [i for i, note in enumerate(notes) if note.description or note.texts]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        """Record `index`, or a list of them for a slice. SampleError names a broken record."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.rows.load(range(len(self))[index])  # the range checks the bounds and allows -1
        annotation = self.annotations.get(record.id)
        if annotation is not None:
            record.description, record.conversation = annotation.description, annotation.conversation
            record.texts, record.looks = annotation.texts, annotation.looks
        return record

    def __iter__(self) -> Iterator[FaceRecord]:
        return (self[index] for index in range(len(self)))


def read_records(path: str | Path, size: int = 224) -> FaceRecords:
    """The face records in folder `path`, with what `descriptions.jsonl` in the same folder says of them.

    A folder with parquet files is read as shards (see `FEATURES`). Any other is read as photographs
    (`PHOTO_SUFFIXES`, sub-folders too) with NAME.npy or NAME.pts beside NAME.jpg; each is cropped around its
    landmarks to `size` pixels, and its id is its path within the folder without the suffix. Landmarks are 68,
    or the 51 without the contour; links are followed.

    Raises SampleError when the folder is missing, empty, of another schema, or has an id twice, or when
    `dataset.json` or `descriptions.jsonl` are broken; LandmarkError when a photograph has no landmark file.
    """
    path = Path(path)
    if not path.is_dir():
        raise SampleError(f"{path} is not a folder; give one with parquet shards or photographs")
    shards = [file for file in sorted(path.glob("*.parquet")) if file.is_file() and file.name[0] != "."]
    rows = Shards(path, shards) if shards else Photographs(path, size)
    name, count = Counter(rows.ids).most_common(1)[0]
    if count > 1:
        raise SampleError(f"{path} has the id {name} {count} times; rename or remove records")
    notes = path / ANNOTATIONS
    return FaceRecords(path, rows, read_annotations(notes) if notes.is_file() else {}, read_metadata(path))


def read_metadata(folder: Path) -> dict[str, Any]:
    """The content of `dataset.json` in a folder, {} without one; SampleError when it is no JSON object."""
    path = folder / METADATA
    metadata = read_json(path) if path.is_file() else {}
    if not isinstance(metadata, dict):
        raise SampleError(f"{path} must be a JSON object; remove it or make the data again")
    return metadata


def read_annotations(path: str | Path) -> dict[str, Annotation]:
    """Annotations by record id from a `descriptions.jsonl`.

    Raises SampleError, naming file and row, for a row that does not have the schema
    {"id", "description": {aspect: text}, "conversation": [[question, answer], ...], "texts": [text, ...],
    "looks": [word, ...]}, where all but the id may be absent; and for more than `MOST_TEXTS` texts or
    looks, or one that is empty or longer than `LONGEST_TEXT`.
    """
    annotations = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        description, conversation = row.get("description", {}), row.get("conversation", [])
        texts, looks = row.get("texts", []), row.get("looks", [])
        good = (
            isinstance(row.get("id"), str)
            and isinstance(description, dict)
            and all(isinstance(text, str) for text in description.values())
            and isinstance(conversation, list)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in conversation)
            and all(isinstance(text, str) for pair in conversation for text in pair)
            and isinstance(texts, list)
            and isinstance(looks, list)
            and all(isinstance(text, str) for text in [*texts, *looks])
        )
        if not good:
            raise SampleError(
                f"row {number} of {path} is not of the form "
                '{"id", "description": {aspect: text}, "conversation": [[question, answer], ...], '
                '"texts": [text, ...], "looks": [word, ...]}'
            )
        said = [*texts, *looks]
        if max(len(texts), len(looks)) > MOST_TEXTS or not all(
            0 < len(text.strip()) <= LONGEST_TEXT for text in said
        ):
            raise SampleError(
                f"row {number} of {path} has texts or looks that are empty, longer than {LONGEST_TEXT} "
                f"characters or more than {MOST_TEXTS}; shorten them"
            )
        talk = [(pair[0], pair[1]) for pair in conversation]
        annotations[row["id"]] = Annotation(description, talk, texts, looks)
    return annotations


class Shards:
    """Rows of the parquet files in a folder, memory-mapped by `datasets`."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        try:
            _check_counts(files)
            table = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
            missing = {"id", "image", "landmarks"} - set(table.column_names)
            if missing:
                raise SampleError(
                    f"the parquet files in {path} lack the columns {', '.join(sorted(missing))}"
                )
            table = table.select_columns([name for name in table.column_names if name in READ])
            for column in {"image", "skin_mask", "view"} & set(table.column_names):
                table = table.cast_column(column, datasets.Image(decode=False))
        except SampleError:
            raise
        except Exception as error:  # `datasets` wraps whatever pyarrow raises for broken or differing files
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SampleError(f"the parquet files in {path} cannot be read together: {reason}") from error
        if not len(table):
            raise SampleError(f"the parquet files in {path} hold no rows")
        for column in {"landmarks", "parameters", "landmark_valid"} & set(table.column_names):
            _check_lengths(table.data.column(column), f"{column} of the parquet files in {path}")
        self.table = table
        self.ids = [str(name) for name in table["id"]]

    def load(self, index: int) -> FaceRecord:
        """Record `index` without annotation; raises SampleError, naming it, when a column is broken."""
        row = self.table[index]
        name = f"{row['id']} in {self.path}"
        numbers = _numbers(row["landmarks"], f"the landmarks of {name}", LandmarkError)
        if len(numbers) not in (136, 102):
            raise LandmarkError(f"{name} has {len(numbers)} landmark numbers instead of 68 x 2")
        landmarks, valid = complete_landmarks(numbers.reshape(-1, 2), name)
        mask, parameters, view = row.get("skin_mask"), row.get("parameters"), row.get("view")
        if row.get("landmark_valid") is not None:
            given = _numbers(row["landmark_valid"], f"landmark_valid of {name}", LandmarkError)
            if given.shape != (68,):
                raise LandmarkError(f"landmark_valid of {name} has {len(given)} values instead of 68")
            valid = valid & torch.from_numpy(given != 0)
        if parameters is not None:
            parameters = torch.from_numpy(
                _numbers(parameters, f"the parameters of {name}", SampleError)
            ).float()
        return FaceRecord(
            id=str(row["id"]),
            image=self._decode(row["image"], f"the image of {name}"),
            landmarks=landmarks,
            skin_mask=None if mask is None else self._mask(mask, f"the skin mask of {name}"),
            parameters=parameters,
            landmark_valid=None if bool(valid.all()) else valid,
            view=None if view is None else self._decode(view, f"the view of {name}"),
        )

    def _decode(self, value: dict[str, Any] | None, name: str) -> Image.Image:
        """A `datasets` image as RGB: {"bytes", "path"}, where a path alone is relative to the folder."""
        if value is None or (value["bytes"] is None and value["path"] is None):
            raise ImageError(f"{name} cannot be decoded: it is empty; replace or drop the row")
        content = value["bytes"]
        if content is None:
            file = path_within(self.path, value["path"], name)
            size = file_size(file)
            if size is None or size > LARGEST_FILE:
                raise ImageError(
                    f"{name} cannot be decoded: {printable(file)} is missing, no file or too large"
                )
            try:
                content = file.read_bytes()
            except OSError as error:
                raise ImageError(f"{name} cannot be read: {printable(file)}: {error.strerror}") from None
        return decode_image(content, name)

    def _mask(self, value: dict[str, Any], name: str) -> Tensor:
        """A mask (H,W) in [0,1]."""
        return torch.from_numpy(np.array(self._decode(value, name).convert("L"))).float() / 255


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
        points, valid = read_landmarks(landmarks)
        check_landmarks(points, str(landmarks))
        try:
            image, points, _ = crop_face(read_image(photo), points, self.size)
        except LandmarkError as error:
            raise LandmarkError(f"{landmarks} does not fit {photo.name}: {error}") from None
        return FaceRecord(self.ids[index], image, points, landmark_valid=None if bool(valid.all()) else valid)


def path_within(folder: Path, name: str, owner: str) -> Path:
    """The file `name` in `folder`; ImageError that names `owner` for a path that leaves it (by "/" or "..").

    Data files are often somebody else's, and their paths should not reach the rest of a disk. A link in the
    folder is its owner's own doing, and followed.
    """
    relative = Path(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ImageError(
            f"{owner} has the path {name!r}, which leaves {folder}; write it relative to that folder"
        )
    return folder / relative


def _landmark_file(photo: Path) -> Path:
    for suffix in LANDMARK_SUFFIXES:
        if photo.with_suffix(suffix).is_file():
            return photo.with_suffix(suffix)
    raise LandmarkError(f"{photo} has no landmarks; write {photo.stem}.npy or {photo.stem}.pts beside it")


def _check_counts(files: Sequence[Path]) -> None:
    """Refuse shards whose rows have more than `LONGEST_LIST` numbers on average, before any is unpacked.

    Repeated numbers pack so well that a file of 20 kB can hold 200 million of them.
    """
    for file in files:
        metadata = pq.read_metadata(file)
        for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
            for column in (group.column(number) for number in range(group.num_columns)):
                if column.num_values > LONGEST_LIST * max(group.num_rows, 1):
                    name = column.path_in_schema.split(".")[0]
                    raise SampleError(
                        f"{name} of {file} has {column.num_values} numbers in {group.num_rows} rows, "
                        f"{LONGEST_LIST} a row are the most"
                    )


def _check_lengths(column: pa.ChunkedArray, what: str) -> None:
    """Refuse single lists longer than `LONGEST_LIST` before Python makes 36 bytes of each number."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        longest = pc.max(pc.list_value_length(column)).as_py() or 0
        if longest > LONGEST_LIST:
            raise SampleError(f"the {what} have {longest} numbers in a row, {LONGEST_LIST} are the most")


def _numbers(values: Any, what: str, error: type[SampleError]) -> np.ndarray:
    """A column's list of numbers as (n,) float64; a missing list counts as empty."""
    values = [] if values is None else values
    if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
        raise error(f"{what} are not a list of numbers without gaps; make the record again")
    return np.array(values, dtype=np.float64)

"""Checks of samples and of whole data files, so that bad data fails before training and not in its middle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from facegpt.data.conversation import validate_sample
from facegpt.data.records import FaceRecords, read_records
from facegpt.data.sources import image_files, instruction_messages, read_instructions, row_name
from facegpt.data.targets import check_record
from facegpt.errors import ImageError, SampleError
from facegpt.perception.images import read_image
from facegpt.sample import FACE_TOKEN, IMAGE_TOKEN, Sample


def validate_records(path: str | Path, size: int = 224) -> FaceRecords:
    """Open face records and load every one as training does: what passes here does not fail there.

    Takes one or two milliseconds per record and core for shards, about ten for large photographs. Returns the
    records as `read_records` does.
    Raises SampleError that names the first bad record and counts the others.
    """
    records = read_records(path, size)
    announced = records.metadata.get("count", len(records))
    if announced != len(records):
        raise SampleError(
            f"{records.path}/dataset.json announces {announced} records and the shards hold {len(records)}; "
            "run the recipe that makes them again, which completes them"
        )
    for name, annotation in records.annotations.items():
        texts = [
            *annotation.description.values(),
            *annotation.texts,
            *(text for pair in annotation.conversation for text in pair),
        ]
        if any(token in text for text in texts for token in (IMAGE_TOKEN, FACE_TOKEN)):
            raise SampleError(
                f"the annotation of {name} in {records.path} holds {IMAGE_TOKEN} or {FACE_TOKEN}; remove it"
            )
    _check_all(lambda i: check_record(records.rows.load(i)), range(len(records)), str(records.path))
    return records


def validate_instructions(path: str | Path, image_folder: str | Path | None = None) -> int:
    """Check every row of a LLaVA JSON list: turns, tokens, and that image files decode.

    Every file is decoded once (coarsely: a few milliseconds per file and core). Returns the number of rows.
    Raises SampleError that names the first bad row and counts the others.
    """
    path = Path(path)
    folder = path.parent if image_folder is None else Path(image_folder)
    rows = read_instructions(path)
    whole: set[Path] = set()  # files that were decoded; many rows may share one

    def check(index: int) -> None:
        name = row_name(path, index, rows[index])
        files = image_files(rows[index], folder, name)
        messages = instruction_messages(rows[index], len(files), name)
        # Any image stands for the real ones, which are decoded below.
        validate_sample(Sample(name, "instruct", messages, [Image.new("L", (1, 1))] * len(files)))
        for file in files:
            if file in whole:
                continue
            try:
                read_image(file, coarse=True)
            except ImageError as error:
                raise ImageError(f"the image of {name}: {error}") from None
            whole.add(file)

    _check_all(check, range(len(rows)), str(path))
    return len(rows)


def _check_all(check: Callable[[int], None], indices: Iterable[int], where: str) -> None:
    def failure(index: int) -> SampleError | None:
        try:
            check(index)
        except SampleError as error:
            return error
        return None

    # Threads, because decoding releases the interpreter's lock; few, because each may hold a large image.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        failures = [error for error in pool.map(failure, indices) if error is not None]
    if failures:
        others = f"; {len(failures) - 1} more of {where} are bad too" if len(failures) > 1 else ""
        raise type(failures[0])(f"{failures[0]}{others}")

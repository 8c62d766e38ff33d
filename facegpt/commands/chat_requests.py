"""Files of requests for `facegpt chat --batch`: read and checked before any of them is answered."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facegpt.chat import check_text
from facegpt.errors import ImageError, SampleError
from facegpt.files import file_size, printable
from facegpt.perception.images import read_image

LARGEST_FILE = 1 << 28  # bytes: two million requests of the usual length
MOST_NAMED = 5  # bad lines that an error counts out
NAME = re.compile(r"[\w-][\w.-]{0,99}")  # of a request that has files of its own


@dataclass
class Row:
    """What one line of the file asks. image: the path of its picture as it stands there. line: from 1."""

    id: str
    text: str
    image: str | None
    line: int


def read_rows(file: Path, names: bool = False) -> list[Row]:
    """The requests of a file of JSON lines; keys but id, text and image are not looked at.

    names: the ids have to do as names of files. Raises SampleError that says what is wrong with the first bad
    line and which others are bad too; also for a file that is missing, too large or without a request.
    """
    size = file_size(file)
    if size is None or size > LARGEST_FILE:
        fault = "there is no such file" if size is None else f"{size} bytes are more than {LARGEST_FILE}"
        raise SampleError(f"{printable(file)} cannot be read as requests: {fault}")
    rows: dict[str, Row] = {}
    faults: dict[int, str] = {}
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = _row(line, number, names)
            if row.id in rows:
                raise SampleError(f"line {rows[row.id].line} has the id {row.id} already")
            rows[row.id] = row
        except SampleError as error:
            faults[number] = str(error)
    _refuse(file, faults)
    if not rows:
        raise SampleError(f"{file} holds no request; write lines of {{'id', 'text'}}")
    return list(rows.values())


def _row(line: bytes, number: int, names: bool) -> Row:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SampleError(f"it is not JSON in UTF-8 ({error})") from None
    if not isinstance(value, dict):
        raise SampleError("it is not a JSON object; write {'id', 'text'}")
    for key in ("id", "text"):
        if not isinstance(value.get(key), str):
            raise SampleError(f"'{key}' must be there and a text")
    if not value["id"] or not value["id"].isprintable():
        raise SampleError(f"the id {value['id']!r} is empty or cannot be printed")
    if names and not NAME.fullmatch(value["id"]):
        raise SampleError(
            f"the id {value['id']!r} names no file: with --meshes an id has letters, digits, '_', '-' and '.'"
        )
    check_text(value["text"])
    image = value.get("image")
    if image is not None and (not isinstance(image, str) or not image):
        raise SampleError("'image' must be the path of a picture, or left out")
    return Row(value["id"], value["text"], image, number)


def check_images(rows: Sequence[Row], file: Path) -> None:
    """Raise SampleError, naming the lines, where pictures are missing or cannot be decoded."""
    faults: dict[int, str] = {}
    whole: set[str | None] = {None}  # pictures that were decoded; many requests may share one
    for row in rows:
        try:
            if row.image not in whole:
                read_image(file.parent / str(row.image), coarse=True)
                whole.add(row.image)
        except ImageError as error:
            faults[row.line] = str(error)
    _refuse(file, faults)


def _refuse(file: Path, faults: dict[int, str]) -> None:
    if faults:
        first, *others = faults
        named = ", ".join(map(str, others[:MOST_NAMED])) + (", ..." if len(others) > MOST_NAMED else "")
        also = f"; {len(others)} more lines are bad ({named})" if others else ""
        raise SampleError(f"{file}:{first}: {faults[first]}{also}")

"""`facegpt chat --batch`: a file of requests, each a conversation of its own, answered into replies.jsonl.

The replies are appended batch by batch, so a killed run goes on where it was; at the end they are put into
the order of the requests.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from facegpt.chat import Request, Turn, answer_batch, newest_checkpoint
from facegpt.commands.chat_picture import missing_landmarker, read_picture
from facegpt.commands.chat_requests import Row, check_images, read_rows
from facegpt.commands.chat_settings import ChatSettings
from facegpt.commands.chat_turns import open_model, strange_face, write_mesh
from facegpt.commands.output import check_output
from facegpt.errors import ConfigError, SampleError
from facegpt.export.coefficients import named_coefficients
from facegpt.files import (
    append_jsonl,
    atomic_path,
    file_size,
    printable,
    read_json,
    sha256,
    take_lock,
    write_json,
)
from facegpt.head.model import HeadModel
from facegpt.model.checkpoint import FACE_HEAD, read_description

REPLIES, CIRCUMSTANCES = "replies.jsonl", "replies.json"


def answer_file(settings: ChatSettings, file: Path) -> int:
    """Answer what `settings.out` holds no reply to yet; the exit code."""
    # Everything that is cheap to check comes before the model is loaded.
    out, replies = settings.out, settings.out / REPLIES
    check_output(out, folder=True)
    checkpoint = newest_checkpoint(settings.checkpoint)
    rows = read_rows(file, settings.meshes)
    before = find_replies(replies, rows)
    check_images([row for row in rows if row.id not in before], file)
    out.mkdir(parents=True, exist_ok=True)
    with replies.open("ab") as lock:
        if not take_lock(lock, wait=False):
            raise ConfigError(f"another facegpt writes into {out}; wait for it, or name another --out")
        check_circumstances(out, circumstances(settings, checkpoint))
        before = find_replies(replies, rows)
        waiting = [row for row in rows if row.id not in before]
        if waiting:
            try:
                answer_rows(settings, checkpoint, file, waiting, len(before))
            except ValueError as error:  # a face of NaN or of a size beyond all bounds
                raise strange_face(checkpoint, error) from None
        found = find_replies(replies, rows)
        put_in_order(replies, [found[row.id] for row in rows])
    faces = sum(place.faces > 0 for place in found.values())
    print(f"wrote {replies} ({len(rows)} replies, {faces} with a face)")
    return 0


def answer_rows(
    settings: ChatSettings, checkpoint: Path, file: Path, waiting: Sequence[Row], done: int
) -> None:
    """Answer these rows of a file, and write every batch as soon as it is answered.

    done: how many replies are there already. Raises ValueError for parameters that are no face.
    """
    if missing_landmarker() and any(row.image for row in waiting):
        print(f"the pictures go in as they are: {missing_landmarker()}", file=sys.stderr)
    asked = {row.id: row for row in waiting}
    requests = [Request(row.id, row.text, _picture(row, file)) for row in waiting]
    model, head = open_model(settings, checkpoint)
    with tqdm(total=done + len(waiting), initial=done, desc="replies", unit="reply") as progress:
        for batch in answer_batch(model, requests, settings.batch_size, settings.max_new_tokens):
            for request, turn in batch if settings.meshes else ():
                for number, face in enumerate(turn.faces):
                    write_mesh(head, face.to("cpu"), settings.out / f"{request.id}_{number}.glb")
            said = [reply_row(asked[request.id], turn, head) for request, turn in batch]
            append_jsonl(settings.out / REPLIES, said)
            progress.update(len(batch))


def _picture(row: Row, file: Path) -> Callable[[], Image.Image] | None:
    return None if row.image is None else partial(_read, row, file.parent / row.image)


def _read(row: Row, path: Path) -> Image.Image:
    image, note = read_picture(path)
    if note and not missing_landmarker():  # which is said once, for all
        tqdm.write(f"{row.id}: {note}", file=sys.stderr)
    return image


def circumstances(settings: ChatSettings, checkpoint: Path) -> dict[str, Any]:
    """All that the replies depend on but for the requests, as JSON values."""
    return {
        "checkpoint": os.path.abspath(checkpoint),
        "face_head": sha256(checkpoint / FACE_HEAD),  # no step of training leaves it as it was
        "head_id": read_description(checkpoint)["head_id"],
        "max_new_tokens": settings.max_new_tokens,
        "cropped": not missing_landmarker(),
    }


def check_circumstances(out: Path, now: dict[str, Any]) -> None:
    """Write them beside the replies, or raise ConfigError where replies made in others are there already."""
    path = out / CIRCUMSTANCES
    if path.exists() and file_size(out / REPLIES):
        before = read_json(path)
        before = before if isinstance(before, dict) else {}
        changed = [key for key in now if key != "checkpoint" and before.get(key) != now[key]]
        if changed:
            raise ConfigError(
                f"{path} says that the replies there had another {changed[0]}; name another --out"
            )
    write_json(path, now)


@dataclass
class Place:
    """Where a reply stands in replies.jsonl: its line begins at byte `start`. faces: how many it has."""

    start: int
    faces: int


def find_replies(path: Path, rows: Sequence[Row]) -> dict[str, Place]:
    """The replies that are there already, by id; a last line that a crash cut off does not count.

    Raises SampleError for a line that is no reply of ours, ConfigError for one to another request.
    """
    asked = {row.id: row for row in rows}
    found: dict[str, Place] = {}
    if not file_size(path):
        return found
    with path.open("rb") as file:
        start = 0
        while (line := file.readline()).endswith(b"\n"):
            try:
                reply = json.loads(line)
                name, faces, request = (
                    str(reply["id"]),
                    int(reply["faces"]),
                    (reply["request"], reply["image"]),
                )
            except (ValueError, RecursionError, KeyError, TypeError):
                raise SampleError(f"{path} has a line that is no reply; name another --out") from None
            if name not in asked or request != (asked[name].text, asked[name].image):
                raise ConfigError(
                    f"{path} holds the reply to another request {printable(name)}; name another --out"
                )
            found[name] = Place(start, faces)
            start = file.tell()
    return found


def reply_row(row: Row, turn: Turn, head: HeadModel) -> dict[str, Any]:
    """The line of a reply. Raises ValueError for a face with a number that JSON does not know."""
    return {
        "id": row.id,
        "request": row.text,
        "image": row.image,
        "text": turn.text,
        "faces": len(turn.faces),
        "probabilities": turn.probabilities,
        "parameters": [named_coefficients(face.to("cpu"), head) for face in turn.faces],
    }


def put_in_order(path: Path, places: Sequence[Place]) -> None:
    """Write the replies anew in the order given, all at once; one at a time is in memory."""
    starts = [place.start for place in places]
    if starts == sorted(starts):
        return
    with atomic_path(path) as temporary, path.open("rb") as old, temporary.open("wb") as new:
        for start in starts:
            old.seek(start)
            new.write(old.readline())

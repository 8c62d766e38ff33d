"""The three kinds of training data as sources: an index and an epoch give a sample, always the same one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from facegpt.data.records import Annotation, FaceRecords, path_within
from facegpt.data.targets import face_target
from facegpt.data.templates import (
    combined_request,
    describe_aspects,
    face_request,
    follow_up,
    text_form,
    two_faces_request,
)
from facegpt.errors import SampleError
from facegpt.files import read_json
from facegpt.perception.images import read_image
from facegpt.sample import FACE_TOKEN, IMAGE_TOKEN, Message, Sample

LARGEST_LIST = 4_000_000_000  # bytes of an instruction file; LLaVA-1.5's has 1.0e9

QuestionAnswer = tuple[str, str]  # question and answer


class Source(Protocol):
    """What a mixture draws from. `name` appears in logs and as `Sample.source`."""

    name: str

    def __len__(self) -> int: ...

    def messages(self, index: int, epoch: int) -> tuple[str, list[Message]]:
        """Id and turns of sample `index` in its `epoch`-th use; no image is read."""

    def sample(self, index: int, epoch: int) -> Sample:
        """All of it. Raises SampleError, naming the sample, when it cannot be used."""


@dataclass
class ImageToFace:
    """A photograph goes in, its face comes out, with conversation about the photograph around it.

    target_size: side of the face target in pixels. conversation_rate: share of the samples with questions
    about the photograph (up to `max_questions`), which come before or after the face or in one turn with it.
    faceless_rate: share of the samples that only talk, so that the model learns not to answer everything with
    a face. Both count only where the record has a conversation.
    """

    records: FaceRecords
    target_size: int
    seed: int = 0
    conversation_rate: float = 0.55
    faceless_rate: float = 0.25
    max_questions: int = 3
    name: str = "image_to_face"

    def __len__(self) -> int:
        return len(self.records)

    def messages(self, index: int, epoch: int) -> tuple[str, list[Message]]:
        """See `Source.messages`."""
        name = self.records.ids[index]
        pairs = self.records.annotations.get(name, Annotation()).conversation
        turns = self._turns(pairs, _generator(self.name, self.seed, epoch, index))
        return name, _messages(turns, with_image=True)

    def sample(self, index: int, epoch: int) -> Sample:
        """See `Source.sample`."""
        name, messages = self.messages(index, epoch)
        record = self.records[index]
        asked = any(FACE_TOKEN in message.text for message in messages)
        faces = [face_target(record, self.target_size)] if asked else []
        return Sample(name, self.name, messages, [record.shown], faces)

    def _turns(self, pairs: list[QuestionAnswer], rng: random.Random) -> list[QuestionAnswer]:
        kind = rng.random()
        if not pairs or kind >= self.conversation_rate + self.faceless_rate:
            return [face_request(rng)]
        count = rng.randint(1, min(self.max_questions, len(pairs)))
        turns = rng.sample(pairs, count)
        if kind < self.faceless_rate:
            return turns
        place = rng.randint(0, count)
        if rng.random() < 0.25:
            place = min(place, count - 1)
            turns[place] = combined_request(rng, *turns[place])
            return turns
        return [*turns[:place], face_request(rng), *turns[place:]]


class TextToFace:
    """A description alone goes in; the loss compares with the photograph that it was written for.

    Only records that have a description or whole texts count. Of a record with texts every epoch draws one of
    them. several_rate: share of these samples that ask for two faces, in one request or one after the other;
    the second is another record's, or the same after more was told of it. Raises SampleError when no record
    has a description.
    """

    name = "text_to_face"

    def __init__(
        self, records: FaceRecords, target_size: int, seed: int = 0, several_rate: float = 0.2
    ) -> None:
        self.records, self.target_size, self.seed = records, target_size, seed
        self.several_rate = several_rate
        self.indices = records.described
        if not self.indices:
            raise SampleError(f"{records.path} has no descriptions; write them with data_gen/describe.py")

    def __len__(self) -> int:
        return len(self.indices)

    def messages(self, index: int, epoch: int) -> tuple[str, list[Message]]:
        """See `Source.messages`."""
        turns, _ = self._turns(index, epoch)
        return self.records.ids[self.indices[index]], _messages(turns, with_image=False)

    def sample(self, index: int, epoch: int) -> Sample:
        """See `Source.sample`."""
        turns, shown = self._turns(index, epoch)
        faces = [face_target(self.records[self.indices[number]], self.target_size) for number in shown]
        name = self.records.ids[self.indices[index]]
        return Sample(name, self.name, _messages(turns, with_image=False), [], faces)

    def _turns(self, index: int, epoch: int) -> tuple[list[QuestionAnswer], list[int]]:
        """The turns, and the number in `indices` of the record that each `<FACE>` is compared with."""
        rng = _generator(self.name, self.seed, epoch, index)
        annotation = self._annotation(index)
        if not annotation.texts:
            return [face_request(rng, annotation.description)], [index]
        text = rng.choice(annotation.texts)
        if rng.random() >= self.several_rate:
            return [face_request(rng, text, annotation.looks)], [index]
        kind, other = rng.random(), rng.randrange(len(self))
        second = self._annotation(other)
        like = [t for t in second.texts if text_form(t) == text_form(text)]
        if kind < 0.4 and like and text_form(text) in ("noun", "notes"):
            return [two_faces_request(rng, text, rng.choice(like))], [index, other]
        if kind < 0.7:  # more about the same face
            more = follow_up(rng, rng.choice(annotation.texts), annotation.looks)
            return [face_request(rng, text, annotation.looks), more], [index, index]
        later = rng.choice(second.texts) if second.texts else describe_aspects(rng, second.description)
        more = follow_up(rng, later, second.looks)
        return [face_request(rng, text, annotation.looks), more], [index, other]

    def _annotation(self, index: int) -> Annotation:
        return self.records.annotations[self.records.ids[self.indices[index]]]


class Instruct:
    """Instruction following from a JSON list in LLaVA's format, read as it is.

    Rows are {"id", "image" (optional, a path in `image_folder`), "conversations": [{"from", "value"}]}.
    As LLaVA does, an opening answer and a last question without answer are dropped, and `<image>` moves to
    the front of its turn; a row with an image but without `<image>` gets it in the first turn.
    Raises SampleError when the file is not such a list.
    """

    name = "instruct"

    def __init__(self, path: str | Path, image_folder: str | Path | None = None) -> None:
        self.path = Path(path)
        self.image_folder = self.path.parent if image_folder is None else Path(image_folder)
        self.rows = read_instructions(self.path)

    def __len__(self) -> int:
        return len(self.rows)

    def messages(self, index: int, epoch: int) -> tuple[str, list[Message]]:
        """See `Source.messages`."""
        row = self.rows[index]
        name = row_name(self.path, index, row)
        return name, instruction_messages(row, len(image_files(row, self.image_folder, name)), name)

    def sample(self, index: int, epoch: int) -> Sample:
        """See `Source.sample`."""
        name, messages = self.messages(index, epoch)
        images = [read_image(file) for file in image_files(self.rows[index], self.image_folder, name)]
        return Sample(name, self.name, messages, images)


def read_instructions(path: Path) -> list[dict[str, Any]]:
    """The rows of a LLaVA JSON list; SampleError when the file is not a list of objects."""
    rows = read_json(path, LARGEST_LIST)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise SampleError(f"{path} must be a JSON list of objects with id and conversations, and not empty")
    return rows


def row_name(path: Path, index: int, row: dict[str, Any]) -> str:
    """How messages call a row: its id if it has one, else its place in the file."""
    return f"{row['id']} in {path}" if "id" in row else f"row {index} of {path}"


def image_files(row: dict[str, Any], folder: Path, name: str) -> list[Path]:
    """The image files of a row: `image` is a path in `folder` or a list of them, absent or null for none.

    Raises SampleError, naming the row by `name`, for anything else and for a path that leaves the folder.
    """
    value = row.get("image")
    paths = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise SampleError(f"{name} has an image that is neither a path nor a list of paths")
    return [path_within(folder, path, name) for path in paths]


def instruction_messages(row: dict[str, Any], images: int, name: str) -> list[Message]:
    """The turns of a row with `images` images; SampleError naming `name` when they are malformed."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise SampleError(f"{name} has no list of conversations; each turn must be {{from, value}}")
    roles = {"human": "user", "gpt": "assistant"}
    messages = []
    for turn in turns:
        role, text = roles.get(str(turn.get("from"))), turn.get("value")
        if role is None or not isinstance(text, str):
            raise SampleError(f"{name} has a turn that is not from human or gpt with a text as value")
        count = text.count(IMAGE_TOKEN) if role == "user" else 0
        if count:
            text = f"{IMAGE_TOKEN}\n" * count + text.replace(IMAGE_TOKEN, "").strip()
        messages.append(Message(role, text.strip() if not count else text))
    messages = messages[1:] if messages and messages[0].role == "assistant" else messages
    messages = messages[:-1] if messages and messages[-1].role == "user" else messages
    if images and messages and not any(IMAGE_TOKEN in message.text for message in messages):
        messages[0] = Message("user", f"{IMAGE_TOKEN}\n" * images + messages[0].text)
    return messages


def _messages(turns: Sequence[QuestionAnswer], with_image: bool) -> list[Message]:
    messages = []
    for number, (question, answer) in enumerate(turns):
        image = f"{IMAGE_TOKEN}\n" if with_image and number == 0 else ""
        messages += [Message("user", image + question), Message("assistant", answer)]
    return messages


def _generator(*key: str | int) -> random.Random:
    """A generator that follows from the key alone, in every process."""
    return random.Random("/".join(map(str, key)))

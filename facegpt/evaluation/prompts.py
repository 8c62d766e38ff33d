"""What evaluation asks: faces in the words of training and in others, and questions that want no face."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from facegpt.chat import question
from facegpt.data.records import FaceRecords
from facegpt.data.sources import Instruct
from facegpt.data.templates import ASPECT_QUESTIONS, FACE_QUESTIONS, IMAGE_PROMPTS, TEXT_PROMPTS
from facegpt.errors import SampleError
from facegpt.sample import IMAGE_TOKEN, FaceRecord, Message, Sample

# In no template of training; a test holds them apart.
HELD_OUT_IMAGE_PROMPTS = [
    "Can I see this person's face in 3D?",
    "Please build a 3D face from this photograph.",
    "I would like the 3D face of the person that you see.",
    "Make this face 3D.",
    "What is the 3D face of the person in this photograph?",
    "Let me have a 3D model of the face in the picture.",
]
HELD_OUT_TEXT_PROMPTS = [
    "{} Can I see this face in 3D?",
    "Please build a 3D face like this. {}",
    "{} I would like the 3D face of this person.",
    "Somebody looks like this. {} Make the face 3D.",
    "Let me have a 3D model of this face. {}",
]


def image_request(record: FaceRecord, wordings: Sequence[str], rng: random.Random) -> Sample:
    """A request for the face in a photograph."""
    return question(rng.choice(wordings), record.shown, record.id)


def text_request(record: FaceRecord, wordings: Sequence[str], rng: random.Random) -> Sample:
    """A request for a described face; no image goes in."""
    return question(rng.choice(wordings).replace("{}", description_of(record)), None, record.id)


def description_of(record: FaceRecord) -> str:
    """One whole description of a record, in sentences where it has such ones.

    The longest of its texts, which say what is known of the face; of a record without any, what the
    pretrained VLM said of all aspects.
    """
    texts: list[str] = record.texts
    sentences = [text for text in texts if text.rstrip().endswith((".", "!", "?"))] or texts
    return max(sentences, key=len).strip() if sentences else full_text(record.description)


def full_text(description: Mapping[str, str]) -> str:
    """All aspects of a description, those that the method names in its order."""
    order = [*ASPECT_QUESTIONS, *sorted(description.keys() - ASPECT_QUESTIONS.keys())]
    return " ".join(description[aspect].strip() for aspect in order if description.get(aspect, "").strip())


def face_requests(
    records: Sequence[FaceRecord], held_out: bool, seed: int, text: bool = False
) -> list[Sample]:
    """One request per record, by image or by text, in the words of training or in others."""
    rng = random.Random(f"{seed}/{'text' if text else 'image'}/{held_out}")
    if text:
        wordings = HELD_OUT_TEXT_PROMPTS if held_out else TEXT_PROMPTS
        return [text_request(record, wordings, rng) for record in records]
    wordings = HELD_OUT_IMAGE_PROMPTS if held_out else IMAGE_PROMPTS
    return [image_request(record, wordings, rng) for record in records]


def image_questions(records: Sequence[FaceRecord], count: int, seed: int) -> list[Sample]:
    """`count` questions about photographs that want words, not a face; a photograph may be asked about twice.

    The questions are those that the pretrained VLM was asked about the photograph, or `FACE_QUESTIONS`.
    """
    rng = random.Random(f"{seed}/image questions")
    samples = []
    for index in range(count):
        record = records[index % len(records)]
        asked = [text for text, _ in record.conversation] or FACE_QUESTIONS
        samples.append(question(rng.choice(asked), record.shown, record.id))
    return samples


def instruct_questions(path: str, images: str | None, count: int, seed: int) -> list[Sample]:
    """The first questions of up to `count` rows of a LLaVA JSON list, drawn by seed, with their images.

    Raises SampleError when the file cannot be used or a question asks for a `<FACE>`.
    """
    source = Instruct(path, images or None)
    rows = random.Random(f"{seed}/instruct").sample(range(len(source)), min(count, len(source)))
    samples = []
    for row in rows:
        sample = source.sample(row, 0)
        first = sample.messages[0]
        here = first.text.count(IMAGE_TOKEN)
        samples.append(Sample(sample.id, sample.source, [Message("user", first.text)], sample.images[:here]))
    return samples


def described(records: FaceRecords, limit: int) -> list[FaceRecord]:
    """The first `limit` records that have a description (0: all).

    Raises SampleError, naming the recipe that writes descriptions, when there is none.
    """
    if not records.described:
        raise SampleError(
            f"{records.path} has no descriptions of its faces; write them with "
            f"`python data_gen/describe.py --data {records.path}`"
        )
    return [records[index] for index in records.described[: limit or None]]

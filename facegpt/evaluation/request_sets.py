"""Requests and questions in free wording, written by hand for evaluation and used in no training."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegpt.chat import check_text, question
from facegpt.data.records import FaceRecords
from facegpt.errors import SampleError
from facegpt.evaluation.expression_prototypes import FEELINGS
from facegpt.files import read_jsonl
from facegpt.sample import Sample

# What is said, and whether a face is wanted: one described in words, one to be guessed from a situation, that
# of a photograph; then plain questions and questions about a photograph, which both want words.
WANTS_FACE = {
    "explicit": True,
    "speculative": True,
    "photograph": True,
    "question": False,
    "question_photograph": False,
}
WITH_PHOTOGRAPH = ("photograph", "question_photograph")
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Request:
    """One line of a request set.

    kind: a key of `WANTS_FACE`. split: "dev" may be looked at while a model is made, "test" only at the end.
    feelings: those of `FEELINGS` that a right face may show; all speculative requests name some, explicit
    ones where their words state a feeling.
    """

    id: str
    kind: str
    text: str
    split: str
    feelings: tuple[str, ...] = ()


def read_requests(path: str | Path, split: str | None = None) -> list[Request]:
    """The requests of a JSON-lines file, of one split where it is given.

    Raises SampleError, naming file and row, for a row of another form, an id that comes twice, and a file
    without any request of the split.
    """
    if not Path(path).is_file():
        raise SampleError(f"{path} is not a file; give a JSON-lines file of requests")
    found: dict[str, Request] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            request = _request(row)
        except SampleError as error:
            raise SampleError(f"row {number} of {path}: {error}") from None
        if request.id in found:
            raise SampleError(f"row {number} of {path} has the id {request.id} again; rename it")
        found[request.id] = request
    chosen = [request for request in found.values() if split in (None, request.split)]
    if not chosen:
        raise SampleError(f"{path} has no requests of the split {split}; use one of {', '.join(SPLITS)}")
    return chosen


def first_of_each_kind(requests: Sequence[Request], count: int) -> list[Request]:
    """The first `count` requests of every kind (0: all), in their order."""
    kept: list[Request] = []
    for request in requests:
        if not count or sum(other.kind == request.kind for other in kept) < count:
            kept.append(request)
    return kept


def request_samples(requests: Sequence[Request], records: FaceRecords, seed: int) -> list[Sample]:
    """One prompt per request; those about photographs get one of `records` each, drawn by seed.

    No photograph comes twice within a kind before all have come once.
    """
    places = {kind: _endless_order(len(records), f"{seed}/{kind}") for kind in WITH_PHOTOGRAPH}
    return [
        question(r.text, records[next(places[r.kind])].image if r.kind in places else None, r.id)
        for r in requests
    ]


def _endless_order(count: int, seed: str) -> Any:
    rng = random.Random(seed)
    while True:
        yield from rng.sample(range(count), count)


def _request(row: dict[str, Any]) -> Request:
    unknown = row.keys() - {"id", "kind", "text", "split", "feelings"}
    texts = [row.get(key) for key in ("id", "kind", "text", "split")]
    feelings = row.get("feelings", [])
    if unknown or not all(isinstance(text, str) and text for text in texts) or not isinstance(feelings, list):
        raise SampleError('it is not of the form {"id", "kind", "text", "split"} with "feelings" as a list')
    if row["kind"] not in WANTS_FACE or row["split"] not in SPLITS:
        raise SampleError(f"kind must be one of {', '.join(WANTS_FACE)}, and split dev or test")
    if not set(feelings) <= set(FEELINGS) or (row["kind"] == "speculative" and not feelings):
        raise SampleError(f"feelings must be some of {', '.join(FEELINGS)}; a speculative request needs one")
    check_text(row["text"])
    return Request(row["id"], row["kind"], row["text"], row["split"], tuple(feelings))

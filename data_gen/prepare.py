"""python data_gen/prepare.py --photographs SOURCE --out FOLDER [key=value ...]

Makes training data of photographs: finds their faces, judges them, and cuts each out twice, as the face crop
that renderings are compared with and as the wider view that the vision tower reads.

    OUT/train/*.parquet, OUT/validation/*.parquet, OUT/test/*.parquet    face records (docs/data.md)
    OUT/refused.jsonl     one line for every photograph or face that was not taken, with the reason
    OUT/report.html       histograms of what was found, the limits, samples of what was refused
    OUT/log/*.jsonl       what came of every photograph, with its measures

SOURCE is a folder, a text file with a path per line, a tar, or a Hugging Face dataset on this disk.
A run that was interrupted, however, goes on where it stopped and makes the same files; a folder that was made
with other settings or of other photographs is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import datasets
from tqdm import tqdm

from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.in_order import Workers
from facegpt.data.photo_sources import Photograph, people_of
from facegpt.data.prepared_faces import (
    PREPARED,
    Cuts,
    Filters,
    Job,
    Preparation,
    PreparedFace,
    PreparedPhotograph,
)
from facegpt.data.records import METADATA, read_metadata
from facegpt.errors import ConfigError, ImageError, SampleError
from facegpt.evaluation.preparation_page import preparation_page, thumbnail_text
from facegpt.files import atomic_path, read_jsonl, take_lock, write_json
from facegpt.perception.quality import SeenPictures

SPLITS = ("train", "validation", "test")
SAMPLES = 4  # refused faces of a kind whose thumbnails a block keeps

Line = dict[str, Any]  # of a log
Work = Workers[Job, PreparedPhotograph]


@dataclass
class PrepareSettings:
    """photographs: a folder, a text file with a path per line, a tar, or a folder of a Hugging Face dataset.
    out: folder for all of it.
    detector: "mediapipe" (`facegpt fetch face_landmarker`), "face-alignment" or "insightface" (installed),
    "files" for NAME.npy, .pts or .mat beside each photograph, or a list (CelebA's .txt, imglab's .xml).
    recognizer: whose features of each face are stored: "tiny" or a file; null for none.
    faces: of each photograph, the largest or all.
    cuts: what is cut out and stored. filters: what a face must have to be taken.
    people: who a photograph shows, so that nobody is in two splits: "folder" for the name of its folder, a
    text file of photographs and people (CelebA's identity_CelebA.txt), or a column of the dataset; null where
    it is not known. validation, test: shares of the people, else of the photographs, kept from training.
    shard: photographs whose faces share a file. workers: processes, 0 works in this one; null: one per core.
    seed: of the splits.
    """

    photographs: str = MISSING
    out: str = MISSING
    detector: str = "mediapipe"
    recognizer: str | None = None
    faces: Literal["largest", "all"] = "largest"
    cuts: Cuts = field(default_factory=Cuts)
    filters: Filters = field(default_factory=Filters)
    people: str | None = None
    validation: float = 0.02
    test: float = 0.05
    shard: int = 500
    workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "shard")
        at_least(0, self, "workers", "validation", "test")
        if not self.validation + self.test < 1:
            raise ValueError("validation and test together must leave something to train with")


def main(argv: list[str]) -> None:
    settings = parse_config(PrepareSettings, argv, __doc__)
    datasets.disable_progress_bars()
    out = Path(settings.out)
    if out.resolve().is_relative_to(Path(settings.photographs).resolve()):
        raise ConfigError(f"{out} lies in {settings.photographs}; choose an out beside the photographs")
    make = partial(
        Preparation.open,
        settings.detector,
        settings.recognizer,
        settings.faces,
        settings.cuts,
        settings.filters,
    )
    source, person_of = people_of(settings.photographs, settings.people)
    number = os.cpu_count() or 1 if settings.workers is None else settings.workers
    if number:
        make()  # what is missing is to be said before any process begins
    seen = SeenPictures()
    with only_writer(out), Workers(make, number, lost) as workers, tqdm(unit="photo") as progress:
        check_settings(out, settings)
        for block in count():
            log = out / "log" / f"{block:05d}.jsonl"
            photos = islice(source, settings.shard)
            if log.is_file():
                lines = done_before(log, photos, seen)
            else:
                lines = prepare_block(out, log, photos, person_of, workers, seen, settings)
            progress.update(lines[0]["photographs"])
            if lines[0]["photographs"] < settings.shard:
                break
        if progress.n == 0:
            raise SampleError(f"{settings.photographs} has no photographs")
    totals = write_summary(out, settings)
    taken = ", ".join(f"{totals[split]} {split}" for split in SPLITS)
    print(f"{out}: {totals['photographs']} photographs, {totals['found']} faces; taken: {taken}")
    print(f"{totals['refused']} refusals in {out}/refused.jsonl, to look at in report.html")


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Keep other runs out of the folder; ConfigError while one is in it."""
    (out / "log").mkdir(parents=True, exist_ok=True)
    with (out / "log" / ".lock").open("a") as file:
        if not take_lock(file, wait=False):
            raise ConfigError(f"another process is writing {out}; wait for it or end it")
        yield


def check_settings(out: Path, settings: PrepareSettings) -> None:
    """Note what the folder is made with; ConfigError when it was begun with something else."""
    wanted = {key: value for key, value in asdict(settings).items() if key not in ("out", "workers")}
    for key, value in read_metadata(out).items():
        if wanted.get(key) != value:
            raise ConfigError(
                f"{out} was made with {key} {value} and not {wanted.get(key)}; remove it or choose another"
            )
    write_json(out / METADATA, wanted)


def done_before(log: Path, photos: Iterable[Photograph], seen: SeenPictures) -> list[Line]:
    """The log of a block that is finished; its faces count as seen. ConfigError for other photographs."""
    lines = read_jsonl(log)
    digest = hashlib.sha256()
    number = sum(1 for photo in map(partial(mark, digest), photos))
    if lines[0] != {"photographs": number, "source": digest.hexdigest()}:
        raise ConfigError(f"the photographs are not those that {log} was made of; choose another out")
    for line in lines[1:]:
        if "split" in line:
            seen.add(bytes.fromhex(line["hash"]), line["id"])
    return lines


def mark(digest: Any, photo: Photograph) -> Photograph:
    """Name and size of a photograph into the digest of its block."""
    digest.update(json.dumps([photo.name, photo.size]).encode())
    return photo


def prepare_block(
    out: Path,
    log: Path,
    photos: Iterable[Photograph],
    person_of: Callable[[Photograph], str | None],
    workers: Work,
    seen: SeenPictures,
    settings: PrepareSettings,
) -> list[Line]:
    """Write the shards of some photographs, and last, as the sign that they are whole, their log."""
    digest, number = hashlib.sha256(), 0

    def jobs() -> Iterator[Job]:
        nonlocal number
        for photo in photos:
            mark(digest, photo)
            number += 1
            try:
                yield photo.name, photo.open(), person_of(photo)
            except ImageError as error:
                yield photo.name, error, person_of(photo)

    lines: list[Line] = []
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    shown: Counter[str] = Counter()
    for photograph in workers.results(jobs()):
        if photograph.kind:
            lines.append({key: getattr(photograph, key) for key in ("name", "kind", "reason")})
        for index, face in enumerate(photograph.faces, start=1):
            line = judge(photograph, index, face, seen, settings)
            if face.row is not None and not face.kind:
                rows[line["split"]].append(
                    {"id": line["id"], "person": photograph.person or None, **face.row}
                )
            elif face.thumbnail and shown[face.kind] < SAMPLES:
                line["thumbnail"] = thumbnail_text(face.thumbnail)
                shown[face.kind] += 1
            lines.append(line)
    if not number:
        return [{"photographs": 0}]
    for split, some in rows.items():
        if some:
            with atomic_path(out / split / f"faces-{log.stem}.parquet") as temporary:
                datasets.Dataset.from_list(some, features=PREPARED).to_parquet(str(temporary))
    lines.insert(0, {"photographs": number, "source": digest.hexdigest()})
    with atomic_path(log) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines


def judge(
    photograph: PreparedPhotograph,
    index: int,
    face: PreparedFace,
    seen: SeenPictures,
    settings: PrepareSettings,
) -> Line:
    """The line of a face in the log: its split, or why it is refused now that the others are known."""
    name = photograph.name if settings.faces == "largest" else f"{photograph.name}#{index}"
    if not face.kind and photograph.person is None:
        face.kind, face.reason = "unknown", f"{name}: {settings.people} (people) does not say who it is"
    if not face.kind and (twin := seen.find(face.hash, settings.filters.duplicates)) is not None:
        face.kind, face.reason = "duplicate", f"{name}: looks like {twin}"
    line: Line = {"name": photograph.name, "id": name, "measures": face.measures}
    if face.kind:
        return line | {"kind": face.kind, "reason": face.reason}
    seen.add(face.hash, name)
    split = split_of(photograph.person or photograph.digest, settings)
    return line | {"split": split, "hash": face.hash.hex()}


def split_of(key: str, settings: PrepareSettings) -> str:
    """The split of a person or a file: by a hash, so that it does not depend on what else there is."""
    place = int(hashlib.sha256(f"{settings.seed}/{key}".encode()).hexdigest()[:12], 16) / 16**12
    if place < settings.test:
        return "test"
    return "validation" if place < settings.test + settings.validation else "train"


def lost(job: Job) -> PreparedPhotograph:
    """What becomes of a photograph over which a process died."""
    return PreparedPhotograph(
        job[0], job[2], kind="failed", reason=f"{job[0]}: the process that read it died; drop the photograph"
    )


def write_summary(out: Path, settings: PrepareSettings) -> Counter[str]:
    """refused.jsonl, report.html and the counts of the splits, all out of the logs; returns the totals."""
    totals: Counter[str] = Counter()

    def lines() -> Iterator[Line]:
        for log in sorted((out / "log").glob("*.jsonl")):
            yield from read_jsonl(log)

    with atomic_path(out / "refused.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in lines():
            totals["photographs"] += line.get("photographs", 0)
            totals["found"] += "measures" in line
            if "kind" in line:
                totals["refused"] += 1
                row = {key: line[key] for key in ("name", "id", "kind", "reason") if key in line}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            elif "split" in line:
                totals[line["split"]] += 1
    for split in SPLITS:
        if totals[split]:
            write_json(out / split / METADATA, {"count": totals[split], "seed": settings.seed})
    with atomic_path(out / "report.html") as temporary:
        folders = [out / split for split in SPLITS if totals[split]]
        page = preparation_page(lines(), settings.filters, folders[0] if folders else None)
        temporary.write_text(page, encoding="utf-8")
    return totals


if __name__ == "__main__":
    sys.exit(run(main))

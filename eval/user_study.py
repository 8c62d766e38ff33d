"""python eval/user_study.py --data FACES --out study.html predictions=A.json,B.json[,C.npz] [key=value ...]

Which face do people prefer? Writes one page that needs nothing beside it: for each record the photograph (or,
with kind=text, the description) and the faces of two or three methods, unnamed and in random order; people
choose by click or key and save their answers as a JSON-lines file. Which method is which stands in
`study_key.json` beside the page: keep it. With the files that come back,

    python eval/user_study.py --out study.html answers=FILE.jsonl,FILE.jsonl

writes `study_answers.json`: how often each method was preferred, with exact binomial intervals, one scale for
all methods (Bradley and Terry), and whether a place on the page was preferred.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from facegpt.config import at_least, parse_config, run
from facegpt.data.records import FaceRecords, read_records
from facegpt.errors import ConfigError, SampleError
from facegpt.evaluation.predictions import Predictions, read_predictions
from facegpt.evaluation.prompts import description_of
from facegpt.evaluation.report_sections import Painter
from facegpt.evaluation.study_page import StudyItem, study_page
from facegpt.files import atomic_path, read_json, read_jsonl, write_json
from facegpt.head.model import HeadModel
from facegpt.metrics.preferences import Choice, position_shares, preferred_of_pairs, strengths

QUESTIONS = {
    "image": "Which face is most like the person in the photograph?",
    "text": "Which face fits the description best?",
}
DEFINITIONS = {
    "preferred": "share of the answers with one of the two that chose the first; exact 95 % interval, p of "
    "the binomial test against one half; answers of one participant count as independent",
    "strengths": "Bradley-Terry scale (of three at once: Luce's), 95 %; probability: chosen among all",
    "places": "how often each place on the page was chosen, against chance",
}
LARGEST_KEY = 1 << 24


@dataclass
class UserStudySettings:
    """out: the page; the key and the analysis lie beside it. data: face records. predictions: files or
    folders of predictions, one per method. names: what the methods are called, in the same order (empty: the
    names of the files). kind: "image" shows the photograph, "text" the description. at_once: how many faces
    of a question, 2 or 3, other methods take turns. n: how many questions (0: all records that all methods
    have). answers: files that came back; these are analysed and no page is written. title: of the page. head:
    "builtin" or the head file of the predictions. size: side of the pictures in pixels. seed: of the records
    and pairs that are asked about.
    """

    out: str = "outputs/study.html"
    data: str | None = None
    predictions: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    kind: str = "image"
    at_once: int = 2
    n: int = 20
    answers: list[str] = field(default_factory=list)
    title: str = "Which face?"
    head: str = "builtin"
    size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(0, self, "n")
        at_least(1, self, "size")
        if self.kind not in QUESTIONS or self.at_once not in (2, 3):
            raise ValueError("kind must be image or text, at_once 2 or 3")
        if not self.answers and (self.data is None or len(self.predictions) < self.at_once):
            raise ValueError(
                f"give data and {self.at_once} or more predictions, or the answers that came back"
            )


def main(argv: list[str]) -> None:
    settings = parse_config(UserStudySettings, argv, __doc__)
    out = Path(settings.out)
    key = out.with_name(f"{out.stem}_key.json")
    if not settings.answers:
        write_page(out, key, settings)
        return
    result = analysis(key, settings.answers)
    write_json(out.with_name(f"{out.stem}_answers.json"), result)
    for row in result["preferred"]:
        low, high = (100 * row[end] for end in ("low", "high"))
        print(f"{row['first']} over {row['second']}: {100 * row['share']:.1f} % ({low:.1f} to {high:.1f})")
    print(f"{result['answers']} answers of {result['participants']} participants")


def write_page(out: Path, key: Path, settings: UserStudySettings) -> None:
    """The page, and the file that says which picture is whose."""
    names = settings.names or [Path(path).stem for path in settings.predictions]
    if len(set(names)) < len(settings.predictions) or len(names) != len(settings.predictions):
        raise ConfigError("every prediction needs a name of its own; give names=A,B")
    head = HeadModel.open(settings.head)
    data = read_records(str(settings.data))
    methods = {
        name: read_predictions(path, head, settings.kind)
        for name, path in zip(names, settings.predictions, strict=True)
    }
    items, key_rows = questions(data, methods, Painter(head, settings.size), settings)
    identity = hashlib.sha256(repr(sorted(key_rows.items())).encode()).hexdigest()[:12]
    write_json(key, {"study": identity, "methods": key_rows, "settings": asdict(settings)})
    with atomic_path(out) as temporary:
        text = study_page(identity, settings.title, QUESTIONS[settings.kind], items)
        temporary.write_text(text, encoding="utf-8")
    print(f"wrote {out} with {len(items)} questions; keep {key}")


def questions(
    data: FaceRecords, methods: dict[str, Predictions], painter: Painter, settings: UserStudySettings
) -> tuple[list[StudyItem], dict[str, str]]:
    """The questions, and key of a picture -> method that made it; the same for a seed."""
    draw = random.Random(settings.seed)
    common = set.intersection(*(set(method.ids) for method in methods.values()))
    have = [name for name in data.ids if name in common]
    if not have:
        raise SampleError(f"no record of {settings.data} has predictions by all methods; ids must be its own")
    ids = sorted(draw.sample(have, min(settings.n or len(have), len(have))))
    sets = list(combinations(methods, settings.at_once))  # every set comes equally often
    items, key = [], {}
    for number, name in enumerate(tqdm(ids, desc="pictures", unit="record")):
        record = data[data.ids.index(name)]
        pictures = {}
        for method in sets[number % len(sets)]:
            faces = methods[method].of([name]).faces
            if faces is None:
                raise SampleError(
                    f"{method} has meshes without colors and cameras, which cannot be shown here"
                )
            handle = f"{draw.getrandbits(64):016x}"
            key[handle] = method
            photo = settings.kind == "image"
            pictures[handle] = painter.rendering(faces) if photo else painter.head_only(faces, clay=False)
        shown = painter.photo(record) if settings.kind == "image" else None
        text = description_of(record) if settings.kind == "text" else ""
        items.append(StudyItem(name, dict(sorted(pictures.items())), shown, text))
    return items, key


def analysis(key_file: Path, files: Sequence[str]) -> dict[str, Any]:
    """What the answers say; SampleError names a file or row that is not of this study, or comes twice."""
    key = read_json(key_file, LARGEST_KEY)
    choices, seen, people = [], set(), set()
    for file in files:
        for number, row in enumerate(read_jsonl(file), start=1):
            try:
                one = (row["participant"], row["item"])
                shown = tuple(key["methods"][handle] for handle in row["shown"])
                choice = Choice(shown, key["methods"][row["chosen"]])
                if row["study"] != key["study"] or choice.chosen not in shown or one in seen:
                    raise ValueError("another study, or an answer that was given before")
            except (KeyError, TypeError, ValueError) as error:
                raise SampleError(f"row {number} of {file} is no answer to {key_file} ({error})") from None
            choices.append(choice)
            seen.add(one)
            people.add(row["participant"])
    if not choices:
        raise SampleError(f"{', '.join(files)} hold no answers")
    scale = strengths(choices)
    columns = ("value", "low", "high", "probability")
    return {
        "answers": len(choices),
        "participants": len(people),
        "preferred": [
            {"first": first, "second": second, **asdict(share)}
            for (first, second), share in preferred_of_pairs(choices).items()
        ],
        "strengths": {
            name: {column: float(getattr(scale, column)[place]) for column in columns}
            for place, name in enumerate(scale.names)
        },
        "places": [asdict(share) for share in position_shares(choices)],
        "definitions": DEFINITIONS,
    }


if __name__ == "__main__":
    sys.exit(run(main))

"""python eval/speculative.py --checkpoint RUN --out FILE.json [key=value ...]
python eval/speculative.py --replies REPLIES.jsonl --out FILE.json names=false

The speculative benchmark: situations in, faces out, and nobody says how the faces should look. Does the face
show the feeling that the situation gives? The model answers every situation in three wordings, and a plain
description of the same face, which is the most that its drawing can reach; and its untouched language model
is asked which feeling it reads, so that reading and drawing errors are told apart. Another model needs no
code: ask it the requests.jsonl that lies beside OUT, and score its replies (docs/metrics.md has the form).
Writes OUT, a picture beside it, and the requests and replies in the folder `..._replies`.
"""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from facegpt.chat import newest_checkpoint
from facegpt.commands.chat_batch import REPLIES, answer_file
from facegpt.commands.chat_settings import ChatSettings
from facegpt.config import at_least, parse_config, run
from facegpt.errors import CheckpointError, SampleError
from facegpt.evaluation.action_units import FEELINGS, UNITS
from facegpt.evaluation.evaluated_model import open_evaluated_model, provenance, write_rows
from facegpt.evaluation.feeling_reading import named_feelings
from facegpt.evaluation.replies import SpokenFace, read_replies
from facegpt.evaluation.speculative_picture import feelings_sheet, shape_spread
from facegpt.evaluation.speculative_score import (
    DEFINITIONS,
    by_situation,
    feeling_table,
    own_and_shuffled,
    pair_scores,
    score_table,
    shown_feelings,
)
from facegpt.evaluation.speculative_set import (
    SPLITS,
    WORDINGS,
    Situation,
    read_situations,
    request_id,
    speculative_requests,
)
from facegpt.evaluation.summary import summary
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.metrics.face_token_rates import wilson_interval


@dataclass
class SpeculativeSettings:
    """checkpoint: a run or one of its checkpoints; without it, the model that comes with facegpt.
    replies: score this file instead of asking a model. situations: the benchmark. split: dev, while a model
    is made, or test. n: how many situations of each feeling (0: all). out: file for the results. names: ask
    the untouched language model of the checkpoint which feelings it reads. head: "builtin" or the head file
    used in training. backbone: where it lies, if it has moved. device: auto is the GPU where there is one.
    batch: conversations at once. max_new_tokens: the longest answer. seed: of the resamplings.
    """

    checkpoint: str | None = None
    replies: str | None = None
    situations: str = str(Path(__file__).parent / "data" / "speculative.jsonl")
    split: str = "test"
    n: int = 0
    out: str = "outputs/demo/speculative.json"
    names: bool = True
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    batch: int = 16
    max_new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens")
        at_least(0, self, "n")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, it is {self.split}")


def main(argv: list[str]) -> None:
    settings = parse_config(SpeculativeSettings, argv, __doc__)
    start = time.time()
    situations = read_situations(settings.situations, settings.split, settings.n)
    head = HeadModel.open(settings.head)
    replies = settings.replies or ask(settings, situations)
    spoken = faces_of(read_replies(replies), situations, replies)
    named, about = read_feelings(settings, situations) if settings.names else ({}, {})

    rows = np.repeat(np.arange(len(situations)), WORDINGS)
    wordings = [spoken[request_id(s, str(place))] for s in situations for place in range(WORDINGS)]
    described = [spoken[request_id(s, "explicit")] for s in situations]
    strengths, explicit = strengths_of(wordings), strengths_of(described)
    own_rows = np.arange(len(situations))
    result: dict[str, Any] = {
        "n": len(situations),
        "answers": len(wordings),
        "split": settings.split,
        "emission": {"situations": emission(wordings), "explicit": emission(described)},
        "situations": score_table(strengths, rows, situations, settings.seed),
        "explicit": score_table(explicit, own_rows, situations, settings.seed),
        "face_at_rest": score_table(np.zeros_like(explicit), own_rows, situations, settings.seed),
        "chance": {"nearest": 1 / len(FEELINGS), "direction": 1 / (len(FEELINGS) - 1)},
        "reading": reading(named, strengths, rows, situations, settings.seed),
        "wordings_agree": wordings_agree(strengths, len(situations), settings.seed),
        "anatomy_mm": summary(shape_spread(head, [f for f in wordings if f is not None]), settings.seed),
        "feelings": feeling_table(strengths, rows, situations, dict(enumerate(named.get("calibrated", [])))),
        "definitions": DEFINITIONS | MORE_DEFINITIONS,
        "replies": str(replies),
        "command": shlex.join(["python", *sys.argv]),
        "settings": dict(vars(settings)),
        "seed": settings.seed,
        **about,
        "seconds": round(time.time() - start, 1),
    }
    out = Path(settings.out)
    with atomic_path(out.with_suffix(".jpg")) as path:
        feelings_sheet(head, situations, wordings[::WORDINGS], described).save(path, quality=90)
    write_json(out, result)
    report(result, out)


MORE_DEFINITIONS = {
    "explicit": "the same face described in words, without a situation: what the model's drawing can reach",
    "face_at_rest": "a face that never moves, as the mean face",
    "reading": (
        "the feeling that the untouched language model names for a wording: the likeliest of 32 words, "
        "calibrated over all wordings, by pointwise mutual information, and by plain likelihood "
        "(facegpt/evaluation/feeling_reading.py)"
    ),
    "drawn": "nearest, over the answers whose feeling was read right or wrong, and with what was read",
    "wordings_agree": "pairs of wordings of a situation whose faces show the same feeling; expected: by lot",
    "anatomy_mm": (
        "RMS distance of a face's shape, without expression, from the mean of all answers, over the face "
        "region; a situation says nothing of anatomy, so the least is best"
    ),
}


def ask(settings: SpeculativeSettings, situations: Sequence[Situation]) -> Path:
    """Have the model answer all requests as `facegpt chat --batch` does; resumed where it was killed."""
    out = Path(settings.out)
    folder = out.with_name(f"{out.stem}_replies")
    file = folder / "requests.jsonl"
    write_rows(file, [{"id": r.id, "text": r.text} for r in speculative_requests(situations)])
    chat = ChatSettings(
        checkpoint=None if settings.checkpoint is None else Path(settings.checkpoint),
        out=folder,
        batch=file,
        batch_size=settings.batch,
        head=settings.head,
        backbone=settings.backbone,
        device=settings.device,
        max_new_tokens=settings.max_new_tokens,
    )
    answer_file(chat, file)
    return folder / REPLIES


def faces_of(
    spoken: dict[str, SpokenFace | None], situations: Sequence[Situation], path: str | Path
) -> dict[str, SpokenFace | None]:
    """The replies, all of which must be there. Raises SampleError for missing ones."""
    missing = [request.id for request in speculative_requests(situations) if request.id not in spoken]
    if missing:
        raise SampleError(
            f"{path} has no reply to {missing[0]} and {len(missing) - 1} more requests; a reply without a "
            f"face "
            'has "parameters": []'
        )
    return spoken


def read_feelings(
    settings: SpeculativeSettings, situations: Sequence[Situation]
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """What the untouched backbone names for every wording, in the order of the answers; and the
    provenance."""
    evaluated = open_evaluated_model(
        str(newest_checkpoint(settings.checkpoint)),
        settings.head,
        settings.backbone,
        settings.device,
        merge=False,
    )
    adapter = evaluated.model.backbone
    if not isinstance(adapter, PeftModel):
        raise CheckpointError(
            f"{evaluated.checkpoint} is merged, so the untouched language model cannot be asked; set "
            f"names=false"
        )
    texts = [wording for situation in situations for wording in situation.wordings]
    with adapter.disable_adapter():
        return named_feelings(evaluated.model, texts), provenance(evaluated, settings)


def strengths_of(faces: Sequence[SpokenFace | None]) -> np.ndarray:
    """Action units (A,U) of the faces, NaN where there is none."""
    return np.stack([np.full(len(UNITS), math.nan) if face is None else face.strengths() for face in faces])


def emission(faces: Sequence[SpokenFace | None]) -> dict[str, Any]:
    found = sum(face is not None for face in faces)
    interval = wilson_interval(found, len(faces))
    return {"n": len(faces), "with_face": found, "share": found / len(faces), "interval_95": interval}


def reading(
    named: dict[str, list[str]],
    strengths: np.ndarray,
    rows: np.ndarray,
    situations: Sequence[Situation],
    seed: int,
) -> dict[str, Any]:
    """How often the language model names the right feeling, and what is drawn where it does and does not."""
    if not named:
        return {}
    right = {
        way: np.array([name == situations[row].feeling for name, row in zip(names, rows, strict=True)], float)
        for way, names in named.items()
    }
    hits = own_and_shuffled(pair_scores(strengths, situations)["nearest"], rows)[0]
    pairs = zip(shown_feelings(strengths), named["calibrated"], strict=True)
    as_named = [math.nan if shown is None else float(shown == name) for shown, name in pairs]
    drawn = {
        "when_read_right": np.where(right["calibrated"] == 1, hits, math.nan),
        "when_read_wrong": np.where(right["calibrated"] == 0, hits, math.nan),
        "what_was_read": np.array(as_named),
    }

    def table(values: np.ndarray) -> dict[str, Any]:
        return summary(by_situation(values, rows, len(situations)), seed)

    return {
        "read_right": {way: table(values) for way, values in right.items()},
        "chance": 1 / len(FEELINGS),
        "drawn": {way: table(values) for way, values in drawn.items()},
    }


def wordings_agree(strengths: np.ndarray, count: int, seed: int) -> dict[str, Any]:
    """Share of pairs of wordings whose faces show one feeling, and what the feelings' frequencies would
    give."""
    shown = shown_feelings(strengths)
    groups = [shown[WORDINGS * row : WORDINGS * (row + 1)] for row in range(count)]
    pairs = [
        [float(a == b) for a, b in combinations(g, 2) if a is not None and b is not None] for g in groups
    ]
    faces = [name for name in shown if name is not None]
    expected = sum((faces.count(name) / len(faces)) ** 2 for name in set(faces)) if faces else None
    return {**summary([float(np.mean(p)) if p else math.nan for p in pairs], seed), "expected": expected}


def report(result: dict[str, Any], out: Path) -> None:
    print(f"{'':12}{'situations':>22}{'shuffled':>12}{'described':>22}{'at rest':>12}")
    for metric, found in result["situations"].items():
        described, rest = (result[way][metric]["of_faces"] for way in ("explicit", "face_at_rest"))
        cells = (
            _cell(found["of_faces"], 22),
            _cell(found["shuffled"], 12),
            _cell(described, 22),
            _cell(rest, 12),
        )
        print(f"{metric:12}{''.join(cells)}")
    chance = f"chance {100 * result['chance']['nearest']:.1f} %"
    if result["reading"]:
        right = result["reading"]["read_right"]["calibrated"]
        print(f"{'read right':12}{_cell(right, 22)}   by the untouched language model, {chance}")
    faces = result["emission"]["situations"]
    print(f"{faces['with_face']} of {faces['n']} answers have a face; nearest: {chance}")
    print(f"wrote {out} ({result['n']} situations, {result['seconds']} s)")


def _cell(found: dict[str, Any], width: int) -> str:
    """A share in percent, with its interval where there is room."""
    if found["mean"] is None:
        return f"{'-':>{width}}"
    low, high = found["interval_95"]
    text = f"{100 * found['mean']:.1f} %" + (f" [{100 * low:.0f}, {100 * high:.0f}]" if width > 20 else "")
    return f"{text:>{width}}"


if __name__ == "__main__":
    sys.exit(run(main))

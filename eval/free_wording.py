"""python eval/free_wording.py --checkpoint RUN --data FACES --out FILE.json [key=value ...]

Asks a trained model in the words of strangers: requests and questions that were written by hand and are used
in no training. How often comes `<FACE>` where a face is wanted, and where words are? And is the face of a
situation ("nobody came to his party") one of a right feeling, by the nearest of seven prototypes? Writes OUT,
with every single reply.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.records import read_records
from facegpt.evaluation.evaluated_model import (
    EvaluatedModel,
    face_counts,
    first_faces,
    open_evaluated_model,
    provenance,
    replies_to,
)
from facegpt.evaluation.expression_prototypes import (
    COMPONENTS,
    compared_components,
    knows_feelings,
    nearest_feelings,
    score_feelings,
)
from facegpt.evaluation.request_sets import (
    SPLITS,
    WANTS_FACE,
    Request,
    first_of_each_kind,
    read_requests,
    request_samples,
)
from facegpt.files import write_json
from facegpt.metrics.face_token_rates import wilson_interval
from facegpt.model.generation import Reply

DEFINITIONS = {
    "emission": "share of the answers with a <FACE>; 95 % intervals of Wilson",
    "requests": "explicit, speculative and photograph together, which want a face",
    "questions": "question and question_photograph together, which want words: each <FACE> is false",
    "feelings": (
        "share of the faces whose nearest of seven expression prototypes is a right one "
        "(facegpt/evaluation/expression_prototypes.py); share_of_all counts a missing face as wrong"
    ),
    "chance": "a feeling drawn by lot; some situations have two right ones",
    "shuffled": "each face scored with the feelings of another request, mean over all others",
    "generation": "Every answer is generated token by token, greedily; nothing is teacher forced.",
}


@dataclass
class FreeWordingSettings:
    """checkpoint: a run or one of its checkpoints. requests: JSON lines of id, kind, text, split, feelings.
    split: dev, while a model is made, or test. data: held-out face records, whose photographs are shown.
    n: how many requests of each kind (0: all). out: file for the results. head: "builtin" or the head file
    used in training. backbone: where it lies, if it has moved. device: auto is the GPU where there is one.
    batch: conversations at once. max_new_tokens: the longest answer. seed: of which photograph goes where.
    """

    checkpoint: str = MISSING
    requests: str = str(Path(__file__).parent / "data" / "requests.jsonl")
    split: str = "test"
    data: str = "outputs/demo/data/test"
    out: str = "outputs/demo/free_wording.json"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    n: int = 0
    batch: int = 16
    max_new_tokens: int = 96
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens")
        at_least(0, self, "n")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, it is {self.split}")


def main(argv: list[str]) -> None:
    settings = parse_config(FreeWordingSettings, argv, __doc__)
    start = time.time()
    requests = first_of_each_kind(read_requests(settings.requests, settings.split), settings.n)
    samples = request_samples(requests, read_records(settings.data), settings.seed)
    evaluated = open_evaluated_model(settings.checkpoint, settings.head, settings.backbone, settings.device)

    replies = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, settings.split)
    rows = reply_rows(requests, replies, evaluated)
    result: dict[str, Any] = {
        "n": len(rows),
        "split": settings.split,
        "emission": emission(rows),
        "feelings": feelings(rows) if knows_feelings(evaluated.head) else {},
        "definitions": DEFINITIONS,
        "data": settings.data,
        **provenance(evaluated, settings),
        "seconds": round(time.time() - start, 1),
        "replies": rows,
    }
    write_json(settings.out, result)
    report(result, settings.out)


def reply_rows(
    requests: Sequence[Request], replies: Sequence[Reply], evaluated: EvaluatedModel
) -> list[dict[str, Any]]:
    """One row per request: what was asked and answered; of the first face, what it shows."""
    rows: list[dict[str, Any]] = [
        {
            "id": request.id,
            "kind": request.kind,
            "text": request.text,
            "reply": reply.text,
            "faces": count,
            "probabilities": [round(p, 4) for p in reply.face_probabilities.tolist()],
            "feelings": list(request.feelings),
        }
        for request, reply, count in zip(requests, replies, face_counts(replies), strict=True)
    ]
    if knows_feelings(evaluated.head):
        components = compared_components(evaluated.head, first_faces(replies, evaluated))
        for row, shown, values in zip(rows, nearest_feelings(components), components.tolist(), strict=True):
            if row["faces"]:
                row["shows"] = shown
                row["expression"] = dict(zip(COMPONENTS, [round(v, 3) for v in values], strict=True))
    return rows


def emission(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares with a <FACE>: of each kind there is, and of all that want a face or words."""
    groups = {kind: [kind] for kind in WANTS_FACE}
    groups["requests"] = [kind for kind, wanted in WANTS_FACE.items() if wanted]
    groups["questions"] = [kind for kind, wanted in WANTS_FACE.items() if not wanted]
    table = {}
    for name, kinds in groups.items():
        counts = [row["faces"] for row in rows if row["kind"] in kinds]
        if counts:
            found = sum(count > 0 for count in counts)
            table[name] = {
                "n": len(counts),
                "with_face": found,
                "share": found / len(counts),
                "interval": wilson_interval(found, len(counts)),
                "wanted": name == "requests" or WANTS_FACE.get(name, False),
            }
    return table


def feelings(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The score of each kind whose requests say which feelings are right."""
    table = {}
    for kind in ("speculative", "explicit"):
        told = [row for row in rows if row["kind"] == kind and row["feelings"]]
        if told:
            shown = [row.get("shows") for row in told]
            table[kind] = score_feelings(shown, [row["feelings"] for row in told]).as_json()
    return table


def report(result: dict[str, Any], out: str) -> None:
    for name, found in result["emission"].items():
        low, high = found["interval"]
        print(f"{name}: {found['with_face']} of {found['n']} with a face, {low:.3f} to {high:.3f}")
    for kind, score in result["feelings"].items():
        print(
            f"feeling of {kind}: right in {score['right']} of {score['n']}, "
            f"{score['with_face']} with a face, chance {score['chance']:.3f}"
        )
    print(f"wrote {out} ({result['n']} answers, {result['seconds']} s)")


if __name__ == "__main__":
    sys.exit(run(main))

"""python eval/instruct.py --checkpoint RUN --questions FILE --references FILE --judge NAME --out FILE.json

How well does a trained model still chat? As LLaVA-Bench has it, a judge compares its answers with those of a
reference: the model answers QUESTIONS (JSON lines of question_id, image, text, category), and a language
model behind any endpoint of OpenAI's form grades each answer beside that of REFERENCES (question_id, text),
told what the picture shows by CONTEXT (image and caption, or captions and instances); both orders, scores
per category. Writes OUT, and every review as it comes to `..._reviews.jsonl`, from which it goes on when it
was stopped. Without a judge, eval/language.py tells how far a model is from its backbone.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from facegpt.chat import check_text, question
from facegpt.config import MISSING, at_least, parse_config, run
from facegpt.data.records import path_within
from facegpt.errors import SampleError
from facegpt.evaluation import judge as judging
from facegpt.evaluation.evaluated_model import open_evaluated_model, provenance, replies_to
from facegpt.evaluation.judge import ORDERS, Judge, judge_text, openai_judge, read_scores, score_table
from facegpt.files import append_jsonl, read_jsonl, write_json
from facegpt.machine import package_versions
from facegpt.perception.images import read_image

LARGEST_FILE = 1 << 28  # bytes


@dataclass
class InstructSettings:
    """questions: JSON lines of question_id, text, category and, for a picture, image. references: JSON lines
    of question_id and text, the answers to be compared with. judge: the name of the judging model.
    judge_url: base address of its endpoint (empty: OpenAI's; the key comes from OPENAI_API_KEY). checkpoint:
    a run or one of its checkpoints, which answers (empty: answers has them). answers: JSON lines of
    question_id and text, of any model. context: JSON lines of image and caption, or captions and instances.
    images: folder of the pictures. out: file for the results. head: "builtin" or the head file used in
    training. backbone: where it lies, if it has moved. device: auto is the GPU where there is one. n: how
    many questions (0: all). batch: conversations at once. max_new_tokens: the longest answer. seed: of the
    resampling.
    """

    questions: str = MISSING
    references: str = MISSING
    judge: str = MISSING
    judge_url: str | None = None
    checkpoint: str | None = None
    answers: str | None = None
    context: str | None = None
    images: str | None = None
    out: str = "outputs/instruct.json"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    n: int = 0
    batch: int = 16
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "batch", "max_new_tokens")
        at_least(0, self, "n")
        if bool(self.checkpoint) == bool(self.answers):
            raise ValueError("give either a checkpoint that answers or a file of answers")


def main(argv: list[str]) -> None:
    settings = parse_config(InstructSettings, argv, __doc__)
    start = time.time()
    asked = rows_of(settings.questions, "question_id", "text", "category")[: settings.n or None]
    references = texts_of(settings.references)
    contexts = read_contexts(settings.context) if settings.context else {}
    if missing := [row["question_id"] for row in asked if row["question_id"] not in references]:
        raise SampleError(
            f"{settings.references} has no answer to question {missing[0]} of {settings.questions}"
        )
    judge = openai_judge(settings.judge, settings.judge_url)
    if settings.checkpoint:
        answers, about = answer(asked, settings)
    else:
        answers, about = texts_of(str(settings.answers)), {"versions": package_versions()}
    out = Path(settings.out)
    reviews = out.with_name(f"{out.stem}_reviews.jsonl")
    rows = review(asked, answers, references, contexts, judge, settings.judge, reviews)
    result: dict[str, Any] = {
        "n": len(asked),
        "judge": settings.judge,
        "scores": score_table(rows, settings.seed),
        "definitions": {"relative": judging.DEFINITION, "reviews": reviews.name},
        "settings": dict(vars(settings)),
        **about,
        "seconds": round(time.time() - start, 1),
    }
    write_json(out, result)
    for category, found in result["scores"].items():
        score = "none" if found["relative"] is None else f"{found['relative']:.1f}"
        print(f"{category}: {score} of 100, {found['questions']} questions, {found['unreadable']} unreadable")
    print(f"wrote {out} ({result['seconds']} s)")


def rows_of(path: str, *keys: str) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file with these keys, the id as a string; SampleError names what lacks one."""
    if not Path(path).is_file() or Path(path).stat().st_size > LARGEST_FILE:
        raise SampleError(f"{path} is no JSON-lines file of at most {LARGEST_FILE} bytes")
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        if missing := [key for key in keys if not isinstance(row.get(key), str | int)]:
            raise SampleError(f"row {number} of {path} has no {missing[0]}")
    if not rows:
        raise SampleError(f"{path} has no rows")
    return [{**row, keys[0]: str(row[keys[0]])} for row in rows]


def texts_of(path: str) -> dict[str, str]:
    """Question -> text of a file of answers."""
    return {row["question_id"]: str(row["text"]) for row in rows_of(path, "question_id", "text")}


def read_contexts(path: str) -> dict[str, str]:
    """Image -> what it shows, in words: captions, then the boxes of its instances where they are given."""
    found = {}
    for row in rows_of(path, "image"):
        captions = row.get("captions", row.get("caption", []))
        lines = [captions] if isinstance(captions, str) else [str(line) for line in captions]
        boxes = [box for box in row.get("instances", []) if isinstance(box, dict)]
        lines += [f"{box.get('category')}: {box.get('bbox')}" for box in boxes]
        found[row["image"]] = "\n".join(lines)
    return found


def answer(
    asked: Sequence[Mapping[str, Any]], settings: InstructSettings
) -> tuple[dict[str, str], dict[str, Any]]:
    """Question -> the model's greedy answer, and how it came about."""
    folder, samples = Path(settings.images or "."), []
    for row in asked:
        check_text(str(row["text"]))
        name = row.get("image")
        picture = read_image(path_within(folder, str(name), settings.questions)) if name else None
        samples.append(question(str(row["text"]), picture, row["question_id"]))
    assert settings.checkpoint is not None
    evaluated = open_evaluated_model(settings.checkpoint, settings.head, settings.backbone, settings.device)
    replies = replies_to(evaluated, samples, settings.batch, settings.max_new_tokens, "answers")
    texts = {row["question_id"]: reply.text for row, reply in zip(asked, replies, strict=True)}
    return texts, provenance(evaluated, settings)


def review(
    asked: Sequence[Mapping[str, Any]],
    answers: Mapping[str, str],
    references: Mapping[str, str],
    contexts: Mapping[str, str],
    judge: Judge,
    name: str,
    path: Path,
) -> list[dict[str, Any]]:
    """One row per question and order with both grades; what `path` holds already is not asked again."""
    known = {row.get("told"): row for row in (read_jsonl(path) if path.is_file() else [])}
    rows = []
    for row in tqdm(asked, desc="reviews", unit="question"):
        identity, context = row["question_id"], contexts.get(str(row.get("image")), "")
        ours, theirs = answers.get(identity, ""), references[identity]
        for order in ORDERS:
            first, second = (theirs, ours) if order == "reference_first" else (ours, theirs)
            text = judge_text(context, str(row["text"]), first, second)
            told = hashlib.sha256(f"{name}\n{order}\n{text}".encode()).hexdigest()
            if told not in known:
                written = judge(text)
                scores = read_scores(written) or (None, None)
                reference, model = scores if order == "reference_first" else scores[::-1]
                known[told] = {"told": told, "review": written, "model": model, "reference": reference}
                append_jsonl(path, [{"question_id": identity, "order": order, **known[told]}])
            grades = {who: known[told][who] for who in ("model", "reference")}
            rows.append({"question_id": identity, "category": row["category"], "order": order, **grades})
    return rows


if __name__ == "__main__":
    sys.exit(run(main))

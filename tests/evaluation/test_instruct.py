"""The judge of answers: how scores are read and joined; the recipe against a server of our own over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from evaluation_world import World
from recipes import load_recipe

from facegpt.errors import ConfigError, SampleError
from facegpt.evaluation.judge import judge_text, read_scores, score_table
from facegpt.files import read_jsonl

instruct = load_recipe("eval/instruct.py")


@pytest.mark.parametrize(
    ("review", "scores"),
    [
        ("8 9\nBoth are good.", (8, 9)),
        ("\n7.5, 10\n", (7.5, 10)),
        ("Answer 1: 8", None),
        ("8 9 10", None),
        ("0 11", None),
        ("", None),
    ],
)
def test_two_grades_are_read_from_the_first_line_or_none(
    review: str, scores: tuple[float, float] | None
) -> None:
    assert read_scores(review) == scores


def test_scores_are_ratios_of_sums_by_category_and_unreadable_ones_are_left_out() -> None:
    def row(question: str, category: str, order: str, model: float | None, reference: float | None) -> dict:
        return {
            "question_id": question,
            "category": category,
            "order": order,
            "model": model,
            "reference": reference,
        }

    rows = [
        row("1", "conv", "reference_first", 8, 10),
        row("1", "conv", "model_first", 9, 9),
        row("2", "detail", "reference_first", 4, 8),
        row("2", "detail", "model_first", None, None),
    ]
    table = score_table(rows, seed=0)
    assert table["conv"]["relative"] == pytest.approx(100 * 17 / 19)
    assert table["all"]["relative"] == pytest.approx(100 * 21 / 27) and table["all"]["questions"] == 2
    assert table["all"]["by_order"] == pytest.approx({"reference_first": 100 * 12 / 18, "model_first": 100})
    assert table["detail"]["unreadable"] == 1 and table["detail"]["relative"] == 50
    assert table["all"]["relative_95"] == pytest.approx([50, 100 * 17 / 19])
    assert score_table(rows[3:], seed=0)["all"]["relative"] is None


@pytest.fixture()
def judge() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint that grades answers by their length, and what it was asked."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, **asked})
            text = asked["messages"][-1]["content"]
            answers = [text.split(f"[Answer {k}]\n")[1].split("\n[End")[0] for k in (1, 2)]
            review = " ".join(str(min(10, len(a))) for a in answers) + "\nby length"
            choice = {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": review},
            }
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            content = json.dumps(body).encode()
            self.send_response(200 if asked["model"] == "ruler" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", seen
    server.shutdown()
    server.server_close()


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def words(folder: Path, url: str, *more: str) -> list[str]:
    questions = [
        {"question_id": 1, "image": "a.jpg", "text": "What is it?", "category": "conv"},
        {"question_id": 2, "text": "Why?", "category": "complex"},
    ]
    answers = [{"question_id": 1, "text": "1234"}, {"question_id": 2, "text": "12345678"}]
    references = [{"question_id": 1, "text": "12345678"}, {"question_id": 2, "text": "12345678"}]
    context = [{"image": "a.jpg", "captions": ["a cat"], "instances": [{"category": "cat", "bbox": [0, 1]}]}]
    return [
        f"questions={write(folder / 'q.jsonl', questions)}",
        f"references={write(folder / 'r.jsonl', references)}",
        f"answers={write(folder / 'a.jsonl', answers)}",
        f"context={write(folder / 'c.jsonl', context)}",
        f"judge_url={url}",
        "judge=ruler",
        f"out={folder / 'i.json'}",
        *more,
    ]


def test_a_judge_is_asked_in_both_orders_over_http_and_never_twice(
    judge: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    pytest.importorskip("openai", reason="the package openai, which talks to judges, is not installed")
    url, seen = judge
    instruct.main(words(tmp_path, url))
    scores = json.loads((tmp_path / "i.json").read_text())["scores"]
    assert scores["conv"]["relative"] == 50 and scores["complex"]["relative"] == 100
    assert scores["all"]["by_order"] == {"reference_first": 75, "model_first": 75}
    assert len(seen) == 4 and {one["path"] for one in seen} == {"/v1/chat/completions"}
    told = seen[0]["messages"][-1]["content"]
    assert "a cat\ncat: [0, 1]" in told and told.index("12345678") < told.index("[Answer 2]\n1234\n")
    instruct.main(words(tmp_path, url))
    assert len(seen) == 4 and len(read_jsonl(tmp_path / "i_reviews.jsonl")) == 4
    with pytest.raises(ConfigError, match=r"the judge nobody at .* did not answer"):
        instruct.main(words(tmp_path, url, "judge=nobody"))


def test_a_model_answers_the_questions_itself(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instruct, "openai_judge", lambda model, url: lambda text: "5 5")
    run = [f"checkpoint={world.path / 'speaks'}", f"head={world.path / 'head.npz'}", "device=cpu"]
    questions = write(tmp_path / "own.jsonl", [{"question_id": "x", "text": "Why?", "category": "conv"}])
    references = write(tmp_path / "ref.jsonl", [{"question_id": "x", "text": "Because."}])
    more = [f"questions={questions}", f"references={references}", "answers=", "max_new_tokens=2"]
    instruct.main(words(tmp_path, "", *run, *more))
    result = json.loads((tmp_path / "i.json").read_text())
    assert result["n"] == 1 and result["scores"]["conv"]["relative"] == 100 and "backbone" in result


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="no answer to question 2"):
        instruct.main(
            words(
                tmp_path, "", f"references={write(tmp_path / 'x.jsonl', [{'question_id': 1, 'text': 'a'}])}"
            )
        )
    with pytest.raises(SampleError, match=r"row 1 of .*y\.jsonl has no category"):
        instruct.main(
            words(tmp_path, "", f"questions={write(tmp_path / 'y.jsonl', [{'question_id': 1, 'text': 'a'}])}")
        )
    with pytest.raises(ConfigError, match="either a checkpoint"):
        instruct.main(words(tmp_path, "", "answers="))
    assert judge_text("", "q", "", "b").count("(nothing)") == 1

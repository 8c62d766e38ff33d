"""A language model as judge of two answers: what it is asked, how its scores are read, and the table of them.

After LLaVA-Bench (Liu et al. 2023): the judge, which does not see the picture, reads a description of it, the
question and two answers, and writes two scores from 1 to 10 on its first line. The words here are our own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from facegpt.errors import ConfigError
from facegpt.metrics.agreement import bootstrap

Judge = Callable[[str], str]  # what the judge is told -> what it writes
ORDERS = ("reference_first", "model_first")  # the first one is LLaVA-Bench's
LOWEST, HIGHEST = 1.0, 10.0
TEMPERATURE, LONGEST_REVIEW = 0.2, 1024  # as LLaVA-Bench has them; tokens
SYSTEM = "You grade answers with care and without taking sides."
TASK = (
    "Two assistants answered a question about a picture. You do not see the picture; the context above says "
    "what it shows. Grade each answer from 1 to 10 for how helpful, relevant, accurate and detailed it is; a "
    "higher grade is better. On the first line write only the two grades, the one of answer 1 and the one of "
    "answer 2, with a space between them. Then explain your grades. The order in which the answers stand "
    "must not matter."
)
TWO_GRADES = re.compile(r"\s*(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\s*")
DEFINITION = (
    "sum of the model's grades over that of the reference's, in percent, as LLaVA-Bench has it; over both "
    "orders of the two answers; intervals: 95 %, 1,000 resamplings of the questions"
)


def judge_text(context: str, question: str, first: str, second: str) -> str:
    """What the judge is told of two answers."""
    parts = {"Context": context or "(nothing is known of the picture)", "Question": question}
    parts |= {"Answer 1": first or "(nothing)", "Answer 2": second or "(nothing)"}
    told = "".join(f"[{name}]\n{text}\n[End of {name.lower()}]\n\n" for name, text in parts.items())
    return f"{told}[Task]\n{TASK}\n"


def read_scores(review: str) -> tuple[float, float] | None:
    """The two grades on the first line that is not empty; None unless it holds just them, from 1 to 10."""
    line = next((line for line in review.splitlines() if line.strip()), "")
    found = TWO_GRADES.fullmatch(line)
    if found is None or not all(LOWEST <= float(score) <= HIGHEST for score in found.groups()):
        return None
    return float(found[1]), float(found[2])


def score_table(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Category, and "all" -> relative score with its interval, and by order; see `DEFINITION`.

    rows: of one question and order each, with question_id, category, order, and the grades `model` and
    `reference`, None where the review could not be read (such rows are counted and left out).
    """
    categories = ["all", *dict.fromkeys(str(row["category"]) for row in rows)]
    return {
        category: _scores([row for row in rows if category in ("all", row["category"])], seed)
        for category in categories
    }


def _scores(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    known = [row for row in rows if row["model"] is not None]
    by_question: dict[str, list[Mapping[str, Any]]] = {}
    for row in known:
        by_question.setdefault(str(row["question_id"]), []).append(row)
    found: dict[str, Any] = {"questions": len(by_question), "unreadable": len(rows) - len(known)}
    if not known:
        return {**found, "relative": None, "relative_95": None, "by_order": {}}
    sums = torch.tensor(
        [[sum(row[who] for row in group) for who in ("model", "reference")] for group in by_question.values()]
    ).double()

    def relative(questions: torch.Tensor) -> torch.Tensor:
        total = sums[questions].sum(dim=0)
        return (100 * total[0] / total[1])[None]

    estimate = bootstrap(relative, len(sums), seed)[0]
    return {
        **found,
        "relative": estimate.value,
        "relative_95": [estimate.low, estimate.high],
        "model": sum(row["model"] for row in known) / len(known),
        "reference": sum(row["reference"] for row in known) / len(known),
        "by_order": {
            order: 100 * sum(row["model"] for row in some) / sum(row["reference"] for row in some)
            for order in ORDERS
            if (some := [row for row in known if row["order"] == order])
        },
    }


def openai_judge(model: str, url: str | None = None) -> Judge:
    """A judge behind any endpoint of OpenAI's form; url: its base address, None for OpenAI's own.

    The key is read from OPENAI_API_KEY; an own endpoint may need none. Raises ConfigError, here for a missing
    package or key, and in use when the endpoint does not answer, after the client's own retries.
    """
    try:
        import openai
    except ModuleNotFoundError:
        raise ConfigError(
            "a judge needs the package openai, which is not installed; pip install openai"
        ) from None
    key = os.environ.get("OPENAI_API_KEY") or ("none" if url else None)
    if key is None:
        raise ConfigError(
            "set OPENAI_API_KEY for the judge, or give judge_url the address of an own endpoint"
        )
    client = openai.OpenAI(api_key=key, base_url=url or None)

    def judge(text: str) -> str:
        try:
            reply = client.chat.completions.create(
                model=model,
                messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
                temperature=TEMPERATURE,
                max_tokens=LONGEST_REVIEW,
            )
        except openai.OpenAIError as error:
            raise ConfigError(f"the judge {model} at {client.base_url} did not answer ({error})") from None
        return (reply.choices[0].message.content or "") if reply.choices else ""

    return judge

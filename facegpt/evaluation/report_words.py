"""The report's sections about words: requests of strangers, and whether the language was kept."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from facegpt.evaluation.report_page import number, table

FREE_KINDS = {
    "explicit": "a face in words",
    "speculative": "a situation",
    "photograph": "a photograph",
    "question": "question, no photograph",
    "question_photograph": "question about a photograph",
    "requests": "all that want a face",
    "questions": "all that want words",
}


def free_wording(values: dict[str, Any], each: int = 6) -> str:
    """The tables of `eval/free_wording.py` and the first `each` replies of every kind; values: its result."""
    body = (
        "<h2>In the words of strangers</h2><p>Requests and questions written by hand apart from all training "
        f"data, {html.escape(values['split'])} split. Shares with 95 % intervals.</p>"
    )
    rows = [
        [FREE_KINDS.get(kind, kind), _within(found["share"], found["interval"]), str(found["n"]), wish]
        for kind, found in values["emission"].items()
        for wish in ["a face" if found["wanted"] else "words"]
    ]
    body += table(["prompt", "answers with a face", "prompts", "wanted"], rows)
    scores = values["feelings"]
    if scores:
        rows = [
            [
                FREE_KINDS.get(kind, kind),
                _within(found["share_of_all"], found["interval_of_all"]),
                "–" if found["share_of_faces"] is None else f"{100 * found['share_of_faces']:.1f} %",
                "–" if found["shuffled"] is None else f"{100 * found['shuffled']:.1f} %",
                f"{100 * found['chance']:.1f} %",
                str(found["n"]),
            ]
            for kind, found in scores.items()
        ]
        body += "<p>Is the nearest of seven prototype expressions one of a right feeling?</p>"
        header = ["face to be", "right, of all", "of those with a face", "feelings of others", "chance", "n"]
        body += table(header, rows)
    if "speculative" in scores:
        confusion = scores["speculative"]["confusion"]
        shown = list(next(iter(confusion.values())))
        body += "<p>What the faces of situations show (columns), by what is right (rows).</p>"
        body += table(["", *shown], [[name, *map(str, row.values())] for name, row in confusion.items()])
    lines = ""
    for kind in dict.fromkeys(row["kind"] for row in values["replies"]):
        for row in [row for row in values["replies"] if row["kind"] == kind][:each]:
            shows = f" <small>shows {html.escape(row['shows'])}</small>" if "shows" in row else ""
            lines += f'<tr><td style="white-space:normal">{html.escape(row["text"])}</td>'
            lines += (
                f'<td style="text-align:left;white-space:normal">{html.escape(row["reply"]) or "(nothing)"}'
            )
            lines += f"{shows}</td></tr>"
    return (
        f'{body}<p>The first of each kind, not selected.</p><div class="scroll"><table>{lines}</table></div>'
    )


def language_kept(values: dict[str, Any]) -> str:
    """The table of `eval/language.py`; values: its result."""
    equal, perplexity = values["equal_answers"], values["perplexity"]
    rows = [
        ["answers equal to the untouched model's", _within(equal["share"], equal["interval"])],
        ["perplexity of its answers, untouched", number(perplexity["untouched"])],
        ["the same, after training", number(perplexity["trained"])],
        ["change", f"{100 * values['relative_change']:+.1f} %"],
    ]
    return f"<h2>Language kept</h2><p>{values['n']} plain questions.</p>{table(['', 'value'], rows)}"


def _within(share: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * share:.1f} % <small>{100 * low:.1f} to {100 * high:.1f}</small>"

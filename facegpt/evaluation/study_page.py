"""A page on which people choose, blind, between pictures of methods; it needs nothing but itself."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from facegpt.evaluation.report_page import data_uri, page

ASSETS = Path(__file__).parents[1] / "assets"


@dataclass
class StudyItem:
    """One question: what is shown, a photograph or words, and key -> picture of each choice.

    The keys say nothing of the methods; who made which is in another file.
    """

    id: str
    choices: dict[str, Image.Image]
    photograph: Image.Image | None = None
    text: str = ""


def study_page(identity: str, title: str, question: str, items: Sequence[StudyItem]) -> str:
    """A whole HTML document: the items in random order, chosen by click or key, answers saved as JSON lines.

    Order and sides are drawn in the browser, once per participant, and kept there until all is answered.
    """
    data = {"id": identity, "items": [_as_data(item) for item in items]}
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # nothing in it ends the script
    keys = " or ".join(f"<kbd>{k + 1}</kbd>" for k in range(max(len(item.choices) for item in items)))
    body = (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(question)} Click, or press {keys}; "
        '<kbd>Backspace</kbd> goes back.</p><div id="bar"><i></i></div><div id="study"><div id="asked"></div>'
        '<div id="choices"></div></div><p class="soft"><button id="back" class="plain">Back</button> '
        '<span id="count"></span></p><noscript><p>This page needs JavaScript.</p></noscript>'
    )
    style, script = ((ASSETS / f"user_study.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    after = f'<script type="application/json" id="data">{text}</script><script>{script}</script>'
    return page(title, body, style, after)


def _as_data(item: StudyItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "text": item.text,
        "picture": None if item.photograph is None else data_uri(item.photograph),
        "choices": [{"key": key, "picture": data_uri(image)} for key, image in item.choices.items()],
    }

"""`facegpt demo`: a conversation as the chat shows it, gradio's messages of HTML. All words are escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from facegpt.commands.demo_faces import FILES, ShownFace
from facegpt.commands.demo_visits import Exchange, Visit
from facegpt.sample import FACE_TOKEN


def messages(visit: Visit) -> list[dict[str, Any]]:
    """What was said so far, in gradio's messages format."""
    said = []
    for exchange in visit.exchanges:
        said.append({"role": "user", "content": question(exchange)})
        if reply := answered(exchange, visit.faces):
            said.append({"role": "assistant", "content": reply})
    return said


def question(exchange: Exchange) -> str:
    """The visitor's words under the picture, once that has been looked at."""
    words = _plain(exchange.text)
    if exchange.picture is None:
        return words + ("<br><span class='note'>with a picture</span>" if exchange.upload else "")
    return f'<img class="shown" src="{_address(exchange.picture)}" alt="the picture that was shown">{words}'


def answered(exchange: Exchange, faces: list[ShownFace]) -> str:
    """The reply so far: the words, a card for every face, a note on the picture, an error."""
    words = _plain(exchange.reply)
    token, names = _plain(FACE_TOKEN), [faces[number].name for number in exchange.faces]
    for name in names:
        words = words.replace(token, f"<b>{name}</b>", 1)
    parts = [words.replace(token, "<b>a face</b>"), *(card(faces[number]) for number in exchange.faces)]
    if exchange.note:
        parts.append(f'<div class="note">{_plain(exchange.note)}</div>')
    if exchange.error:
        parts.append(f'<div class="error">{_plain(exchange.error)}</div>')
    return "".join(parts)


def card(face: ShownFace) -> str:
    """A face as it was spoken: picture, how sure the model was, files."""
    links = "".join(
        f'<a href="{_address(face.file(ending, 0))}" download="{face.file(ending).name}">{title}</a> '
        for title, ending in FILES.items()
    )
    share = face.probability
    return (
        f'<div class="face-card"><img src="{_address(face.file(".png", 0))}" alt="{face.name}, drawn">'
        f'<div class="about"><div class="name">{face.name}</div>'
        f'<div class="note">{share:.0%} sure that a face belongs here</div>'
        f'<progress value="{share:.3f}" max="1"></progress><div class="files">{links}</div></div></div>'
    )


def _address(file: Path) -> str:
    """Where gradio serves a file, from the page on."""
    return f"gradio_api/file={quote(str(file))}"


def _plain(text: str) -> str:
    """Words that neither HTML nor Markdown takes for more than words."""
    signs = {"\n": "<br>", " ": " "}
    return "".join(c if c.isalnum() else signs.get(c, f"&#{ord(c)};") for c in text)

"""`facegpt demo`: a question is heard, and answered piece by piece."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from facegpt.chat import ChatSession, Turn, check_text
from facegpt.commands.chat_picture import read_picture
from facegpt.commands.demo_faces import spoken_face
from facegpt.commands.demo_sliders import Slider
from facegpt.commands.demo_visits import Exchange, Visit, Visits
from facegpt.errors import FaceGPTError, SampleError
from facegpt.files import printable

LONGEST_TEXT = 2000  # characters
ABOUT_A_PICTURE = "Can you make a 3D head of this person?"  # what is asked of a picture without a word
LOG = logging.getLogger(__name__)


class VisitorLeft(Exception):
    """Nobody waits for the reply any more."""


def hear(visit: Visit, text: str, upload: Path | None) -> None:
    """Take a question down; `answer` will answer it when its turn comes."""
    text = text.strip()
    visit.exchanges.append(Exchange(text or (ABOUT_A_PICTURE if upload else ""), upload))


def answer(visits: Visits, visit: Visit, sliders: list[Slider]) -> Iterator[None]:
    """Answer the visit's questions that wait; yields when there is something new to show.

    What goes wrong ends as a sentence in the exchange, and the conversation goes on.
    """
    while exchange := next((each for each in visit.exchanges if each.waiting), None):
        exchange.waiting = False
        yield from _answer(visits, visit, exchange, sliders)


def _answer(visits: Visits, visit: Visit, exchange: Exchange, sliders: list[Slider]) -> Iterator[None]:
    try:
        if len(exchange.text) > LONGEST_TEXT:
            raise SampleError(f"the message has {len(exchange.text)} characters; {LONGEST_TEXT} are the most")
        check_text(exchange.text)
        image = _look(visits, visit, exchange)
        yield
        for heard in spoken(visit.session, exchange.text, image):
            if isinstance(heard, str):
                exchange.reply += heard
            else:
                exchange.reply = heard.text or "(the model said nothing)"
                yield  # the words are there before the faces are drawn
                for face, probability in zip(heard.faces, heard.probabilities, strict=True):
                    number = len(visit.faces)
                    shown = spoken_face(
                        visits.head, face.to("cpu"), probability, number, visit.folder, sliders
                    )
                    visit.faces.append(shown)
                    exchange.faces.append(number)
                    visit.selected = number
            yield
    except FaceGPTError as error:
        exchange.error = sentence(error)
        yield
    except Exception:
        LOG.exception("a question could not be answered")
        exchange.error = "Something went wrong here; the terminal of the demo says what. Ask again, please."
        yield


def _look(visits: Visits, visit: Visit, exchange: Exchange) -> Image.Image | None:
    """The picture of a question as the model gets it; the upload itself is deleted."""
    upload = exchange.upload
    if upload is None:
        return None
    try:
        image, exchange.note = read_picture(upload)
    except FaceGPTError as error:
        raise type(error)(str(error).replace(printable(upload), "the picture")) from None
    finally:
        if upload in visit.uploads:
            visits.drop_upload(visit, upload)
    exchange.note = sentence(exchange.note.replace(printable(upload), "the picture"))
    exchange.picture = visit.keep_picture(image)
    return image


def spoken(session: ChatSession, text: str, image: Image.Image | None) -> Iterator[str | Turn]:
    """The reply piece by piece and, last, whole. Closed early, it stops the model at its next word."""
    heard: queue.Queue[str | Turn | BaseException] = queue.Queue()
    left = threading.Event()

    def on_text(piece: str) -> None:
        if left.is_set():
            raise VisitorLeft
        heard.put(piece)

    def say() -> None:
        try:
            heard.put(session.say(text, image, on_text))
        except BaseException as error:
            heard.put(error)

    voice = threading.Thread(target=say, daemon=True)
    voice.start()
    try:
        while True:
            piece = heard.get()
            if isinstance(piece, BaseException):
                raise piece
            yield piece
            if isinstance(piece, Turn):
                return
    finally:
        left.set()
        voice.join()


def sentence(words: object) -> str:
    """An error's or a note's words as a sentence of a page."""
    text = str(words).strip()
    return text and text[0].upper() + text[1:] + ("" if text[-1] in ".!?)" else ".")

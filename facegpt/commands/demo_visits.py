"""`facegpt demo`: who is there. Every visitor has a conversation, its faces and a folder of their own."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from facegpt.chat import ChatSession
from facegpt.commands.demo_faces import ShownFace
from facegpt.head.model import HeadModel
from facegpt.model.facegpt import FaceGPT

IDLE_SECONDS = 3600.0  # after which a visit is over, whoever forgot to close the page
OURS = ("visits", "examples")  # folders beside those of the uploads
MOST_VISITS = 200  # at a time; the one that has been idle longest makes room


@dataclass
class Exchange:
    """One question and what has come of it so far.

    picture: what was shown, as the visit's own small copy. faces: numbers of the reply's faces.
    """

    text: str
    upload: Path | None = None
    picture: Path | None = None
    reply: str = ""
    note: str = ""
    error: str = ""
    faces: list[int] = field(default_factory=list)
    waiting: bool = True


@dataclass
class Visit:
    """One open page. selected: number of the face that the sliders move, -1 without one."""

    session: ChatSession
    folder: Path
    exchanges: list[Exchange] = field(default_factory=list)
    faces: list[ShownFace] = field(default_factory=list)
    uploads: set[Path] = field(default_factory=set)
    selected: int = -1
    beside: int = -1
    last_used: float = field(default_factory=time.monotonic)

    def start_over(self) -> None:
        """Forget everything, and delete its files."""
        self.session.reset()
        self.exchanges, self.faces, self.selected, self.beside = [], [], -1, -1
        for file in self.folder.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()

    def keep_picture(self, picture: Image.Image) -> Path:
        """A small copy of a picture that was shown, for the page."""
        small = picture.copy()
        small.thumbnail((448, 448))
        handle, name = tempfile.mkstemp(prefix="shown_", suffix=".jpg", dir=self.folder)
        with open(handle, "wb") as file:
            small.save(file, format="JPEG", quality=88)
        return Path(name)


class Visits:
    """All open visits by the name that gradio gives a page. `folder` holds what visitors brought and got."""

    def __init__(self, model: FaceGPT, head: HeadModel, folder: Path, max_new_tokens: int = 128) -> None:
        self.model, self.head, self.folder, self.max_new_tokens = model, head, folder, max_new_tokens
        self._visits = folder / OURS[0]
        self._visits.mkdir()
        self._open: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> Visit:
        """The visit of this page, opened with its first question."""
        with self._lock:
            self._tidy()
            if name not in self._open:
                if len(self._open) >= MOST_VISITS:
                    self._close(min(self._open, key=lambda key: self._open[key].last_used))
                session = ChatSession(self.model, self.max_new_tokens)
                place = Path(tempfile.mkdtemp(dir=self._visits))
                self._open[name] = Visit(session, place)
            visit = self._open[name]
            visit.last_used = time.monotonic()
            return visit

    def leave(self, name: str) -> None:
        """The page was closed: what it brought and got is deleted."""
        with self._lock:
            if name in self._open:
                self._close(name)

    def drop_upload(self, visit: Visit, upload: Path) -> None:
        """Delete a used upload, unless another visitor has brought the same one: gradio keeps one copy."""
        with self._lock:
            visit.uploads.discard(upload)
            self._delete(upload)

    def _tidy(self) -> None:
        """Close what is idle, and delete uploads that were never sent."""
        now = time.monotonic()
        for name in [key for key, visit in self._open.items() if now - visit.last_used > IDLE_SECONDS]:
            self._close(name)
        for place in self.folder.iterdir():  # what is not ours is gradio's: a folder for every upload
            if place.name not in OURS and time.time() - place.stat().st_mtime > IDLE_SECONDS:
                shutil.rmtree(place, ignore_errors=True)

    def _close(self, name: str) -> None:
        visit = self._open.pop(name)
        shutil.rmtree(visit.folder, ignore_errors=True)
        for upload in visit.uploads:
            self._delete(upload)

    def _delete(self, upload: Path) -> None:
        if not any(upload in other.uploads for other in self._open.values()):
            upload.unlink(missing_ok=True)

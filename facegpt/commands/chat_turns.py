"""`facegpt chat`: the model opened, and the turns of a chat written into files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Protocol

import transformers
from PIL import Image

from facegpt.chat import Turn
from facegpt.commands.chat_picture import read_picture
from facegpt.errors import CheckpointError
from facegpt.export.coefficients import named_coefficients
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.files import atomic_path, take_lock, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.machine import choose_device
from facegpt.model.checkpoint import load_facegpt
from facegpt.model.facegpt import FaceGPT
from facegpt.visualize import head_picture

PICTURE_SIZE = 512


class ModelSettings(Protocol):
    """Those of a verb's keys that say which model speaks."""

    head: str
    backbone: str | None
    device: str


def open_model(settings: ModelSettings, checkpoint: Path) -> tuple[FaceGPT, HeadModel]:
    """The model of a checkpoint, on the device of the settings, and the head it speaks of."""
    transformers.utils.logging.disable_progress_bar()  # of loading weights, a second or two
    device = choose_device(settings.device)
    head = HeadModel.open(settings.head)
    model, _ = load_facegpt(checkpoint, head, device, backbone=settings.backbone, merge=True)
    return model, head


def strange_face(checkpoint: Path, error: ValueError) -> CheckpointError:
    """The sentence for parameters that are not finite or huge: the model has diverged."""
    return CheckpointError(f"the model of {checkpoint} speaks a face that is none: {error}")


def show_picture(path: Path, landmarks: Path | None = None) -> Image.Image:
    """The picture as the model gets it; what there is to say of it goes to stderr."""
    image, note = read_picture(path, landmarks)
    if note:
        print(note, file=sys.stderr)
    return image


class Writer:
    """Writes the turns of one chat into a folder, beside what is there: no file is removed or replaced."""

    def __init__(self, head: HeadModel, folder: Path, rigged: bool = False) -> None:
        self.head, self.folder, self.rigged = head, folder, rigged
        self.texts: list[str] = []
        self.reply: Path | None = None  # chosen when the first turn is written

    def write(self, turn: Turn) -> list[Path]:
        """Write the faces of a turn and the chat's text so far; returns the faces' GLB files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files = []
        with locked(self.folder):
            if self.reply is None:
                names = (f"reply_{number}.txt" if number else "reply.txt" for number in count())
                self.reply = next(path for name in names if not (path := self.folder / name).exists())
            number = first_free_number(self.folder)
            for face, probability in zip(turn.faces, turn.probabilities, strict=True):
                files.append(self._write_face(f"face_{number}", face.to("cpu"), probability))
                number += 1
            self.texts.append(turn.text)
            with atomic_path(self.reply) as path:
                path.write_text("\n".join(self.texts) + "\n", encoding="utf-8")
        return files

    def _write_face(self, name: str, face: FaceParameters, probability: float) -> Path:
        coefficients = named_coefficients(face, self.head)
        file = self.folder / f"{name}.glb"
        write_mesh(self.head, face, file)
        if self.rigged:
            export_rigged_head(self.head, face, self.folder / f"{name}_rigged.glb")
        description = {"head_id": self.head.id, "probability": probability, "coefficients": coefficients}
        write_json(self.folder / f"{name}.json", description)
        return file


def write_mesh(head: HeadModel, face: FaceParameters, file: Path) -> Image.Image:
    """Write the mesh of a face as `file`, a GLB, and a picture of it beside it, a PNG; returns the picture.

    Raises ValueError, before anything is written, for parameters that are not finite or huge.
    """
    picture = head_picture(head, face, PICTURE_SIZE)  # first what can fail on a strange face
    export_mesh(head.mesh(face), file)
    with atomic_path(file.with_suffix(".png")) as path:
        picture.save(path)
    return picture


def first_free_number(folder: Path) -> int:
    """One more than the largest number of a `face_NUMBER...` in the folder, whoever made it."""
    found = (re.match(r"face_(\d{1,9})(?!\d)", file.name) for file in folder.iterdir())
    return max((int(match.group(1)) + 1 for match in found if match), default=0)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other chats from writing into the folder meanwhile; they wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        take_lock(handle)
        yield
    finally:
        os.close(handle)  # and with it the lock

"""facegpt chat --checkpoint RUN --out DIR --prompt "..." [--image FILE]

Asks a trained model once and writes DIR/reply.txt and, for every `<FACE>` of the reply, DIR/face_0.glb,
face_0.png and face_0.json (its coefficients by name); with --rigged also face_0_rigged.glb, which Blender,
three.js or a game engine can animate. What is in DIR already stays: faces are numbered on, and a further
reply is reply_1.txt. A reply without a face is an answer like any other; with --expect-face it is an error,
exit code 3.

Without --prompt it chats until the input ends: `/image FILE` shows a picture with the next message, `/new`
starts over, `/quit` leaves. --image takes a crop around one face, as in training; with --landmarks FILE it
takes any photograph and cuts the crop itself.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from PIL import Image

from facegpt.chat import ChatSession, Turn, check_text, newest_checkpoint
from facegpt.commands.output import check_output
from facegpt.config import MISSING, parse_config
from facegpt.errors import CheckpointError, FaceGPTError, LandmarkError
from facegpt.export.coefficients import named_coefficients
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.files import atomic_path, take_lock, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.machine import choose_device
from facegpt.model.checkpoint import load_facegpt
from facegpt.perception.align import crop_face
from facegpt.perception.images import read_image
from facegpt.perception.landmark_files import read_landmarks
from facegpt.visualize import head_picture

PICTURE_SIZE = 512
NO_FACE_CODE = 3  # exit code of --expect-face


@dataclass
class ChatSettings:
    """checkpoint: a run or one of its checkpoints.
    out: folder for reply and faces.
    prompt: what to say; without it, an interactive chat.
    image: a picture that goes with the (first) message.
    landmarks: 68 or 51 landmarks of the image, .pts or .npy, to crop it by.
    head: "builtin" or the head file used in training.
    rigged: write every face as a rigged GLB too.
    expect_face: a reply to the prompt that has no face is an error.
    backbone: where the vision-language model lies, if it has moved.
    device: cuda or cpu; auto is the GPU where there is one.
    max_new_tokens: the longest reply.
    temperature: 0 takes the likeliest token.
    seed: of the draws at a temperature above 0.
    """

    checkpoint: Path = MISSING
    out: Path = MISSING
    prompt: str | None = None
    image: Path | None = None
    landmarks: Path | None = None
    head: str = "builtin"
    rigged: bool = False
    expect_face: bool = False
    backbone: str | None = None
    device: str = "auto"
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}, at least 1 is needed")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}, 0 or more is needed")
        if self.landmarks is not None and self.image is None:
            raise ValueError(f"landmarks={self.landmarks} is given without the image that it belongs to")
        if self.expect_face and self.prompt is None:
            raise ValueError("expect_face goes with a prompt")


def main(argv: Sequence[str]) -> int:
    settings = parse_config(ChatSettings, argv, __doc__)
    # Everything that is cheap to check comes before the model is loaded.
    if settings.prompt is not None:
        check_text(settings.prompt)
    check_output(settings.out, folder=True)
    checkpoint = newest_checkpoint(settings.checkpoint)
    image = read_picture(settings.image, settings.landmarks)
    device = choose_device(settings.device)
    head = HeadModel.open(settings.head)
    model, _ = load_facegpt(checkpoint, head, device, backbone=settings.backbone)
    session = ChatSession(model, settings.max_new_tokens, settings.temperature, settings.seed)
    writer = Writer(head, settings.out, settings.rigged)
    try:
        if settings.prompt is None:
            converse(session, writer, image)
            return 0
        turn = session.say(settings.prompt, image)
        show(turn, writer.write(turn))
    except ValueError as error:  # a face of NaN or of a size beyond all bounds
        raise CheckpointError(f"the model of {checkpoint} speaks a face that is none: {error}") from None
    if settings.expect_face and not turn.faces:
        print("error: the reply has no face; ask in other words, or train longer", file=sys.stderr)
        return NO_FACE_CODE
    return 0


def read_picture(path: Path | None, landmarks: Path | None) -> Image.Image | None:
    """The picture, cropped where landmarks are given; None without a path."""
    if path is None:
        return None
    image = read_image(path)
    if landmarks is None:
        return image
    points, _ = read_landmarks(landmarks)
    try:
        return crop_face(image, points)[0]
    except LandmarkError as error:
        raise LandmarkError(f"{landmarks} does not fit {path}: {error}") from None


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
        picture = head_picture(self.head, face, PICTURE_SIZE)  # first what can fail on a strange face
        coefficients = named_coefficients(face, self.head)
        file = self.folder / f"{name}.glb"
        export_mesh(self.head.mesh(face), file)
        if self.rigged:
            export_rigged_head(self.head, face, self.folder / f"{name}_rigged.glb")
        with atomic_path(self.folder / f"{name}.png") as path:
            picture.save(path)
        description = {"head_id": self.head.id, "probability": probability, "coefficients": coefficients}
        write_json(self.folder / f"{name}.json", description)
        return file


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


def converse(session: ChatSession, writer: Writer, image: Image.Image | None) -> None:
    """Read messages until the input ends; one that cannot be answered is reported and the chat goes on."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no UTF-8 are refused as a message
    while True:
        try:
            text = input("you> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        try:
            if text == "/quit":
                return
            if text == "/new":
                session.reset()
            elif text.startswith("/image"):
                image = read_image(text.removeprefix("/image").strip())
                print("the picture goes with your next message")
            elif text:
                turn = session.say(text, image)
                image = None
                show(turn, writer.write(turn))
        except FaceGPTError as error:
            print(f"error: {error}", file=sys.stderr)


def show(turn: Turn, files: list[Path]) -> None:
    """Print what was said and which files were written."""
    print(turn.text or "(the model said nothing)")
    for file in files:
        print(f"wrote {file}")

"""facegpt chat --checkpoint RUN --prompt "..." [--image FILE] --out DIR

Asks a trained model once and writes DIR/reply.txt and, for every `<FACE>` of the reply, DIR/face_0.glb,
face_0.png and face_0.json (its coefficients by name); with --rigged also face_0_rigged.glb, which Blender,
three.js or a game engine can animate. Without --prompt it chats until the input ends:
`/image FILE` shows a picture with the next message, `/new` starts over, `/quit` leaves; faces are then
numbered through the whole chat. --image takes a crop around one face, as in training; with --landmarks FILE
it takes any photograph and cuts the crop itself.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import torch
from PIL import Image

from facegpt.chat import ChatSession, Turn, check_text, newest_checkpoint
from facegpt.errors import ConfigError, FaceGPTError, LandmarkError
from facegpt.export.coefficients import named_coefficients
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.model.checkpoint import load_facegpt
from facegpt.perception.align import crop_face
from facegpt.perception.images import read_image
from facegpt.perception.landmark_files import read_landmarks
from facegpt.visualize import head_picture

PICTURE_SIZE = 512


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        # Everything that is cheap to check comes before the model is loaded.
        check(options)
        checkpoint = newest_checkpoint(options.checkpoint)
        image = read_picture(options.image, options.landmarks)
        head = HeadModel.open(options.head)
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, _ = load_facegpt(checkpoint, head, device, backbone=options.backbone)
        session = ChatSession(model, options.max_new_tokens, options.temperature, options.seed)
        writer = Writer(head, options.out, options.rigged)
        if options.prompt is None:
            converse(session, writer, image)
        else:
            turn = session.say(options.prompt, image)
            writer.write(turn)
            show(turn, writer)
    except (FaceGPTError, OSError, ValueError) as error:
        print(f"chat: {error}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, type=Path, help="a run or one of its checkpoints")
    parser.add_argument("--prompt", help="what to say; without it, an interactive chat")
    parser.add_argument("--image", type=Path, help="a picture that goes with the (first) message")
    parser.add_argument("--landmarks", type=Path, help="landmarks of --image, .pts or .npy, to crop it by")
    parser.add_argument("--out", required=True, type=Path, help="folder for reply and faces")
    parser.add_argument("--head", default="builtin", help='"builtin" or the head file used in training')
    parser.add_argument("--rigged", action="store_true", help="write every face as a rigged GLB too")
    parser.add_argument("--backbone", help="where the vision-language model lies, if it has moved")
    parser.add_argument("--device", help="cuda or cpu; default: the GPU where there is one")
    parser.add_argument("--max-new-tokens", default=256, type=int)
    parser.add_argument("--temperature", default=0.0, type=float, help="0 takes the likeliest token")
    parser.add_argument("--seed", default=0, type=int, help="of the draws at a temperature above 0")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Raise ConfigError or SampleError for values that could not be used later."""
    if options.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens is {options.max_new_tokens}, at least 1 is needed")
    if not 0 <= options.temperature < float("inf"):
        raise ConfigError(f"--temperature is {options.temperature}, 0 or more is needed")
    if options.landmarks is not None and options.image is None:
        raise ConfigError(f"{options.landmarks} is given without the --image that it belongs to")
    if options.prompt is not None:
        check_text(options.prompt)


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
    """Writes turns into a folder; faces are numbered from 0, results of an earlier chat there are removed."""

    def __init__(self, head: HeadModel, folder: Path, rigged: bool = False) -> None:
        self.head, self.folder, self.rigged = head, folder, rigged
        self.faces = 0
        self.texts: list[str] = []

    def write(self, turn: Turn) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.texts:
            for old in self.folder.iterdir():
                if re.fullmatch(r"face_\d+(_rigged\.glb|\.(glb|png|json))|reply\.txt", old.name):
                    old.unlink()
        for face, probability in zip(turn.faces, turn.probabilities, strict=True):
            name = f"face_{self.faces}"
            face = face.to("cpu")
            export_mesh(self.head.mesh(face), self.folder / f"{name}.glb")
            if self.rigged:
                export_rigged_head(self.head, face, self.folder / f"{name}_rigged.glb")
            with atomic_path(self.folder / f"{name}.png") as path:
                head_picture(self.head, face, PICTURE_SIZE).save(path)
            coefficients = named_coefficients(face, self.head)
            description = {"head_id": self.head.id, "probability": probability, "coefficients": coefficients}
            write_json(self.folder / f"{name}.json", description)
            self.faces += 1
        self.texts.append(turn.text)
        with atomic_path(self.folder / "reply.txt") as path:
            path.write_text("\n".join(self.texts) + "\n", encoding="utf-8")


def converse(session: ChatSession, writer: Writer, image: Image.Image | None) -> None:
    """Read messages until the input ends; one that cannot be answered is reported and the chat goes on."""
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
                writer.write(turn)
                show(turn, writer)
        except FaceGPTError as error:
            print(f"chat: {error}", file=sys.stderr)


def show(turn: Turn, writer: Writer) -> None:
    print(turn.text or "(the model said nothing)")
    for number in range(writer.faces - len(turn.faces), writer.faces):
        print(f"wrote {writer.folder / f'face_{number}'}.glb and .png")


if __name__ == "__main__":
    sys.exit(main())

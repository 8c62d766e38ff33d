"""`facegpt chat`: one prompt, or a conversation line by line, typed or piped, with a few commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import Image

from facegpt.chat import ChatSession, Turn, check_text, newest_checkpoint
from facegpt.commands.chat_expression import expression_names, find_components, read_strength
from facegpt.commands.chat_settings import ChatSettings
from facegpt.commands.chat_terminal import Way, as_text, way_of
from facegpt.commands.chat_turns import Writer, open_model, show_picture, strange_face
from facegpt.commands.output import check_output
from facegpt.errors import FaceGPTError, SampleError
from facegpt.parts import home

HELP = """\
/image FILE          show a picture with your next message
/expression NAME X   the last face with a movement of strength X, from 0 (absent) to 1 (full), as in
                     `/expression smile 0.5`; without NAME, the names
/save DIR            all that was said, and every face, rigged too, into another folder
/reset               start over: what was said and shown is forgotten
/quit                leave (Ctrl-D does too)
Anything else is said to the model. The up key brings back what you typed before."""
HISTORY_LINES = 1000
KINDS = ("glb", "png", "json")  # files of every face
NO_FACE_CODE = 3  # exit code of --expect-face


def talk(settings: ChatSettings) -> int:
    """Say the prompt, or what is typed, and write what the model answers; the exit code."""
    # Everything that is cheap to check comes before the model is loaded.
    if settings.prompt is not None:
        check_text(settings.prompt)
    check_output(settings.out, folder=True)
    checkpoint = newest_checkpoint(settings.checkpoint)
    image = None if settings.image is None else show_picture(settings.image, settings.landmarks)
    model, head = open_model(settings, checkpoint)
    session = ChatSession(model, settings.max_new_tokens, settings.temperature, settings.seed)
    writer = Writer(head, settings.out, settings.rigged)
    way = None if settings.json else way_of(sys.stdout) if settings.pictures == "auto" else settings.pictures
    conversation = Conversation(session, writer, image, None if way == "none" else way, settings.json)
    try:
        if settings.prompt is None:
            conversation.run()
            return 0
        turn = conversation.say(settings.prompt)
    except ValueError as error:  # a face of NaN or of a size beyond all bounds
        raise strange_face(checkpoint, error) from None
    if settings.expect_face and not turn.faces:
        print("error: the reply has no face; ask in other words, or train longer", file=sys.stderr)
        return NO_FACE_CODE
    return 0


class Conversation:
    """One chat at the terminal.

    way: how pictures are shown, None for not at all. as_json: a line for each reply, {"text", "faces"} or
    {"error"}, and nothing else on stdout.
    """

    def __init__(
        self,
        session: ChatSession,
        writer: Writer,
        image: Image.Image | None = None,
        way: Way | None = None,
        as_json: bool = False,
    ) -> None:
        self.session, self.writer, self.image = session, writer, image
        self.way, self.as_json = way, as_json
        self.turns: list[Turn] = []
        self.commands: dict[str, Callable[[str], None]] = {
            "/image": self.show,
            "/expression": self.express,
            "/save": self.save,
            "/reset": self.reset,
            "/new": self.reset,
            "/help": lambda rest: self.tell(HELP),
        }

    def run(self) -> None:
        """Read lines until the input ends; one that cannot be answered is reported and the chat goes on."""
        typed = sys.stdin.isatty()
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is refused as a message
        save_history = load_history() if typed else None
        if typed:
            self.tell(f"Say something, or /help. Faces are written into {self.writer.folder}")
        while True:
            try:
                line = input("you> " if typed else "").strip()
            except (EOFError, KeyboardInterrupt):
                break
            if line == "/quit":
                break
            try:
                self.take(line)
            except KeyboardInterrupt:
                self.tell("\n(stopped)")
            except FaceGPTError as error:
                self.complain(str(error))
        if typed:
            print()
        if save_history:
            save_history()

    def take(self, line: str) -> None:
        """Do what one line says. Raises FaceGPTError."""
        word, _, rest = line.partition(" ")
        if word in self.commands:
            self.commands[word](rest.strip())
        elif word.startswith("/"):
            raise SampleError(f"there is no command {word[:40]}; /help lists them")
        elif line:
            self.say(line)

    def say(self, text: str) -> Turn:
        """A message to the model, and its reply to the screen and into files."""
        stream = self.way is not None and not self.as_json
        turn = self.session.say(text, self.image, _print_piece if stream else None)
        self.image = None
        if stream:
            print("" if turn.text else "(the model said nothing)")
        elif not self.as_json:
            print(turn.text or "(the model said nothing)")
        self.present(turn)
        return turn

    def present(self, turn: Turn) -> None:
        """Write the faces of a turn and show them."""
        files = self.writer.write(turn)
        self.turns.append(turn)
        if self.as_json:
            faces = [
                {"probability": likely, **{kind: str(file.with_suffix(f".{kind}")) for kind in KINDS}}
                for file, likely in zip(files, turn.probabilities, strict=True)
            ]
            print(json.dumps({"text": turn.text, "faces": faces}), flush=True)
            return
        for file in files:
            if self.way:
                with Image.open(file.with_suffix(".png")) as picture:
                    sys.stdout.write(as_text(picture, self.way))
            print(f"wrote {file} and its .png and .json", flush=True)

    def show(self, rest: str) -> None:
        """/image FILE"""
        if not rest:
            raise SampleError("which picture? write /image FILE")
        self.image = show_picture(_path(rest))
        self.tell("the picture goes with your next message")

    def express(self, rest: str) -> None:
        """/expression NAME X"""
        names = expression_names(self.writer.head)
        if not rest:
            return self.tell("the movements of this head: " + ", ".join(names))
        last = next((turn for turn in reversed(self.turns) if turn.faces), None)
        if last is None:
            raise SampleError("there is no face yet; ask for one first")
        word, _, number = rest.partition(" ")
        which, strength = find_components(word, names), read_strength(number)
        expression = last.faces[-1].expression.clone()
        expression[:, which] = strength
        said = f"({' and '.join(names[k] for k in which)} at {strength:g})"
        self.present(Turn(said, [last.faces[-1].replace(expression=expression)], last.probabilities[-1:]))

    def save(self, rest: str) -> None:
        """/save DIR"""
        if not rest:
            raise SampleError("into which folder? write /save DIR")
        folder = _path(rest)
        check_output(folder, folder=True)
        writer = Writer(self.writer.head, folder, rigged=True)
        files = [file for turn in self.turns for file in writer.write(turn)]
        self.tell(f"saved {len(self.turns)} replies and {len(files)} faces into {folder}")

    def reset(self, rest: str) -> None:
        """/reset"""
        self.session.reset()
        self.turns, self.image = [], None
        self.tell("a new conversation")

    def tell(self, sentence: str) -> None:
        """Say something that is not the model's."""
        print(sentence, file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def complain(self, sentence: str) -> None:
        """Report what went wrong."""
        if self.as_json:
            print(json.dumps({"error": sentence}), flush=True)
        else:
            print(f"error: {sentence}", file=sys.stderr)


def _path(typed: str) -> Path:
    """A path as people type or drop it into a terminal: quoted, or from the home folder."""
    path = Path(typed.strip("'\""))
    with suppress(RuntimeError):  # ~somebody, who is not known here
        path = path.expanduser()
    return path


def _print_piece(piece: str) -> None:
    print(piece, end="", flush=True)


def load_history() -> Callable[[], None] | None:
    """Let the up key bring back earlier lines, also of earlier chats; returns what keeps them for the next.

    None where this Python has no readline. The file is for its owner alone.
    """
    try:
        import readline
    except ImportError:
        return None
    file = home() / "chat_history"
    with suppress(OSError):
        readline.read_history_file(file)

    def save() -> None:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.set_history_length(HISTORY_LINES)
            readline.write_history_file(file)

    return save

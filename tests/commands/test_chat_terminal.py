"""Pictures in a terminal, each way read back by a decoder of its own, and a chat behind a pseudo-terminal."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import select
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_head import small_head

from facegpt.chat import Turn
from facegpt.commands.chat_expression import find_components, read_strength
from facegpt.commands.chat_repl import Conversation
from facegpt.commands.chat_terminal import CHUNK, as_text, half_blocks, sixels, way_of
from facegpt.errors import SampleError
from facegpt.sample import FACE_TOKEN

TERMINAL = SimpleNamespace(isatty=lambda: True, write=lambda text: None, flush=lambda: None)


def picture(width: int = 37, height: int = 25) -> Image.Image:
    """Few colours, so that a palette can hold them exactly."""
    pixels = np.random.default_rng(0).integers(0, 4, (height, width, 3)) * 85
    return Image.fromarray(pixels.astype(np.uint8))


def test_kitty_gets_the_png_in_pieces_of_its_size() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    text = as_text(Image.fromarray(noise), "kitty")
    commands = re.findall(r"\033_G([^;]*);([^\033]*)\033\\", text)
    assert len(commands) > 2 and all(len(part) <= CHUNK for _, part in commands)
    assert [keys.rpartition("m=")[2] for keys, _ in commands] == ["1"] * (len(commands) - 1) + ["0"]
    shown = Image.open(io.BytesIO(base64.b64decode("".join(part for _, part in commands))))
    assert np.array_equal(np.asarray(shown), noise)


def test_iterm2_gets_the_whole_png() -> None:
    match = re.fullmatch(r"\033\]1337;File=inline=1;size=(\d+):(.*)\a\n", as_text(picture(), "iterm2"))
    assert match and len(content := base64.b64decode(match.group(2))) == int(match.group(1))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(picture()))


def test_sixels_are_the_picture() -> None:
    text = sixels(picture())
    match = re.fullmatch(r'\033Pq"1;1;37;25(.*)\033\\', text, re.DOTALL)
    assert match
    colors: dict[int, list[int]] = {}
    shown = np.full((30, 37, 3), -1)
    row = column = color = 0
    for token in re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+.|[$-]|[?-~]", match.group(1)):
        if token == "$":
            column = 0
        elif token == "-":
            row, column = row + 6, 0
        elif token[0] == "#":
            color, *rest = map(int, token[1:].split(";"))
            if rest:
                colors[color] = rest[1:]
        else:
            count = int(token[1:-1]) if token[0] == "!" else 1
            for bit in range(6):
                if (ord(token[-1]) - 63) >> bit & 1:
                    shown[row + bit, column : column + count] = colors[color]
            column += count
    assert np.array_equal(shown[:25], np.round(np.asarray(picture()) / 2.55)) and (shown[25:] == -1).all()


def test_half_blocks_are_two_pixels_each() -> None:
    flat = picture(8, 12)
    cells = re.findall(r"38;2;(\d+);(\d+);(\d+)m\033\[48;2;(\d+);(\d+);(\d+)m▀", half_blocks(flat, 8))
    shown = np.asarray(cells, int).reshape(6, 8, 2, 3).transpose(0, 2, 1, 3).reshape(12, 8, 3)
    assert np.array_equal(shown, np.asarray(flat))


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "tmux-256color", "TMUX": "/x", "KITTY_WINDOW_ID": "1"}, "blocks"),
        ({"TERM": "dumb"}, None),
    ],
)
def test_a_terminal_is_known_by_its_environment(environment: dict[str, str], way: str | None) -> None:
    assert way_of(TERMINAL, environment) == way  # type: ignore[arg-type]
    assert way_of(io.StringIO(), environment) is None


def test_a_movement_is_meant_by_its_name_or_a_part_of_it() -> None:
    names = ["mouthSmileLeft", "mouthSmileRight", "jawLeft", "jawRight", "jawForward", "browInnerUp"]
    assert find_components("smile", names) == find_components("MouthSmile", names) == [0, 1]
    assert find_components("mouthSmileRight", names) == [1] and find_components("inner", names) == [5]
    with pytest.raises(SampleError, match="aw can be jaw, jawForward; say which"):
        find_components("aw", names)
    with pytest.raises(SampleError, match="did you mean mouthSmile"):
        find_components("smlie", names)
    for number in ("", "much", "nan", "1e9"):
        with pytest.raises(SampleError, match="how strong"):
            read_strength(number)


def talk_in_terminal(folder: Path, type_and_read: Callable[[int, Callable[[str], str]], None]) -> int:
    """A chat with a model that repeats what it hears, behind a pseudo-terminal; its exit code."""
    process, screen = pty.fork()
    if process == 0:
        code = 1
        try:
            os.environ.update(TERM="xterm-256color", FACEGPT_HOME=str(folder))
            for name in ("TMUX", "KITTY_WINDOW_ID", "TERM_PROGRAM"):
                os.environ.pop(name, None)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in enumerate("rww"))
            face = small_head().mean_parameters()

            def say(text: str, image: object, hear: Callable[[str], None]) -> Turn:
                hear(f"heard {text} {FACE_TOKEN}")
                return Turn(f"heard {text} {FACE_TOKEN}", [face], [0.5])

            def write(turn: Turn) -> list[Path]:
                picture().save(folder / "face_0.png")
                return [folder / "face_0.glb" for _ in turn.faces]

            writer = SimpleNamespace(head=small_head(), folder=folder, write=write)
            session = SimpleNamespace(say=say, reset=lambda: None)
            Conversation(session, writer, way=way_of(sys.stdout)).run()  # type: ignore[arg-type]
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)

    unread = ""

    def read_until(sign: str) -> str:
        nonlocal unread
        end = time.monotonic() + 600
        while sign not in unread:
            assert select.select([screen], [], [], max(0, end - time.monotonic()))[0], unread
            unread += os.read(screen, 65536).decode()
        shown, _, unread = unread.partition(sign)
        return shown

    type_and_read(screen, read_until)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_a_chat_in_a_terminal_shows_faces_and_knows_what_was_typed(tmp_path: Path) -> None:
    pytest.importorskip("readline", reason="this Python has no readline")

    def type_and_read(screen: int, read_until: Callable[[str], str]) -> None:
        read_until("\033[c")
        os.write(screen, b"\033[?62;4;22c")  # a terminal with sixels
        assert "/help" in read_until("you> ")
        os.write(screen, b"Hello\n")
        shown = read_until("wrote ")
        assert f"heard Hello {FACE_TOKEN}" in shown and '\033Pq"1;1;37;25' in shown
        read_until("you> ")
        os.write(screen, b"/help\n")
        assert "/expression NAME X" in read_until("you> ")
        os.write(screen, b"\033[A\033[A\n")  # up, up
        assert f"heard Hello {FACE_TOKEN}" in read_until("wrote ")
        read_until("you> ")
        os.write(screen, b"/nonsense\n")
        assert "there is no command /nonsense" in read_until("you> ")
        os.write(screen, b"\004")

    assert talk_in_terminal(tmp_path, type_and_read) == 0
    history = tmp_path / "chat_history"
    assert history.read_text().splitlines() == ["Hello", "/help", "Hello", "/nonsense"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600

"""Pictures in the terminal, by whichever of four ways it knows: kitty's, iTerm2's, sixels, or half blocks."""

from __future__ import annotations

import base64
import io
import os
import re
import select
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Literal, TextIO

import numpy as np
from PIL import Image

Way = Literal["kitty", "iterm2", "sixel", "blocks"]
SIDE = 320  # pixels of a picture
CHUNK = 4096  # characters of base64 in one of kitty's commands, its limit
LEAST_COLUMNS, MOST_COLUMNS = 16, 64  # of half blocks
ANSWER_SECONDS = 0.3  # for a terminal to say what it is


def way_of(terminal: TextIO, environment: Mapping[str, str] = os.environ) -> Way | None:
    """How pictures are shown on this terminal; None where it is none, or a dumb one.

    kitty and iTerm2 (and those that follow them) are known by their environment; sixels by what the terminal
    answers when it is asked for its attributes. All others get half blocks in 24-bit colour.
    """
    name, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if not terminal.isatty() or name in ("", "dumb"):
        return None
    if "TMUX" in environment or name.startswith(("screen", "tmux")):
        return "blocks"  # tmux lets the other ways through only where it is told to
    if "KITTY_WINDOW_ID" in environment or name in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty"):
        return "iterm2"
    return "sixel" if "4" in _attributes(terminal) else "blocks"


def _attributes(terminal: TextIO) -> list[str]:
    """What the terminal says of itself (primary device attributes); 4 means sixels."""
    try:
        import termios
        import tty

        source = sys.stdin.fileno()
        before = termios.tcgetattr(source)
    except (ImportError, OSError, ValueError, termios.error):  # no POSIX, or nobody at the keyboard
        return []
    reply, end = b"", time.monotonic() + ANSWER_SECONDS
    try:
        tty.setcbreak(source, termios.TCSANOW)
        terminal.write("\033[c")
        terminal.flush()
        while (left := end - time.monotonic()) > 0 and select.select([source], [], [], left)[0]:
            reply += os.read(source, 64)
            if match := re.search(rb"\033\[\?([\d;]*)c", reply):
                return match.group(1).decode().split(";")
    finally:
        termios.tcsetattr(source, termios.TCSANOW, before)
    return []


def as_text(picture: Image.Image, way: Way) -> str:
    """What to print for a picture to appear, its last line ended."""
    if way == "blocks":  # as large as fits, with lines to spare for what is said
        screen = shutil.get_terminal_size()
        fitting = min(screen.columns, 2 * (screen.lines - 4), MOST_COLUMNS)
        return half_blocks(picture, max(fitting, LEAST_COLUMNS))
    small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    if way == "sixel":
        return sixels(small) + "\n"
    file = io.BytesIO()
    small.save(file, "png")
    content = base64.b64encode(file.getvalue()).decode()
    if way == "iterm2":
        return f"\033]1337;File=inline=1;size={len(file.getvalue())}:{content}\a\n"
    parts = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    keys = ["a=T,f=100,q=2,"] + [""] * (len(parts) - 1)  # shown at once, a PNG, and no answer to it
    more = [1] * (len(parts) - 1) + [0]
    commands = (f"\033_G{key}m={m};{part}\033\\" for key, m, part in zip(keys, more, parts, strict=True))
    return "".join(commands) + "\n"


def half_blocks(picture: Image.Image, columns: int) -> str:
    """Two pixels in each character: the upper half block in one colour on a ground of the other."""
    rows = max(1, round(columns * picture.height / picture.width / 2))
    pixels = np.asarray(picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.BOX))
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (
            f"\033[38;2;{a[0]};{a[1]};{a[2]}m\033[48;2;{b[0]};{b[1]};{b[2]}m▀"
            for a, b in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\033[0m\n")
    return "".join(lines)


def sixels(picture: Image.Image, colors: int = 128) -> str:
    """A picture in DEC's format: six rows at a time, one pass for each colour that they have."""
    indexed = picture.convert("RGB").quantize(colors)
    pixels = np.asarray(indexed)  # (H, W) indices
    palette = np.asarray(indexed.getpalette()).reshape(-1, 3)
    height, width = pixels.shape
    parts = [f'\033Pq"1;1;{width};{height}']
    for color in np.unique(pixels).tolist():
        red, green, blue = (round(100 * int(value) / 255) for value in palette[color])
        parts.append(f"#{color};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        bits = 1 << np.arange(len(band))
        passes = []
        for color in np.unique(band).tolist():
            values = (band == color).T @ bits + 63  # (W,) characters
            text = "".join(map(chr, values.tolist()))
            runs = re.sub(r"(.)\1{3,}", lambda run: f"!{len(run.group())}{run.group(1)}", text)
            passes.append(f"#{color}{runs}")
        parts.append("$".join(passes) + "-")
    return "".join(parts) + "\033\\"

"""facegpt doctor [--head FILE] [--recognizer FILE] [--backbone DIR] [--json FILE]

Lists every part that facegpt can use: whether it is there and works, its version, hash and licence, what
works without it and where to get it. Downloads nothing, and never fails because an optional part is missing.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facegpt.commands.doctor_parts import Report, examine
from facegpt.commands.output import check_output
from facegpt.config import parse_config
from facegpt.files import write_json


@dataclass
class DoctorSettings:
    """head: your head file (FLAME .pkl, .npz, .safetensors).
    recognizer: your ArcFace file (.onnx, .pth, .safetensors).
    backbone: your folder of a LLaVA model.
    json: file for the whole report.
    """

    head: str | None = None
    recognizer: str | None = None
    backbone: str | None = None
    json: Path | None = None


def main(argv: Sequence[str]) -> None:
    settings = parse_config(DoctorSettings, argv, __doc__)
    if settings.json is not None:
        check_output(settings.json)
    report = examine(settings.head, settings.recognizer, settings.backbone)
    print(as_text(report, shutil.get_terminal_size().columns))
    if settings.json is not None:
        write_json(settings.json, report.as_dictionary())


def as_text(report: Report, width: int = 100) -> str:
    """The report for a terminal: an aligned table, notes, and what to do about absent parts."""
    core = ", ".join(f"{name} {version or '(missing)'}" for name, version in report.core.items())
    lines = [
        f"facegpt {report.facegpt}, Python {report.python}, {report.system}, {os.cpu_count()} cores",
        core,
        "",
    ]
    titles = ("part", "state", "version", "hash or id", "licence")
    rows = [titles, *((p.name, p.state, p.version, p.hash, p.license) for p in report.parts)]
    columns = [max(len(row[k]) for row in rows) for k in range(len(titles))]
    for row in rows:
        cells = [cell.ljust(column) for cell, column in zip(row, columns, strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines[3] += "\n" + "  ".join("-" * column for column in columns)
    absent = [part for part in report.parts if part.state != "found"]
    noted = [part for part in report.parts if part.state == "found" and part.note]
    margin = max((len(part.name) for part in [*absent, *noted]), default=0)
    if noted:
        lines += ["", "Notes"]
        lines += [_indented(part.name, part.note, margin, width) for part in noted]
    if absent:
        lines += ["", "Not there, and not needed for everything"]
    for part in absent:
        lines.append(_indented(part.name, f"{part.state}: {part.note}", margin, width))
        lines.append(_indented("", f"works without it: {part.without}", margin, width))
        lines.append(_indented("", f"where to get it: {part.source}", margin, width))
    return "\n".join(lines)


def _indented(name: str, text: str, margin: int, width: int) -> str:
    return textwrap.fill(
        text,
        max(width, margin + 40),
        initial_indent=f"  {name.ljust(margin)}  ",
        subsequent_indent=" " * (margin + 4),
        break_long_words=False,
        break_on_hyphens=False,
    )

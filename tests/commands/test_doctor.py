"""The doctor's script: a table, the same as JSON, and no failure because something is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from facegpt.commands import doctor as script
from facegpt.commands import doctor_parts as library


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_package", lambda *names: library.Finding("1.2"))
    monkeypatch.setattr(library, "choose", lambda name, device: name)


def test_it_prints_the_table_and_writes_the_same_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--json", str(tmp_path / "report.json"), "--head", "nowhere.pkl"]
    assert script.main(arguments) == 0
    shown = capsys.readouterr().out
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [part["name"] for part in saved["parts"]] == list(library.ABOUT)
    assert all(part["name"] in shown for part in saved["parts"])
    assert "nowhere.pkl" in shown


def test_a_report_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert script.main(["--json", str(tmp_path / "file" / "report.json")]) == 1
    error = capsys.readouterr().err
    assert "report.json cannot be written" in error and error.count("\n") == 1


@pytest.mark.parametrize("width", [60, 100, 200])
def test_the_table_is_aligned_and_the_notes_keep_to_the_width(width: int) -> None:
    report = library.examine()
    lines = script.as_text(report, width).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("part "))
    table = [lines[start], *lines[start + 2 :][: len(report.parts)]]
    columns = [match.start() for match in re.finditer(r"-+", lines[start + 1])]
    assert len(columns) == 5
    for line, names in zip(table[1:], report.parts, strict=True):
        cells = [line[a:b].strip() for a, b in zip(columns, [*columns[1:], None], strict=True)]
        assert cells == [names.name, names.state, names.version, names.hash, names.license]
    rest = lines[start + 2 + len(report.parts) :]
    assert max(map(len, rest)) <= width
    text = " ".join(" ".join(rest).split())
    for one in report.parts:
        if one.state != "found":
            assert f"works without it: {one.without}" in text and f"where to get it: {one.source}" in text

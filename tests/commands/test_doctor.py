"""The doctor's command: a table, the same as JSON, and no failure because something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facegpt.commands import doctor
from facegpt.commands import doctor_parts as library
from facegpt.config import run


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_package", lambda name: library.Finding("1.2"))
    monkeypatch.setattr(library, "choose", lambda name, device: name)


def test_it_prints_the_table_and_writes_the_same_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(doctor.main, ["--json", str(tmp_path / "report.json"), "--head", "nowhere.pkl"]) == 0
    shown = capsys.readouterr().out
    saved = json.loads((tmp_path / "report.json").read_text())
    assert [part["name"] for part in saved["parts"]] == list(library.ABOUT)
    assert "nowhere.pkl" in shown
    text = " ".join(shown.split())
    for part in saved["parts"]:
        row = next(line for line in shown.splitlines() if line.startswith(part["name"] + " "))
        assert part["state"] in row and part["version"] in row and part["license"] in row
        if part["state"] != "found":
            assert f"works without it: {part['without']}" in text and part["source"] in text


def test_a_report_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(doctor.main, ["--json", str(tmp_path / "file" / "report.json")]) == 1
    error = capsys.readouterr().err
    assert "report.json cannot be written" in error and error.count("\n") == 1

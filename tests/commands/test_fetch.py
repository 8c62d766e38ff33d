"""The verb that fetches: names, groups, the table without a name, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from facegpt.commands import fetch
from facegpt.config import run
from facegpt.errors import MissingPartError
from facegpt.parts import PARTS, SMALL, place


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are fetched; nothing is."""
    names: list[str] = []

    def fetch_part(name: str) -> Path:
        names.append(name)
        return place(name)

    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path))
    monkeypatch.setattr(fetch, "fetch_part", fetch_part)
    return names


def test_without_a_name_it_lists_the_parts_and_fetches_none(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place("sface").parent.mkdir(parents=True)
    place("sface").write_text("another file")
    assert run(fetch.main, []) == 0
    lines = capsys.readouterr().out.splitlines()
    for part in PARTS.values():
        (row,) = [line for line in lines if line.startswith(part.name + " ")]
        assert part.license in row and part.purpose in row and f"{part.size / 1e6:.1f} MB" in row
        assert ("damaged" if part.name == "sface" else "not found") in row
    assert str(tmp_path) in lines[-1] and asked == []


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["sface"], ["sface"]),
        (["sface", "face_landmarker"], ["sface", "face_landmarker"]),
        (["small"], list(SMALL)),
        (["all"], list(PARTS)),
        (["small", "all"], list(PARTS)),  # each once
        (["names=sface,face_landmarker"], ["sface", "face_landmarker"]),
        (["--names", "sface"], ["sface"]),
    ],
)
def test_names_and_groups_are_fetched_in_turn(
    words: list[str], names: list[str], asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fetch.main, words) == 0
    assert asked == names
    assert capsys.readouterr().out.splitlines() == [f"{name}: {place(name)}" for name in names]


@pytest.mark.parametrize("words", [["smal"], ["sface", "smal"], ["smal", "sface"], ["names=smal"]])
def test_an_unknown_name_is_refused_before_anything_is_fetched(
    words: list[str], asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fetch.main, words) == 2
    error = capsys.readouterr().err
    assert "there is no part 'smal'; there are face_landmarker" in error and error.count("\n") == 1
    assert asked == []


def test_a_part_that_cannot_be_had_is_one_sentence(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> Path:
        raise MissingPartError(f"{name} cannot be fetched")

    monkeypatch.setattr(fetch, "fetch_part", fail)
    assert run(fetch.main, ["small"]) == 1
    assert capsys.readouterr().err == "error: face_landmarker cannot be fetched\n"

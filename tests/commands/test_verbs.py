"""The `facegpt` command as a whole: its verbs, their help, exit codes, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import facegpt
from facegpt.__main__ import VERBS, main
from facegpt.config import run


def test_help_and_version_are_there_without_any_heavy_import(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from facegpt.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    root = Path(facegpt.__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    for verb, about in VERBS.items():
        assert sum(line.split() == [verb, *about.split()] for line in shown.stdout.splitlines()) == 1
    assert run(main, ["--version"]) == 0
    assert capsys.readouterr().out == f"facegpt {facegpt.__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [([], "a verb is missing"), (["chta"], "did you mean chat?"), (["--quiet"], "the verbs are chat")],
)
def test_what_is_no_verb_is_a_sentence(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and says in error and error.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_same_kind_of_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"facegpt {verb}") and "--config FILE.yaml" in text
    lines = text.splitlines()
    keys = [number for number, line in enumerate(lines) if line.startswith("  ") and line[2:3].isalpha()]
    keys = [number for number in keys if number > text[: text.index("Keys, as")].count("\n")]
    assert keys
    for number in keys:
        assert lines[number + 1].startswith("      "), f"{verb}: {lines[number].strip()} is not described"


@pytest.mark.parametrize("verb", VERBS)
def test_a_mistyped_key_and_a_missing_value_are_answered_alike(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["no_such_key=1"], ["--no-such-key", "1"], ["--config", "nowhere.yaml"], ["--head"]):
        assert run(main, [verb, *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1

"""Command lines in the documents and in the Makefile are understood by the programs that they call."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
import shutil
import subprocess

import pytest
from recipes import ROOT, load_recipe

from facegpt.__main__ import VERBS
from facegpt.config import parse_config

DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/heads.md",
    "docs/data.md",
    "docs/metrics.md",
    "docs/parts.md",
    "facegpt/assets/README.md",
)
FIRST = {
    "convert": ["face"],
    "import-head": ["kind", "folder"],
    "fetch": ["names"],
}  # keys that may be left out
CALL = re.compile(r"(?:^    |`)((?:python|deepspeed|torchrun|facegpt) [^`\n]+)", re.MULTILINE)


def command_lines() -> list[str]:
    found = [line for name in DOCUMENTS for line in CALL.findall((ROOT / name).read_text(encoding="utf-8"))]
    if shutil.which("make"):
        listed = subprocess.run(["make", "-n", "demo", "FAST=1"], cwd=ROOT, capture_output=True, text=True)
        found += re.split("\n| && ", listed.stdout)
    calls = {line.partition(" ||")[0].partition("  #")[0] for line in found}
    return sorted(line for line in calls if re.match("(python|deepspeed|torchrun|facegpt) ", line))


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_of_the_documents_is_understood(line: str) -> None:
    words = shlex.split(line)
    programs = [word for word in words if word.endswith(".py") or word in VERBS]
    if not programs:
        pytest.skip("calls nothing of ours")
    program, rest = programs[0], words[words.index(programs[0]) + 1 :]
    if program in VERBS:
        module = importlib.import_module(f"facegpt.commands.{program.replace('-', '_')}")
    else:
        module = load_recipe(program)
    settings = [
        value
        for name, value in vars(module).items()
        if name.endswith("Settings")
        and dataclasses.is_dataclass(value)
        and "parse_config(" + name in source(module)
    ]
    assert len(settings) == 1
    if rest:
        parse_config(settings[0], rest, positional=FIRST.get(program, []))


def source(module: object) -> str:
    with open(str(module.__file__), encoding="utf-8") as file:  # type: ignore[attr-defined]
        return file.read()

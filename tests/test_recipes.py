"""Every recipe is started, explains itself and refuses wrong words in the same way as the verbs."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from recipes import ROOT, load_recipe

from facegpt.config import run
from facegpt.config_values import leaves

RECIPES = sorted(
    str(path.relative_to(ROOT))
    for room in ("data_gen", "eval", "scripts", "train")
    for path in (ROOT / room).glob("*.py")
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_of_a_recipe_is_explained_in_its_help(recipe: str) -> None:
    module = load_recipe(recipe)
    settings = [
        value
        for name, value in vars(module).items()
        if name.endswith("Settings") and dataclasses.is_dataclass(value)
    ]
    assert settings
    for cls in settings:
        assert [key for key, _, about in leaves(cls) if not about] == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_opens_with_the_command_that_runs_it_and_ends_with_the_one_runner(recipe: str) -> None:
    text = (ROOT / recipe).read_text(encoding="utf-8")
    assert f"python {recipe}" in text.split('"""')[1]
    last = text.rstrip().splitlines()
    assert last[-2] == 'if __name__ == "__main__":' and last[-1].startswith("    sys.exit(run(")


def test_training_without_deepspeed_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = load_recipe("train/train.py")
    words = ["--config", str(ROOT / "configs/tiny/train.yaml"), f"run={tmp_path / 'run'}"]
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    assert run(train.main, words) == 1
    assert "error: training needs DeepSpeed, which is not installed" in capsys.readouterr().err

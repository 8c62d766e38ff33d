"""Configuration comes from dataclass, YAML and command line, and a typing error never passes silently."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from omegaconf import MISSING

from facegpt.config import load_config, parse_config, save_config
from facegpt.errors import ConfigError


@dataclass
class Optimizer:
    learning_rate: float = 2e-5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])


@dataclass
class Recipe:
    out: str = "outputs"
    steps: int = 10
    head: str | None = None
    weights: dict[str, float] = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        if isinstance(self.steps, int) and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass
class Required:
    data: str = MISSING


def test_command_line_wins_over_yaml_wins_over_defaults(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("steps: 20\nout: from yaml\noptimizer:\n  learning_rate: 3e-4\nweights: {image: 2}\n")
    config = load_config(Recipe, file, ["out=from line", "weights.text=0.5"])
    assert config == Recipe("from line", 20, None, {"image": 2.0, "text": 0.5}, Optimizer(3e-4, [0.9, 0.999]))
    assert isinstance(config, Recipe) and isinstance(config.optimizer, Optimizer)


def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"learning_rat in the command line; did you mean optimizer.learning_rate",
    ):
        load_config(Recipe, None, ["optimizer.learning_rat=1"])
    file = tmp_path / "typo.yaml"
    file.write_text("stepz: 3\n")
    with pytest.raises(ConfigError, match=r"stepz in .*typo\.yaml; did you mean steps\?"):
        load_config(Recipe, file)


@pytest.mark.parametrize("override", ["steps=many", "optimizer=3", "optimizer.betas=x", "steps=0"])
def test_an_impossible_value_is_an_error(override):
    with pytest.raises(ConfigError, match="(?i)" + override.split("=")[0]):
        load_config(Recipe, None, [override])


def test_a_required_value_must_be_given():
    with pytest.raises(ConfigError, match="no value for data"):
        load_config(Required)
    assert load_config(Required, None, ["data=x"]).data == "x"


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1,\n", "just words", "steps: 1\nsteps: 2\n"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, content):
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_config(Recipe, file)
    with pytest.raises(ConfigError, match="absent"):
        load_config(Recipe, tmp_path / "absent.yaml")


def test_the_command_line_of_a_recipe(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("steps: 20\n")
    rank = ["--local_rank=1"]
    config = parse_config(
        Recipe, ["out=x", "--config", str(file), "--head", "builtin", "weights.a=-1", *rank]
    )
    assert config == Recipe("x", 20, "builtin", {"a": -1.0})
    assert (
        parse_config(Recipe, ["--local-rank", "3", "--optimizer.learning-rate=1"]).optimizer.learning_rate
        == 1
    )
    for words in (["steps"], ["--head"], ["--stepz", "3"]):
        with pytest.raises(ConfigError):
            parse_config(Recipe, words)


def test_help_lists_every_key(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(Recipe, ["--help"], "python train.py --config x.yaml")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "python train.py" in text and "learning_rate: 2.0e-05" in text and "--local_rank" not in text


def test_a_saved_config_loads_to_an_equal_one(tmp_path):
    config = Recipe("x", 3, "builtin", {"a": 0.25}, Optimizer(1e-3, [0.5]))
    save_config(config, tmp_path / "run" / "config.yaml")
    assert load_config(Recipe, tmp_path / "run" / "config.yaml") == config

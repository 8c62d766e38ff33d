"""Settings come from dataclass, YAML and command line; a typing error never passes silently, and strings are
taken to the letter."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from facegpt.config import MISSING, UsageError, load_config, parse_config, run, save_config
from facegpt.errors import CheckpointError, ConfigError


@dataclass
class Optimizer:
    """learning_rate: of everything. betas: decay of the two moments,
    as in Adam.
    """

    learning_rate: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class Source:
    path: str = MISSING
    weight: float = 1.0


@dataclass
class Recipe:
    """A recipe.

    out: folder of the results.
    steps, seed: numbers; both are whole.
    from_: where it comes from.
    """

    out: str = "outputs"
    steps: int = 10
    seed: int = 0
    head: str | None = None
    rigged: bool = False
    kind: Literal["auto", "cpu"] = "auto"
    from_: Path | None = None
    parts: list[str] = field(default_factory=list)
    limit: int | None = None
    weights: dict[str, float] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass
class Required:
    data: str = MISSING


def test_command_line_wins_over_yaml_wins_over_defaults(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "steps: 20\nout: from yaml\noptimizer:\n  learning_rate: 3e-4\nweights: {image: 2}\n"
        "sources:\n  a: {path: x, weight: 2}\n  b:\n    path: y\n"
    )
    config = load_config(Recipe, file, ["out=from line", "weights.text=0.5", "sources.a.weight=0"])
    assert config == Recipe(
        "from line",
        20,
        weights={"image": 2.0, "text": 0.5},
        sources={"a": Source("x", 0.0), "b": Source("y", 1.0)},
        optimizer=Optimizer(3e-4),
    )
    assert isinstance(config.optimizer, Optimizer) and isinstance(config.optimizer.betas, tuple)


def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path):
    message = r"learning_rat in the command line; did you mean optimizer.learning_rate"
    with pytest.raises(ConfigError, match=message):
        load_config(Recipe, None, ["optimizer.learning_rat=1"])
    file = tmp_path / "typo.yaml"
    file.write_text("stepz: 3\n")
    with pytest.raises(ConfigError, match=r"stepz in .*typo\.yaml; did you mean steps\?"):
        load_config(Recipe, file)


def test_a_value_that_the_whole_refuses_is_looked_for_where_values_were_given(tmp_path):
    (tmp_path / "a.yaml").write_text("out: x\n")
    for path, overrides, where in (
        (None, ["steps=0"], "the command line"),
        (tmp_path / "a.yaml", ["steps=0"], f"{tmp_path / 'a.yaml'} or the command line"),
    ):
        with pytest.raises(ConfigError, match=f"bad value in {re.escape(where)}: steps must be at least 1"):
            load_config(Recipe, path, overrides)


TOO_LONG = "7" * 5000


@pytest.mark.parametrize(
    "override",
    [
        *("steps=many", "steps=0", "steps=1e23", "steps=1.5", "steps=", f"seed={TOO_LONG}", "seed=10e99"),
        *("optimizer=3", "optimizer.betas=x", "optimizer.betas=0.9", "optimizer.betas=[0.9", "kind=gpu"),
        *("optimizer.learning_rate=nan", "optimizer.learning_rate=inf", "rigged=perhaps", "limit=[1]"),
        *(f"optimizer.learning_rate={TOO_LONG}", "weights=[1]", "weights.a={b: 1}", "sources.a=3"),
        *("steps.deeper=1", "out.deeper=1"),
    ],
)
def test_an_impossible_value_is_one_short_sentence(override):
    with pytest.raises(ConfigError, match="(?i)" + override.split("=")[0].split(".deeper")[0]) as error:
        load_config(Recipe, None, [override])
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a: b",
            "[smile]",
            "{x",
            "x=1 = y",
            "# a comment?",
            "'quoted'",
            '"',
            "${oc.env:HOME}",
            "${x",
            "\\${x}",
        ),
        *(
            "yes",
            "1e5",
            "2026-11-21",
            "*alias",
            "&anchor",
            "--help",
            "- a",
            "  spaces  ",
            "😀",
            "",
            "null ",
            "???!",
        ),
    ],
)
def test_strings_are_taken_to_the_letter(text, tmp_path):
    for words in (["--out", text], [f"out={text}"], [f"--head={text}"]):
        config = parse_config(Recipe, words)
        assert text == (config.head if "head" in words[0] else config.out)
    save_config(Recipe(out=text), tmp_path / "config.yaml")
    assert load_config(Recipe, tmp_path / "config.yaml").out == text


def test_a_required_value_must_be_given():
    with pytest.raises(ConfigError, match="no value for data; add data=VALUE"):
        load_config(Required)
    assert load_config(Required, None, ["data=x"]).data == "x"


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        *("- a\n- b\n", "a: [1,\n", "just words", "steps: 1\nsteps: 2\n", "", "out: [" * 5000, BOMB),
        *(f"steps: {TOO_LONG}\n", "out: \x00\n", "[1]: 2\n", "steps: !!python/object/apply:os.getcwd []\n"),
        *("# " + "x" * 1_000_001, "out: {a: b}\n", 'out: "a\\0b"\n', "x" * 100_000 + ": 1\n"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml") as error:
        load_config(Recipe, file)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["absent.yaml", "", "/dev/zero"])
def test_what_is_no_file_is_not_read(tmp_path, name):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(Recipe, tmp_path / name)


def test_the_command_line_of_a_recipe(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("steps: 20\n")
    rank = ["--local_rank=1"]
    config = parse_config(
        Recipe, ["out=x", "--config", str(file), "--head", "builtin", "weights.a=-1", *rank, "--seed", "-3"]
    )
    assert config == Recipe("x", 20, -3, "builtin", weights={"a": -1.0})
    words = ["--local-rank", "3", "--optimizer.learning-rate=1", "--from", "there"]
    config = parse_config(Recipe, words)
    assert config.optimizer.learning_rate == 1 and config.from_ == Path("there")
    for words in (["steps"], ["--head"], ["--stepz", "3"], ["--config", "nowhere.yaml"]):
        with pytest.raises(UsageError):
            parse_config(Recipe, words)


def test_switches_lists_nothing_and_values_without_a_key():
    assert parse_config(Recipe, ["--rigged", "out=x"]) == Recipe("x", rigged=True)
    assert parse_config(Recipe, ["--rigged", "false"]) == parse_config(Recipe, ["rigged=off"]) == Recipe()
    for words in (["--parts", "mean,poses"], ["parts=[mean, poses]"]):
        assert parse_config(Recipe, words).parts == ["mean", "poses"]
    assert parse_config(Recipe, ["parts="]).parts == []
    assert parse_config(Recipe, ["head=null", "limit=null"]) == Recipe()
    assert parse_config(Recipe, ["a/x=1.json", "--steps", "3"], positional=["out"]) == Recipe("a/x=1.json", 3)
    with pytest.raises(UsageError, match="'b' is not of the form"):
        parse_config(Recipe, ["a", "b"], positional=["out"])


def test_help_lists_every_key_with_its_default_and_its_line_of_the_docstring(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(Recipe, ["--help"], "python train.py --config x.yaml")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("python train.py") and "local_rank" not in text and "--config FILE.yaml" in text
    for lines in (
        "  out=outputs\n      folder of the results.\n",
        "  steps=10\n      numbers; both are whole.\n  seed=0\n      numbers; both are whole.\n",
        "  from=null\n      where it comes from.\n",
        "  sources.NAME.path (required)\n",
        "  optimizer.learning_rate=2e-05\n      of everything.\n",
        "  optimizer.betas=0.9,0.999\n      decay of the two moments, as in Adam.\n",
    ):
        assert lines in text


def test_a_saved_config_loads_to_an_equal_one(tmp_path):
    config = Recipe("x", 3, 1, "builtin", True, "cpu", Path("a b"), ["1", "x, y"], None, {"a": 0.25})
    config.sources = {"one": Source("p", 1e-3)}
    save_config(config, tmp_path / "run" / "config.yaml")
    assert load_config(Recipe, tmp_path / "run" / "config.yaml") == config


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UsageError("unknown key x"), 2, "unknown key x"),
        (CheckpointError("two\n  lines"), 1, "two lines"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/a.bin"),
            1,
            "out/a.bin: No space left on device",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), 1, "Permission denied"),
        (MemoryError(), 1, "not enough memory"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "memory: Unable to allocate 9 GiB"),
        (ModuleNotFoundError("no", name="deepspeed.ops"), 1, "package deepspeed.ops is not installed"),
    ],
)
def test_every_expected_error_is_one_sentence_with_an_exit_code(capsys, error, code, says):
    def main(argv):
        raise error

    assert run(main, []) == code
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and says in shown and shown.count("\n") == 1


def test_exit_codes_of_success_of_ctrl_c_and_of_faults():
    def stop(argv):
        raise KeyboardInterrupt

    def fault(argv):
        raise KeyError("a fault of the program")

    assert run(lambda argv: None, []) == 0 and run(lambda argv: 3, []) == 3 and run(stop, []) == 130
    with pytest.raises(KeyError):
        run(fault, [])

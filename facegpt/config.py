"""Settings: dataclass <- YAML <- key=value; and the one way in which commands and recipes are started.

A program declares a dataclass of settings, whose docstring says of each field `name: what it is`, and a
function `main(argv)` that begins with `parse_config`; `run(main)` makes every expected error one sentence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from facegpt.config_values import (
    LARGEST_FILE,
    MISSING,
    WORDS,
    Loader,
    Place,
    build,
    is_switch,
    lay_over,
    leaves,
    missing_keys,
    plain,
)
from facegpt.errors import ConfigError, FaceGPTError
from facegpt.files import atomic_path

__all__ = [
    "MISSING",
    "UsageError",
    "at_least",
    "load_config",
    "parse_config",
    "refuse",
    "run",
    "save_config",
]

Config = TypeVar("Config")

MANNERS = """\
Keys, as key=value or --key value; --config FILE.yaml replaces the defaults, the command line comes last.
A switch may stand alone (--key), a list is written a,b or [a,b], and null means none.
"""


class UsageError(ConfigError):
    """The command line, or the file it names, does not say what can be done."""


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Call `main` with the words of the command line; returns the exit code.

    0, or what `main` returns. 2 for a command line that cannot be understood, 1 for every other error that
    input or the machine can cause (FaceGPTError, OSError, MemoryError, a package that is not installed), each
    with `error: SENTENCE` on stderr; 130 after Ctrl-C. Anything else is a fault of the program: a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names and replies that the terminal cannot show
    try:
        return main(list(sys.argv[1:] if argv is None else argv)) or 0
    except FaceGPTError as error:
        return refuse(error)
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        return _say(what if error.filename is None else f"{error.filename}: {what}")
    except MemoryError as error:
        return _say(": ".join(filter(None, ("there is not enough memory", str(error)))))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "facegpt":
            raise
        return _say(f"the package {error.name} is not installed; `facegpt doctor` says what needs it")
    except KeyboardInterrupt:
        return 130


def refuse(error: FaceGPTError, speak: bool = True) -> int:
    """The exit code of an error, after its sentence; of many processes only one should `speak`."""
    code = 2 if isinstance(error, UsageError) else 1
    return _say(str(error), code) if speak else code


def _say(sentence: str, code: int = 1) -> int:
    print("error:", " ".join(sentence.split()), file=sys.stderr, flush=True)
    return code


def parse_config(
    cls: type[Config], argv: Sequence[str], description: str | None = None, positional: Sequence[str] = ()
) -> Config:
    """The settings of a program from its command line (without the program's name).

    Words are `--config FILE.yaml`, `key.sub=value`, `--key value`, `--key=value`, and `--key` alone for a
    switch; `-` in a key reads as `_`. The keys in `positional` may be given in turn by their values alone.
    `--local_rank` of the deepspeed launcher is dropped. `--help` shows `description` (the program's
    docstring) with all keys, and exits.

    Raises UsageError for an unknown key, an impossible value or a file that is not a YAML mapping.
    """
    words, waiting = list(argv), list(positional)
    file: str | None = None
    values: list[tuple[str, str]] = []
    while words:
        word = words.pop(0)
        name = word[2:] if word.startswith("--") else ""
        key, equals, value = (name or word).partition("=")
        if word in ("-h", "--help"):
            print(f"{(description or '').strip()}\n\n{MANNERS}\n" + "\n".join(_help(cls)))
            raise SystemExit(0)
        if name and not equals and is_switch(cls, key):
            value = words.pop(0) if words and words[0].lower() in WORDS else "true"
        elif name and not equals:
            if not words:
                raise UsageError(f"--{key} has no value; write --{key} VALUE")
            value = words.pop(0)
        elif not equals or (waiting and not re.fullmatch(r"[\w.-]+", key)):
            if not waiting:
                raise UsageError(f"'{word}' is not of the form key=value; see --help for the keys")
            key, value = waiting.pop(0), word
        if name and key == "config":
            file = value
        elif not name or key not in ("local_rank", "local-rank"):
            values.append((key, value))
    try:
        return load_config(cls, file, [f"{key}={value}" for key, value in values])
    except ConfigError as error:
        raise UsageError(str(error)) from None


def load_config(cls: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """An instance of the dataclass `cls`: its defaults, then the YAML file, then `key.sub=value` strings.

    Every scalar is read by the type of its field alone, so a string is what was written, to the letter.

    Raises ConfigError with the key named: unknown (with the nearest known key), of a wrong type, or required
    (`MISSING`) and not given. A ValueError of a `__post_init__` becomes a ConfigError too.
    """
    values: dict[str, Any] = {}
    if path is not None:
        lay_over(values, cls, _read_yaml(Path(path)), "", Place(cls, str(path)))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"'{override}' is not of the form key=value")
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        lay_over(values, cls, nested, "", Place(cls, "the command line"))
    missing = sorted(missing_keys(cls, values))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}; add {missing[0]}=VALUE")
    try:
        return cast(Config, build(cls, values))
    except ValueError as error:
        places = ([str(path)] if path else []) + (["the command line"] if overrides or not path else [])
        raise ConfigError(f"bad value in {' or '.join(places)}: {error}") from None


def at_least(least: float, config: Any, *names: str) -> None:
    """For `__post_init__`: ValueError when one of these fields, unless it is None, is below `least`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:  # so NaN is refused too
            raise ValueError(f"{name} must be at least {least}, it is {value}")


def save_config(config: Any, path: str | Path) -> None:
    """Write a dataclass instance as YAML that `load_config` reads back to an equal instance, atomically."""
    with atomic_path(path) as temporary:
        text = yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"configuration file {path} does not exist")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path} is larger than {LARGEST_FILE:,} bytes; it is no configuration")
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply for a configuration") from None
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise ConfigError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values at its top level")
    return values


def _help(cls: type) -> Iterator[str]:
    for key, default, about in leaves(cls):
        yield f"  {key}" + (f" {default}" if default == repr(MISSING) else f"={default}")
        if about:
            yield f"      {about}"

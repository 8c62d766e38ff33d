"""Configuration: dataclass <- YAML <- key=value; a key that the dataclass lacks is an error."""

from __future__ import annotations

import argparse
import difflib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from facegpt.errors import ConfigError
from facegpt.files import atomic_path

Config = TypeVar("Config")


def parse_config(cls: type[Config], argv: Sequence[str], description: str | None = None) -> Config:
    """The configuration of a recipe from its command line.

    `argv` (without the program name) may hold `--config FILE.yaml`, `key.sub=value`, and `--key value` or
    `--key=value` as another spelling of the latter. `--local_rank` of the deepspeed launcher is dropped.
    `--help` shows `description` (the recipe's docstring) with all keys and their defaults, and exits.

    Raises ConfigError for an unknown key, an impossible value or a file that is not a YAML mapping.
    """
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s [--config FILE.yaml] [key=value ...]",
        epilog="keys and defaults:\n" + OmegaConf.to_yaml(OmegaConf.structured(cls)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="values that replace the defaults")
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args(list(argv))
    return load_config(cls, arguments.config, list(_overrides(rest)))


def _overrides(words: list[str]) -> Iterator[str]:
    remaining = iter(words)
    for word in remaining:
        name = word.removeprefix("--")
        if name != word:
            key, equals, value = name.partition("=")
            if not equals:
                value = next(remaining, "")
                if not value:
                    raise ConfigError(f"option --{key} has no value; write {key}=VALUE")
            yield f"{key.replace('-', '_')}={value}"
        elif "=" in word:
            yield word
        else:
            raise ConfigError(f"'{word}' is not of the form key=value")


def load_config(cls: type[Config], path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """An instance of the dataclass `cls`: its defaults, then the YAML file, then `key.sub=value` strings.

    Raises ConfigError with the key named: unknown (with the nearest known key), of a wrong type, or required
    (`omegaconf.MISSING`) and not given. A ValueError of a `__post_init__` becomes a ConfigError too.
    """
    schema = OmegaConf.structured(cls)
    merged = schema if path is None else _merge(schema, lambda: _read_yaml(Path(path)), str(path))
    merged = _merge(merged, lambda: OmegaConf.from_dotlist(list(overrides)), "the command line")
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}; add {missing[0]}=VALUE")
    try:
        return cast(Config, OmegaConf.to_object(merged))
    except (ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"bad value in {path or 'the command line'}: {error}") from None


def _merge(base: DictConfig, read: Callable[[], DictConfig], where: str) -> DictConfig:
    """`base` with the values that `read` returns; every error names the key and `where` it stood."""
    try:
        return cast(DictConfig, OmegaConf.merge(base, read()))
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        near = difflib.get_close_matches(key, _keys(base), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see --help for the keys that exist"
        raise ConfigError(f"unknown key {key} in {where}; {hint}") from None
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        key = str(getattr(error, "full_key", None) or "a key")
        raise ConfigError(f"bad value for {key} in {where}: {str(error).splitlines()[0]}") from None


def save_config(config: Any, path: str | Path) -> None:
    """Write a dataclass instance as YAML that `load_config` reads back to an equal instance, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")


def _read_yaml(path: Path) -> DictConfig:
    if not path.is_file():
        raise ConfigError(f"configuration file {path} does not exist")
    try:
        values = OmegaConf.load(io.StringIO(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from None
    if not isinstance(values, DictConfig):
        raise ConfigError(f"{path} must hold a mapping of keys to values at its top level")
    return values


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a structured configuration."""
    for name in map(str, node):
        yield f"{prefix}{name}"
        child = None if OmegaConf.is_missing(node, name) else node[name]
        if isinstance(child, DictConfig):
            yield from _keys(child, f"{prefix}{name}.")

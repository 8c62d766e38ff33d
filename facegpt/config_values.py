"""Settings by the types of their dataclass: strings become values, defaults and docstrings become help."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from facegpt.errors import ConfigError


class _Missing:
    def __repr__(self) -> str:
        return "(required)"


MISSING: Any = _Missing()  # the default of a field that has to be given
LARGEST_FILE = 1_000_000  # bytes of YAML
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Loader(yaml.BaseLoader):
    """All scalars as strings. A key that stands twice is an error, and so is an alias: it can be a bomb."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read here", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in mapping:
                problem = f"the key {_short(key)} twice" if isinstance(key, str) else "a key that is no word"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


@dataclasses.dataclass
class Place:
    """Where a value stood, for errors."""

    cls: type
    where: str

    def unknown(self, key: str) -> ConfigError:
        """The error of a key that is none, with the nearest one that exists."""
        near = difflib.get_close_matches(key[:200], all_keys(self.cls), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see --help for the keys that exist"
        return ConfigError(f"unknown key {_short(key)} in {self.where}; {hint}")

    def bad(self, key: str, value: Any, needed: str) -> ConfigError:
        """The error of a value that its key cannot take."""
        shown = f"'{_short(value)}'" if isinstance(value, str) else f"a {type(value).__name__}"
        return ConfigError(f"bad value for {key} in {self.where}: {shown} is not {needed}")


def lay_over(values: dict[str, Any], cls: type, new: Mapping[str, Any], prefix: str, place: Place) -> None:
    """Put `new` (strings, lists, mappings) into the nested `values`, converted to the types of the fields."""
    kinds = _kinds(cls)
    for written, value in new.items():
        name = _field(kinds, written)
        if name is None:
            raise place.unknown(prefix + written)
        values[name] = _convert(kinds[name], value, values.get(name), prefix + name, place)


def _convert(kind: Any, value: Any, present: Any, key: str, place: Place) -> Any:
    """`value` as a `kind`; a nested dataclass or dictionary is laid over what is `present`."""
    options = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):  # X | None
        if value is None or (isinstance(value, str) and value.lower() in ("null", "~")):
            return None
        kind = next(option for option in options if option is not types.NoneType)
        return _convert(kind, value, present, key, place)
    if dataclasses.is_dataclass(kind) or origin is dict:
        value = _collection(value, "{", dict, key, place)
        result: dict[str, Any] = present if isinstance(present, dict) else {}
        if origin is dict:
            for name, item in value.items():
                result[name] = _convert(options[1], item, result.get(name), f"{key}.{name}", place)
        else:
            lay_over(result, typing.cast(type, kind), value, f"{key}.", place)
        return result
    if origin in (list, tuple):
        value = _collection(value, "[", list, key, place)
        fixed = origin is tuple and ... not in options
        if fixed and len(value) != len(options):
            raise place.bad(key, value, f"a list of {len(options)} values")
        kinds = options if fixed else options[:1] * len(value)
        return origin(_convert(k, v, None, key, place) for k, v in zip(kinds, value, strict=True))
    if not isinstance(value, str):
        raise place.bad(key, value, "a single value")
    if origin is typing.Literal:
        if value not in options:
            raise place.bad(key, value, f"one of {', '.join(map(str, options))}")
        return value
    try:
        return _SCALARS[kind](value)
    except ValueError:
        raise place.bad(key, value, _NEEDED[kind]) from None


def _collection(value: Any, opening: str, kind: type, key: str, place: Place) -> Any:
    """A list or mapping, also out of one string: `[1, 2]`, `{a: 1}`, or `1,2`."""
    if isinstance(value, str) and opening == "[" and not value.startswith("["):
        value = value.split(",") if value else []
    elif isinstance(value, str):
        with contextlib.suppress(yaml.YAMLError, RecursionError, ValueError):
            value = yaml.load(value[:LARGEST_FILE], Loader)
    if not isinstance(value, kind):
        raise place.bad(key, value, "a list of values" if kind is list else "a mapping of keys to values")
    return value


def _bool(text: str) -> bool:
    if text.lower() not in WORDS:
        raise ValueError
    return WORDS[text.lower()]


def _int(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.replace("_", "")):  # what 64 bits surely hold
        raise ValueError
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) < 100 else math.nan
    if not math.isfinite(value):
        raise ValueError
    return value


def _text(text: str) -> str:
    if "\0" in text:  # no name of a file can have it
        raise ValueError
    return text


_SCALARS: dict[Any, Callable[[str], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _text,
    Path: lambda text: Path(_text(text)),
}
_NEEDED = {
    bool: "true or false",
    int: "a whole number of at most 18 digits",
    float: "a finite number",
    str: "a text without NUL",
    Path: "a path without NUL",
}


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """The dataclass with these values, which may be partial; what is nested in it is built first."""
    kinds = _kinds(cls)
    given: dict[str, Any] = {}
    for name, value in values.items():
        nested, item = _nested(kinds[name])
        if nested is not None and isinstance(value, dict):
            value = {k: build(nested, one) for k, one in value.items()} if item else build(nested, value)
        given[name] = value
    return cls(**given)


def missing_keys(cls: type, values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys without a value or a default."""
    for name, kind in _kinds(cls).items():
        value, key = values.get(name, getattr(cls, name, None)), f"{prefix}{_spelled(name)}"
        nested, item = _nested(kind)
        if value is MISSING:
            yield key
        elif nested is not None:
            value = value if isinstance(value, dict) else {}
            for part, inner in value.items() if item else [("", value)]:
                yield from missing_keys(nested, inner, f"{key}.{part}." if item else f"{key}.")


def _nested(kind: Any) -> tuple[type | None, bool]:
    """The dataclass that a field of this type holds, and whether it holds a dictionary of them."""
    item = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else None
    held = kind if item is None else item
    return (held if dataclasses.is_dataclass(held) else None), item is not None  # type: ignore[return-value]


def _kinds(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _field(kinds: Mapping[str, Any], written: str) -> str | None:
    """The field that a user means: `max-new-tokens` is max_new_tokens, `from` is from_."""
    name = written.replace("-", "_")
    return next((field for field in (name, f"{name}_") if field in kinds), None)


def _spelled(name: str) -> str:
    """A field as users write it: `from_`, as Python has to call it, is `from`."""
    return name.rstrip("_")


def is_switch(cls: type, key: str) -> bool:
    """Whether a dotted key names a field that is true or false."""
    kind: Any = cls
    for part in key.split("."):
        if dataclasses.is_dataclass(kind):
            kinds = _kinds(typing.cast(type, kind))
            kind = kinds.get(_field(kinds, part) or "")
        else:
            kind = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else None
    return kind is bool


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, default as one would write it, what its docstring says) of every setting."""
    about, kinds = describe_fields(cls), _kinds(cls)
    for field in dataclasses.fields(cls):
        key = f"{prefix}{_spelled(field.name)}"
        nested, item = _nested(kinds[field.name])
        if nested is not None:
            yield from leaves(nested, f"{key}.NAME." if item else f"{key}.")
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield key, _written(plain(default)), about.get(field.name, "")


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value)) or "[]"
    return str(value)


def all_keys(cls: type) -> list[str]:
    """The dotted keys of all settings."""
    return [key for key, _, _ in leaves(cls)]


def plain(value: Any) -> Any:
    """Settings as YAML can write them: dictionaries, lists and scalars."""
    if dataclasses.is_dataclass(value):
        return {_spelled(f.name): plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def describe_fields(cls: type) -> dict[str, str]:
    """field -> what the docstrings of `cls` and its bases say of it, one line each.

    A docstring says `field: text` or `field, field: text`, at the start of a line or of a sentence.
    """
    found: dict[str, str] = {}
    names = [field.name for field in dataclasses.fields(cls)]
    one = "|".join(map(re.escape, names))
    start = re.compile(rf"(?:(?<=^)|(?<=\n)|(?<=[.;)] ))\s*((?:{one})(?:, (?:{one}))*):\s")
    for base in cls.__mro__:
        text = base.__dict__.get("__doc__") or ""
        if text.startswith(f"{base.__name__}("):  # made by `dataclass`, where there is none
            continue
        text = re.sub(r"\n[ \t]*", "\n", text)
        text = re.sub(r"(?<=[.;)])\n(?!\n)", " ", text)
        marks = list(start.finditer(text))
        for mark, after in zip(marks, [*marks[1:], None], strict=False):
            end = after.start() if after else len(text)
            sentence = " ".join(text[mark.end() : end].split("\n\n")[0].split())
            for name in mark.group(1).split(", "):
                found.setdefault(name, sentence)
    return found

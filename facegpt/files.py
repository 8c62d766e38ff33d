"""Writing files so that a crash never leaves half of one: write beside the name, then rename."""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facegpt.errors import SampleError


def _sibling(path: Path) -> Path:
    """A hidden unused name in the same folder; the suffix stays, because savers choose the format by it."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces `path` on success and is removed on an error.

    Parent folders are created. Raises FileNotFoundError when the body wrote nothing.

    Example:
        with atomic_path("run/head.npz") as temporary:
            np.savez(temporary, **arrays)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling directory that takes the name `path` on success and is removed on an error.

    A directory that already has the name is moved aside first and deleted last, so that at every moment
    the old or the new one is whole on disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            old = _sibling(path)
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    """Force the content to disk before the rename, else a power cut could leave an empty file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. Raises ValueError for NaN and infinity."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def append_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to a JSON-lines file and force them to disk.

    A last line without its newline, which a crash while appending leaves behind, is cut off first; no other
    line is touched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            file.truncate(whole)
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        file.write("".join(lines).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def file_size(path: str | Path) -> int | None:
    """Bytes of a regular file, links followed; None for what is none: missing, a folder, a pipe, a device."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL byte in the name
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def printable(path: str | Path) -> str:
    """A path for a sentence: quoted when it holds what would break one, as a newline or a NUL byte."""
    return str(path) if str(path).isprintable() else repr(str(path))


def read_json(path: str | Path, largest: int = 1 << 20) -> Any:
    """The content of a JSON file of at most `largest` bytes.

    Raises SampleError, naming the file, when it is missing, no regular file, larger, or not JSON.
    """
    size = file_size(path)
    if size is None or size > largest:
        fault = "there is no such file" if size is None else f"{size} bytes are more than {largest}"
        raise SampleError(f"{path} cannot be read as JSON: {fault}")
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise SampleError(f"{path} is not readable JSON: {error}") from None


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line without its newline (an interrupted append) does not count.

    Raises SampleError naming file and line when a line is not a JSON object in UTF-8.
    """
    path = Path(path)
    rows: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
                fault = error.msg if isinstance(error, json.JSONDecodeError) else error
                raise SampleError(
                    f"{path}:{number} is not JSON ({fault}); remove or repair this line"
                ) from None
            if not isinstance(row, dict):
                raise SampleError(f"{path}:{number} is not a JSON object; every line must be one")
            rows.append(row)
    return rows

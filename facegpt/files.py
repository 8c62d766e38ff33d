"""Writing files so that a crash never leaves half of one: write beside the name, then rename.

What is being written has a hidden name that says who writes it: `.faces-00001.1f2e3d4c-77-9a0b.parquet` is
for faces-00001.parquet, by process 77 of the machine 1f2e3d4c. What a killed process leaves is removed when
the same file is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from facegpt.errors import SampleError

STALE_SECONDS = 86400.0  # a temporary of another machine, untouched for so long, has no writer any more
BLOCK = 1 << 16


def _sibling(path: Path) -> Path:
    """A hidden unused name in the same folder; the suffix stays, because savers choose the format by it."""
    return path.with_name(f".{path.stem}.{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:4]}{path.suffix}")


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _remove_stale_siblings(path: Path) -> None:
    """Remove what killed processes left of earlier attempts to write `path`."""
    name = re.compile(
        rf"\.{re.escape(path.stem)}\.([0-9a-f]{{8}})(?:-(\d+)-[0-9a-f]{{4}})?{re.escape(path.suffix)}"
    )
    for entry in os.scandir(path.parent):
        match = name.fullmatch(entry.name)
        if match and _is_stale(Path(entry.path), *match.groups()):
            remove(Path(entry.path))


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `atomic_path` and `atomic_directory` give while they write."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}(-\d+-[0-9a-f]{4})?(\..+)?", name) is not None


def _is_stale(temporary: Path, machine: str, process: str | None) -> bool:
    """Whether nobody writes it any more: its process has ended, or, on another machine, it is a day old."""
    try:
        if process is not None and machine == _machine():
            os.kill(int(process), 0)
            return False
        return time.time() - temporary.stat().st_mtime > STALE_SECONDS
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # alive under another user, or gone in the meantime
        return False


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all it holds; nothing there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of writing, as of a full disk, say which file was to be written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces `path` on success and is removed on an error.

    Parent folders are created. The file gets the mode that the umask gives, whatever the saver chose. Raises
    FileNotFoundError when the body wrote nothing.

    Example:
        with atomic_path("run/head.npz") as temporary:
            np.savez(temporary, **arrays)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_siblings(path)
    temporary = _sibling(path)
    mode = _new_file_mode(temporary)
    try:
        with _named(path):
            yield temporary
            temporary.chmod(mode)
            flush(temporary)
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


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
        seal(temporary)
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
    flush(path.parent)
    _remove_stale_siblings(path)  # only now: the last whole copy could be among them


def seal(path: Path) -> None:
    """Give a finished file, or all files of a folder, the umask's modes, and force them to disk."""
    if path.is_dir():
        for entry in path.iterdir():
            seal(entry)
    elif path.is_file():
        path.chmod(path.parent.stat().st_mode & 0o666)  # the folder was made under the same umask
    flush(path)


def _new_file_mode(unused: Path) -> int:
    """The mode of a file that is created here now. (Reading the umask would need to change it.)"""
    try:
        descriptor = os.open(unused, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            return os.fstat(descriptor).st_mode & 0o666
        finally:
            os.close(descriptor)
    finally:
        unused.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Force a file, or the names in a folder, to disk: else a power cut could leave an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some network file systems cannot do that for folders
            raise
    finally:
        os.close(descriptor)


def take_lock(file: int | IO[Any], wait: bool = True) -> bool:
    """Keep other processes out of an open file or folder until it is closed, however this process ends.

    `wait` until they let go, or else False while one has it. True also where the file system knows no locks.
    """
    import fcntl  # POSIX alone has it, and nothing else of this file is only for POSIX

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


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
    with _named(path), path.open("a+b") as file:
        whole = _end_of_last_line(file)
        if whole != file.seek(0, os.SEEK_END):
            file.truncate(whole)
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        file.write("".join(lines).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file in hexadecimal digits, read in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


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


def _end_of_last_line(file: BinaryIO) -> int:
    """Number of bytes up to and with the last newline, found from the end: the files grow long."""
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - BLOCK)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


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

"""The built-in head as a cached file: generating it takes seconds, reading it does not."""

from __future__ import annotations

import hashlib
from pathlib import Path

from facegpt.errors import HeadFileError
from facegpt.head import nearest
from facegpt.head.files import format as head_format
from facegpt.head.files.format import HeadData, load_head_data, save_head
from facegpt.parts import home


def builtin_head_path() -> Path:
    """Where the built-in head lies once it has been made.

    The file is named after the code that makes it, so changed code makes a new one.
    """
    return home() / f"builtin_head_{_code_hash()}.safetensors"


def builtin_head_data() -> HeadData:
    """The built-in head from the cache, generated first where there is no usable file.

    It is renamed into place, so several processes may start at once. Where the cache cannot be written the
    head is generated each time.
    """
    path = builtin_head_path()
    try:
        return load_head_data(path)
    except HeadFileError:  # not there yet, or damaged
        from facegpt.head.builtin import build_head

        data = build_head()
    try:
        save_head(data, path)
    except OSError:
        return data
    return data


def _code_hash() -> str:
    """Hash of the generator's files, of what it uses beside them, and of the file format's."""
    folder = Path(__file__).parent
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    digest = hashlib.sha256()
    for path in [*sorted(files), Path(nearest.__file__), Path(head_format.__file__)]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

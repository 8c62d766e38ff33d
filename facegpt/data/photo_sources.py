"""Photographs one after the other: out of a folder, a text list, a tar, or a Hugging Face dataset folder."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from facegpt.data.records import path_within
from facegpt.errors import ImageError, SampleError
from facegpt.files import file_size, printable
from facegpt.perception.images import LARGEST_FILE

# What counts as a photograph in folders and archives; those that cannot be decoded here are refused by name.
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".jp2", ".tga", ".avif",
    ".heic", ".heif", ".dng",
)  # fmt: skip
ROWS_AT_ONCE = 16  # of a parquet file
_BROKEN_ARCHIVE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True)
class Photograph:
    """One photograph of a source.

    name: its path in the source, unique and printable. size: bytes of the file, -1 where there is none.
    open: where it lies, or its bytes; of an archive only until the next photograph is asked for; raises
    ImageError. person: who it shows, where the source has a column for it.
    """

    name: str
    size: int
    open: Callable[[], Path | bytes]
    person: str | None = None


def photographs(source: str | Path, people: str | None = None) -> Iterator[Photograph]:
    """The photographs of a source in an order that is always the same; nothing is decoded.

    source: a folder (sub-folders too; other and hidden files are passed over); a text file with a path per
    line, relative to its own folder; a tar, compressed or not; or a folder with a dataset's parquet files
    (anywhere in it) or as `datasets.save_to_disk` writes it, whose first column of images counts. people: the
    column of such a dataset that says who it is. Memory does not grow with the number of photographs, but for
    their names where these could repeat.

    Raises SampleError when the source is none of these or a name comes twice.
    """
    source = Path(source)
    if tables := sorted(source.rglob("*.parquet")) or sorted(source.rglob("data-*.arrow")):
        return _from_tables(tables, source, people)
    if people is not None:
        raise SampleError(
            f"people={people} is a column, and {printable(source)} is no dataset that has columns"
        )
    if source.is_dir():
        return _from_folder(source)
    if not source.is_file():
        raise SampleError(f"{printable(source)}: no such source; give a folder, a list, a tar or a dataset")
    if any(suffix in (".tar", ".tgz") for suffix in source.suffixes):
        return _unique(_from_tar(source), source)
    return _unique(_from_list(source), source)


def _from_folder(folder: Path) -> Iterator[Photograph]:
    for here, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                path = Path(here, name)
                yield _on_disk(path, path.relative_to(folder).as_posix())


def _from_list(file: Path) -> Iterator[Photograph]:
    with file.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if name := line.strip():
                yield _on_disk(file.parent / name, name)


def _on_disk(path: Path, name: str) -> Photograph:
    size = file_size(path)
    return Photograph(_readable(name), -1 if size is None else size, lambda: path)


def _from_tar(file: Path) -> Iterator[Photograph]:
    """The photographs of an archive, read once from its beginning; its end, if it is broken, is one too."""
    last = "its beginning"
    try:
        with tarfile.open(file, "r|*") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else it keeps all that it has passed
                name = Path(member.name)
                if member.isfile() and name.suffix.lower() in SUFFIXES and not name.name.startswith("."):
                    last = _readable(member.name)
                    yield Photograph(last, member.size, partial(_member, archive, member, last))
    except _BROKEN_ARCHIVE as error:
        reason = f"{printable(file)} is broken after {last} ({error}); what follows is not read"
        yield Photograph("(end of the archive)", -1, partial(_refuse, reason))


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
    if member.size > LARGEST_FILE:
        raise ImageError(f"{name}: {member.size} bytes are too many for an image; shrink it")
    try:
        stream = archive.extractfile(member)
        content = b"" if stream is None else stream.read()
    except _BROKEN_ARCHIVE as error:
        raise ImageError(f"{name} cannot be read out of its archive ({error})") from None
    if len(content) < member.size:
        raise ImageError(f"{name} cannot be read out of its archive (it is cut off)")
    return content


def _refuse(reason: str) -> NoReturn:
    raise ImageError(reason)


def _from_tables(files: list[Path], folder: Path, people: str | None) -> Iterator[Photograph]:
    """Rows of a dataset, named by their file and number."""
    for file in files:
        stem = _readable(file.relative_to(folder).with_suffix("").as_posix())
        try:
            for number, (cell, person) in enumerate(_rows(file, people)):
                name = f"{stem}/{number:06d}"
                content, path = cell.get("bytes"), cell.get("path")
                who = None if person is None else str(person)
                if content is None and path is not None:
                    size = file_size(folder / path)
                    where = partial(path_within, folder, path, name)
                    yield Photograph(name, -1 if size is None else size, where, who)
                else:
                    content = content or b""
                    yield Photograph(name, len(content), partial(bytes, content), who)
        except (pa.ArrowException, OSError) as error:
            raise SampleError(f"{file} cannot be read as a table of images: {error}") from None


def _rows(file: Path, people: str | None) -> Iterator[tuple[dict[str, Any], Any]]:
    """{bytes, path} of the image, and the person, of the rows of a parquet file or an arrow stream."""
    with ExitStack() as opened:
        if file.suffix == ".parquet":
            table = opened.enter_context(pq.ParquetFile(file))
            columns = _columns(table.schema_arrow, people, file)
            batches: Any = table.iter_batches(ROWS_AT_ONCE, columns=columns)
        else:
            batches = pa.ipc.open_stream(opened.enter_context(pa.memory_map(str(file))))
            columns = _columns(batches.schema, people, file)
        for batch in batches:
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                for row in batch.slice(start, ROWS_AT_ONCE).select(columns).to_pylist():
                    yield row[columns[0]] or {}, row[columns[-1]] if people else None


def _columns(schema: pa.Schema, people: str | None, file: Path) -> list[str]:
    """The first column of images ({bytes, path} as `datasets` writes them), and the one of people."""
    if people is not None and people not in schema.names:
        raise SampleError(f"{file} has no column {people!r} (people); it has {', '.join(schema.names)}")
    for column in schema:
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            return [column.name] if people is None else [column.name, people]
    raise SampleError(f"{file} has no column of images (bytes and path, as `datasets` writes them)")


def people_of(
    source: str | Path, people: str | None
) -> tuple[Iterator[Photograph], Callable[[Photograph], str | None]]:
    """The photographs of a source, and who each shows: "" where nobody asks, None where it is not known.

    people: "folder" for the name of the folder that a photograph lies in, a text file with a photograph and a
    person per line, or a column of a dataset. Raises SampleError for a line without both.
    """
    if people is None:
        return photographs(source), lambda photo: ""
    if people == "folder":
        return photographs(source), lambda photo: photo.name.rpartition("/")[0] or None
    if not Path(people).is_file():
        return photographs(source, people), lambda photo: photo.person
    known: dict[str, str] = {}
    with Path(people).open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            words = line.strip().rsplit(None, 1)
            if len(words) == 1:
                raise SampleError(f"{people}:{number} has no photograph and person; correct the line")
            if words:
                known[words[0]] = words[1]
    return photographs(source), lambda photo: known.get(photo.name)


def _unique(found: Iterator[Photograph], source: Path) -> Iterator[Photograph]:
    names = set()
    for photograph in found:
        if photograph.name in names:
            raise SampleError(f"{source} names {photograph.name} twice; every photograph must be there once")
        names.add(photograph.name)
        yield photograph


def _readable(name: str) -> str:
    """A name that JSON and parquet can hold, whatever bytes the file system or an archive has in it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

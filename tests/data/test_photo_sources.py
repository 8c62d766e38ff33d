"""The same photographs come out of a folder, a list, a tar and a dataset, one after the other."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from facegpt.data.photo_sources import people_of, photographs
from facegpt.errors import ImageError, SampleError

FILES = {"a/1.jpg": b"one", "a/2.PNG": b"two", "b/1.jpg": b"three" * 1000}
ROWS = [{"image": {"bytes": value, "path": None}, "who": name[0]} for name, value in FILES.items()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {**FILES, "a/1.pts": b"no picture", ".hidden.jpg": b"x", ".git/1.jpg": b"x"}.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    return tmp_path / "photos"


def read(source: Path) -> dict[str, bytes]:
    found = {}
    for photo in photographs(source):
        here = photo.open()
        found[photo.name] = here if isinstance(here, bytes) else here.read_bytes()
        assert photo.size == len(found[photo.name])
    return found


def write_tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_folder_list_and_tar_hold_the_same(folder, tmp_path):
    (folder / "list.txt").write_text("\n".join(FILES) + "\n\n")
    plain = write_tar(tmp_path / "photos.tar", [*FILES.items(), ("a/1.pts", b"no picture")])
    packed = write_tar(tmp_path / "photos.tar.gz", [*FILES.items()], "w:gz")
    assert list(read(folder)) == sorted(FILES)  # always in the same order
    for source in (folder, folder / "list.txt", plain, packed):
        assert read(source) == FILES


def test_datasets_of_both_kinds_with_a_column_of_people(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "who": datasets.Value("string")})
    table = datasets.Dataset.from_list(ROWS, features=features)
    (tmp_path / "hub" / "data").mkdir(parents=True)
    table.to_parquet(str(tmp_path / "hub" / "data" / "train-0.parquet"))
    table.save_to_disk(str(tmp_path / "disk"))
    for source in (tmp_path / "hub", tmp_path / "disk"):
        assert list(read(source).values()) == list(FILES.values())
        found, person_of = people_of(source, "who")
        assert [person_of(photo) for photo in found] == ["a", "a", "b"]
        with pytest.raises(SampleError, match="no column 'whom'"):
            next(photographs(source, "whom"))


def test_people_by_folder_and_by_list(folder, tmp_path):
    found, person_of = people_of(folder, "folder")
    assert [person_of(photo) for photo in found] == ["a", "a", "b"]
    (tmp_path / "people.txt").write_text("a/1.jpg 7\nb/1.jpg\t8\n")
    found, person_of = people_of(folder, str(tmp_path / "people.txt"))
    assert [person_of(photo) for photo in found] == ["7", None, "8"]
    with pytest.raises(SampleError, match="no dataset"):
        people_of(folder, "who")


def test_a_broken_archive_ends_in_a_reason(tmp_path):
    whole = write_tar(tmp_path / "photos.tar", [*FILES.items()]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: 512 * 5 + 100])  # in the third photograph
    reasons = []
    for photo in photographs(tmp_path / "cut.tar"):
        try:
            photo.open()
        except ImageError as error:
            reasons.append(str(error))
    assert reasons and all("archive" in reason or "broken" in reason for reason in reasons)
    (tmp_path / "none.tar").write_bytes(b"no archive")
    (photo,) = photographs(tmp_path / "none.tar")
    with pytest.raises(ImageError, match=r"none\.tar"):
        photo.open()


def test_what_leaves_its_dataset_or_comes_twice_is_refused(tmp_path):
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    column = pa.array([{"bytes": None, "path": "../../etc/passwd"}], kind)
    (tmp_path / "hub").mkdir()
    pq.write_table(pa.table({"image": column}), tmp_path / "hub" / "x.parquet")
    (photo,) = photographs(tmp_path / "hub")
    with pytest.raises(ImageError, match="leaves"):
        photo.open()
    twice = write_tar(tmp_path / "twice.tar", [("1.jpg", b"a"), ("1.jpg", b"b")])
    with pytest.raises(SampleError, match="twice"):
        list(photographs(twice))
    with pytest.raises(SampleError, match="no such source"):
        photographs(tmp_path / "nothing")

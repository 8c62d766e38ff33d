"""Files are whole or absent, whatever happens while they are written."""

import json
import os

import pytest

from facegpt.errors import SampleError
from facegpt.files import (
    append_jsonl,
    atomic_directory,
    atomic_path,
    file_size,
    printable,
    read_json,
    read_jsonl,
    write_json,
)


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "new" / "folder" / "a.txt"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".txt"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_keeps_the_old_file_and_leaves_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "checkpoint"
    for name in ("one", "two"):
        with atomic_directory(target) as temporary:
            (temporary / name).write_text(name)
        assert [p.name for p in target.iterdir()] == [name]
    with pytest.raises(RuntimeError), atomic_directory(target) as temporary:
        (temporary / "three").write_text("")
        raise RuntimeError
    assert [p.name for p in target.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [target]


def test_json_is_readable_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"grüße": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"grüße": [1, 2.5, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"grüße": [1, 2.5, None]}


def test_appending_after_a_crash_drops_only_the_torn_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"id": 1}, {"id": "ü"}])
    with path.open("a") as file:
        file.write('{"id": 3, "te')  # the process died here
    assert read_jsonl(path) == [{"id": 1}, {"id": "ü"}]
    append_jsonl(path, [{"id": 4}])
    assert read_jsonl(path) == [{"id": 1}, {"id": "ü"}, {"id": 4}]


@pytest.mark.parametrize("line", ["{broken", "[1, 2]"])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n' + line + "\n")
    with pytest.raises(SampleError, match=r"rows\.jsonl:2"):
        read_jsonl(path)


def test_only_regular_files_have_a_size(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert file_size(tmp_path / "a") == file_size(str(tmp_path / "link")) == 3
    for name in ("device", "pipe", ".", "absent", "n" * 1000, "a\0b"):
        assert file_size(tmp_path / name) is None


def test_paths_never_break_a_sentence():
    assert printable("/a b/ü.png") == "/a b/ü.png"
    assert printable("a\nb\0") == r"'a\nb\x00'"


def test_json_is_read_whole_within_its_limit_or_refused_by_name(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"ü": [1]})
    assert read_json(path) == {"ü": [1]}
    with pytest.raises(SampleError, match=r"a\.json .* more than 5"):
        read_json(path, 5)
    for content in (b"{", b"\xff", b"[" * 100_000, b"1" * 5000, b""):
        path.write_bytes(content)
        with pytest.raises(SampleError, match=r"a\.json is not readable JSON"):
            read_json(path)
    with pytest.raises(SampleError, match="no such file"):
        read_json(tmp_path)


def test_a_line_that_is_not_utf8_or_nests_too_deeply_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    for content in (b"\xff", b"[" * 100_000):
        path.write_bytes(b'{"id": 1}\n' + content + b"\n")
        with pytest.raises(SampleError, match=r"a\.jsonl:2"):
            read_jsonl(path)

"""Files are whole or absent, whatever happens while they are written."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from facegpt.errors import SampleError
from facegpt.files import (
    append_jsonl,
    atomic_directory,
    atomic_path,
    file_size,
    printable,
    read_json,
    read_jsonl,
    take_lock,
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


KILLED = """
import os, signal, sys
from facegpt.files import atomic_directory, atomic_path
with {writer}(sys.argv[1]) as temporary:
    {write}
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("writer", "write"),
    [(atomic_path, "temporary.touch()"), (atomic_directory, "(temporary / 'a').touch()")],
)
def test_what_a_killed_process_left_goes_when_the_same_file_is_written_again(tmp_path, writer, write):
    target = tmp_path / "faces-00001.parquet"
    code = KILLED.format(writer=writer.__name__, write=write)
    subprocess.run([sys.executable, "-c", code, target], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    users = tmp_path / ".faces-00001.notes.parquet"
    users.touch()
    with writer(target) as temporary:
        (temporary / "a" if writer is atomic_directory else temporary).write_text("whole")
    assert sorted(tmp_path.iterdir()) == [users, target]


def test_what_another_process_is_writing_stays_until_it_is_a_day_old(tmp_path):
    others = tmp_path / ".a.00000000-77-abcd.txt"  # of another machine
    former = tmp_path / ".a.1a2b3c4d.txt"  # of a version that did not say which process
    with atomic_path(tmp_path / "a.txt") as mine:
        mine.write_text("mine")
        for temporary in (others, former):
            temporary.touch()
        with atomic_path(tmp_path / "a.txt") as second:
            second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "mine" and others.exists() and former.exists()
    for temporary in (others, former):
        os.utime(temporary, times=(time.time() - 90000,) * 2)
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_modes_follow_the_umask_even_where_the_saver_chose_others(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.zeros(1)}, temporary)  # writes 0600
        with atomic_directory(tmp_path / "checkpoint") as temporary:
            save_file({"a": torch.zeros(1)}, temporary / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "checkpoint" / "a.safetensors").stat().st_mode & 0o777 == 0o640


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


def test_appending_reads_only_the_end_of_a_long_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"text": "x" * 200} for _ in range(20_000)])  # 4 MB
    with path.open("a") as file:
        file.write('{"text": "' + "y" * 100_000)  # a torn line longer than one block
    before = _read_bytes()
    append_jsonl(path, [{"id": 1}])
    assert _read_bytes() - before < 400_000
    assert read_jsonl(path)[-1] == {"id": 1} and len(read_jsonl(path)) == 20_001


def _read_bytes():
    """Bytes that this process has read so far."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


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


def test_a_lock_is_held_by_one_until_it_closes_and_is_no_obstacle_where_there_are_none(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with path.open("a") as first, path.open("a") as second:
        assert take_lock(first, wait=False) and not take_lock(second, wait=False)
        first.close()
        assert take_lock(second)

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with path.open("a") as file:
        assert take_lock(file)


def test_an_error_of_the_disk_names_the_file_that_was_to_be_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left.*a\.parquet"), atomic_path(tmp_path / "a.parquet"):
        full()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*rows\.jsonl"):
        append_jsonl(tmp_path / "rows.jsonl", [{"id": 1}])
    monkeypatch.undo()
    with pytest.raises(OSError, match=r"^of a library$"), atomic_path(tmp_path / "a.parquet"):
        raise OSError("of a library")

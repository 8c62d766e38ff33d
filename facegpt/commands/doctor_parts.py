"""What of facegpt's parts is there: own stand-ins, licensed files, optional packages, renderers, the GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import json
import platform
import textwrap
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import facegpt
from facegpt.commands.doctor_about import ABOUT
from facegpt.files import sha256
from facegpt.head.builtin.cache import builtin_head_data, builtin_head_path
from facegpt.head.files.flame import load_flame
from facegpt.head.files.format import HeadData, load_head_data
from facegpt.head.head_id import BUILTIN_ID, head_id, is_builtin_id
from facegpt.parts import PARTS, part_path, part_state
from facegpt.perception.recognizer import TINY_WEIGHTS, load_recognizer
from facegpt.render.backends import BACKENDS, choose

ASSETS = Path(facegpt.__file__).parent / "assets"
CORE = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy")


@dataclass
class Part:
    """One part. state: "found", "missing" or "broken" (there, but it cannot be used; note says why).

    hash: head id, or the first 12 digits of the file's sha256. license: in a word.
    without: what works without it. source: where to get it.
    """

    name: str
    state: str
    version: str
    hash: str
    license: str
    without: str
    source: str
    note: str = ""


@dataclass
class Report:
    """facegpt's own version, the versions of what it is built on, and all parts."""

    facegpt: str
    python: str
    system: str
    core: dict[str, str]
    parts: list[Part]

    def as_dictionary(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class Finding:
    """What a look at a part gives when it is there and works; empty where there is nothing to say."""

    version: str = ""
    hash: str = ""
    license: str = ""  # where it is not the same for all of its kind
    note: str = ""


class Missing(Exception):
    """The part is not there, which is no fault."""


class NotMadeYet(Exception):
    """The built-in head is not in the cache; making it would take longer than all the rest."""


def examine(head: str | None = None, recognizer: str | None = None, backbone: str | None = None) -> Report:
    """Look at every part; nothing is downloaded and nothing raises, a part that cannot be used is "broken".

    head, recognizer, backbone: files and folder of the real parts, where the user has them.
    """
    # read once, for several parts
    builtin = _outcome(_builtin_head)
    chosen = builtin if head is None else _outcome(lambda: _read_head(Path(head)))
    llava = ASSETS / "tiny_llava"
    looks: dict[str, Callable[[], Finding]] = {
        "built-in head": lambda: _describe_head(builtin(), BUILTIN_ID),
        "head file": lambda: (
            _describe_head(chosen(), head_id(chosen())) if head else _nothing("none was given (--head FILE)")
        ),
        "albedo": lambda: _albedo(chosen()),
        "landmarks": lambda: _landmarks(chosen()),
        "tiny recogniser": lambda: _tiny(TINY_WEIGHTS, TINY_WEIGHTS.with_suffix(".json")),
        "ArcFace": lambda: _arcface(recognizer),
        "tiny LLaVA": lambda: _tiny(llava / "model.safetensors", llava / "pretraining.json"),
        "LLaVA": lambda: _backbone(backbone),
        **{name: partial(_fetched, name) for name in PARTS},
        **{f"renderer {name}": partial(_renderer, name) for name in BACKENDS if name != "auto"},
        "GPU": _gpu,
        "DeepSpeed": lambda: _package("deepspeed"),
        "W&B": lambda: _package("wandb"),
    }
    return Report(
        facegpt.__version__,
        platform.python_version(),
        platform.platform(terse=True),
        {name: _version(name) for name in CORE},
        [_part(name, look, *ABOUT[name]) for name, look in looks.items()],
    )


def _part(name: str, look: Callable[[], Finding], license: str, without: str, source: str) -> Part:
    try:
        found = look()
    except NotMadeYet:
        return Part(name, "found", "", "", license, without, source, "made by code on first use, in seconds")
    except Missing as reason:
        return Part(name, "missing", "", "", license, without, source, str(reason))
    except Exception as error:
        return Part(name, "broken", "", "", license, without, source, _sentence(error))
    return Part(
        name, "found", found.version, found.hash, found.license or license, without, source, found.note
    )


def _outcome(look: Callable[[], HeadData]) -> Callable[[], HeadData]:
    """Look now; the function that is returned gives what was found, or raises what was raised, every time."""
    try:
        found = look()
    except Exception as error:
        problem = error

        def fail() -> HeadData:
            raise problem

        return fail
    return lambda: found


def _nothing(reason: str) -> Finding:
    raise Missing(reason)


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _package(module: str) -> Finding:
    """Import a package: the only way to know that it works. What it prints is not our business."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise Missing("not installed") from None
        raise RuntimeError(f"it needs {error.name}, which is not installed") from None
    except SystemExit as error:
        raise RuntimeError("it ends the program when it is imported") from error
    return Finding(_version(module) or str(getattr(imported, "__version__", "")))


def _file_hash(path: Path) -> str:
    return sha256(path)[:12]


def _builtin_head() -> HeadData:
    if not builtin_head_path().is_file():
        raise NotMadeYet
    return builtin_head_data()


def _read_head(path: Path) -> HeadData:
    return load_flame(path) if path.suffix == ".pkl" else load_head_data(path)


def _describe_head(data: HeadData, id: str) -> Finding:
    license = data.metadata.get("licence", "unknown")
    license = "registered" if "FLAME" in license else license
    version = f"{data.metadata.get('name', 'unnamed')}, {len(data.v_template)} vertices"
    return Finding(version, id, textwrap.shorten(license, 16, placeholder="..."))


def _albedo(data: HeadData) -> Finding:
    if data.texture_mean is None:
        raise Missing(f"{data.metadata.get('name', 'the head')} has no texture")
    height, width = data.texture_mean.shape[:2]
    return Finding(f"{len(data.albedo_names)} components, {width} x {height}")


def _landmarks(data: HeadData) -> Finding:
    if data.landmark_triangles is None:
        raise Missing(f"{data.metadata.get('name', 'the head')} has no landmark embedding")
    return Finding("68, contour by yaw" if data.contour_triangles is not None else "68, fixed contour")


def _tiny(weights: Path, record: Path) -> Finding:
    """Weights of ours; they are stale when they were made with another built-in head."""
    if not weights.is_file():
        raise Missing(f"{weights.name} is not in facegpt's assets")
    found = Finding(f"{weights.stat().st_size / 1e6:.1f} MB", _file_hash(weights))
    made_with = json.loads(record.read_text(encoding="utf-8")).get("head_id")
    if not is_builtin_id(made_with):
        found.note = f"made with the built-in head {made_with}, which is {BUILTIN_ID} now: make it again"
    return found


def _arcface(path: str | None) -> Finding:
    if path is None:
        raise Missing("none was given (--recognizer FILE)")
    load_recognizer(path)
    return Finding(Path(path).name, _file_hash(Path(path)))


def _backbone(folder: str | None) -> Finding:
    """A local folder in Hugging Face layout: every file has to be there, nothing is loaded."""
    if folder is None:
        raise Missing("none was given (--backbone DIR)")
    path = Path(folder)
    if not path.is_dir():
        raise Missing(f"there is no folder {path}")
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    index = path / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    needed = [*sorted(shards), "tokenizer_config.json"]
    absent = [name for name in needed if not (path / name).is_file() or not (path / name).stat().st_size]
    if absent:
        raise FileNotFoundError(f"{path} is incomplete: {', '.join(absent)}; download it again")
    size = sum((path / name).stat().st_size for name in shards)
    # the weights have gigabytes, so the hash is of what names them
    named_by = index if index.is_file() else path / "config.json"
    return Finding(f"{config.get('model_type', 'unknown type')}, {size / 1e9:.1f} GB", _file_hash(named_by))


def _fetched(name: str) -> Finding:
    if part_state(name) == "missing":
        raise Missing("not fetched")
    part_path(name)  # raises where the bytes are wrong
    return Finding(f"{PARTS[name].size / 1e6:.1f} MB", PARTS[name].sha256[:12])


def _renderer(name: str) -> Finding:
    device = torch.device("cuda" if torch.cuda.is_available() and name != "numba" else "cpu")
    found = _package(name)
    try:
        choose(name, device)
        found.note = "on the GPU" if device.type == "cuda" else ""
    except ValueError:  # it is fine, but not for this device
        found.note = "for a GPU only, and there is none"
    return found


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise Missing(
            f"torch {torch.__version__} finds none" if built else "this torch is built for the CPU only"
        )
    properties = torch.cuda.get_device_properties(0)
    note = f"{torch.cuda.device_count()} of them, {properties.total_memory >> 30} GiB each"
    return Finding(f"{properties.name}, CUDA {torch.version.cuda}", note=note)

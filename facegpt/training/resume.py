"""Which checkpoint a run goes on from, and whether it may: same settings, undamaged files, nobody else."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from facegpt.errors import CheckpointError, ConfigError, RunFinished
from facegpt.files import is_temporary, sha256, write_json
from facegpt.head.model import HeadModel
from facegpt.model.backbone import resolve_dtype
from facegpt.model.checkpoint import read_description, run_checkpoints
from facegpt.training.engine import Ranks, deepspeed_config
from facegpt.training.lock import LOCK, check_unlocked
from facegpt.training.optimizer_state import read_state
from facegpt.training.settings import TrainSettings

STATE, CHECKSUMS, RUN = "training.json", "checksums.json", "run.json"
# What a resumed run may do otherwise: it changes no step, or only how many there are. (The decay of the
# learning rate is then drawn anew to the new end.)
FREE = re.compile(
    r"run|resume|overwrite|model\.dtype|model\.activation_checkpointing|data\.(folder|check|check_files|prefetch)"
    r"|optimization\.(steps|deepspeed)|(validation|logging|checkpoint)\..*"
)


def checkpoint_to_resume(settings: TrainSettings, head: HeadModel, ranks: Ranks) -> Path | None:
    """The newest checkpoint when the run is to be resumed, None for a start from the beginning.

    Nothing is written. Raises ConfigError when the directory cannot be written, is in use, holds something
    else than a run, or a run that was not meant to be touched; CheckpointError when the checkpoint is damaged
    or was written with other settings; RunFinished when nothing is left to do.
    """
    run = Path(settings.run)
    check_directory(settings)
    check_unlocked(run)
    found = run_checkpoints(run) if settings.resume else []
    if not found:
        return None
    newest = found[-1]
    try:
        saved = _read_training_state(newest)
        _verify(newest, ranks.rank, ranks.world)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {_way_out(newest, found[:-1])}") from None
    if head.has_id(saved["head"]):  # maybe by a name that an older version gave it
        saved["head"] = head.id
    differences = _differences(saved, training_state(settings, head.id, ranks))
    if differences:
        raise CheckpointError(
            f"{newest} was written with another {', '.join(differences[:4])}; resume with the old settings "
            "or start a new run"
        )
    if saved["step"] >= settings.optimization.steps:
        raise RunFinished(
            f"{run} is finished at step {saved['step']}; raise optimization.steps to go on, or add "
            "overwrite=true to start anew"
        )
    return newest


def check_directory(settings: TrainSettings) -> None:
    """Raise ConfigError when `run` may not become this run's directory."""
    run = Path(settings.run)
    there = next(path for path in (run, *run.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(f"run={run}: {there} is a file; take another run=DIRECTORY")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"run={run}: {there} cannot be written to; take another run=DIRECTORY")
    if not run.is_dir():
        return
    harmless = (LOCK, "wandb")  # all that a run killed in its first moment leaves
    entries = sorted(path.name for path in run.iterdir() if path.name not in harmless)
    foreign = [name for name in entries if not is_temporary(name)]
    if foreign and not is_run(run):
        raise ConfigError(
            f"{run} is not empty and holds no run of facegpt (but {', '.join(foreign[:3])}); nothing in it "
            "was touched; take another run=DIRECTORY"
        )
    if foreign and not (settings.resume or settings.overwrite):
        raise ConfigError(
            f"{run} already holds a run; add resume=true, overwrite=true or another run=DIRECTORY"
        )


def is_run(path: Path) -> bool:
    """Whether a directory is that of a training run: it has the run.json that only runs write."""
    try:
        notes = _read_object(path / RUN)
    except CheckpointError:
        return False
    return {"head_id", "ranks", "versions"} <= notes.keys()


def training_state(settings: TrainSettings, head_id: str, ranks: Ranks) -> dict[str, Any]:
    """What must be equal when a run goes on: all that decides what its next steps do."""
    drawn = {name: asdict(source) for name, source in settings.data.sources.items() if source.weight > 0}
    for source in drawn.values():
        source["path"] = os.path.join(settings.data.folder, source["path"])
        source["images"] = source["images"] and os.path.join(settings.data.folder, source["images"])
    dtype = resolve_dtype(settings.model.dtype, ranks.device)
    deepspeed_config(settings.optimization, bfloat16=True)  # for its errors only
    deepspeed = json.loads(Path(settings.optimization.deepspeed).read_text(encoding="utf-8"))
    state = {
        "head": head_id,
        "ranks": ranks.world,
        "dtype": str(dtype),
        "settings": {
            key: value for key, value in _flat_settings(settings).items() if not FREE.fullmatch(key)
        },
        "sources": list(drawn),
        "source": _flat(drawn),
        "deepspeed": _flat(deepspeed),
        "deepspeed_file": Path(settings.optimization.deepspeed).name,  # all that old versions compared
    }
    return dict(json.loads(json.dumps(state)))  # as it looks after a trip through the file


def write_training_state(checkpoint: Path, step: int, state: dict[str, Any]) -> None:
    """Write training.json; state: of `training_state`."""
    write_json(checkpoint / STATE, {"format": 2, "step": step, **state})


def write_checksums(checkpoint: Path, known: dict[str, str]) -> None:
    """Write the SHA-256 of every file; `known` has those of files that other ranks have written, by name."""
    names = (path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file())
    sums = {name: known.get(name) or sha256(checkpoint / name) for name in sorted(names)}
    write_json(checkpoint / CHECKSUMS, sums)


def _differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, in words. Keys that only one version of facegpt knows do not count as different."""
    words = {"head": "head model", "ranks": "number of ranks", "dtype": "model.dtype"}
    found = {word: (saved[key], now[key]) for key, word in words.items() if key in saved}
    if "settings" in saved:
        found["list of data.sources"] = (saved["sources"], now["sources"])
        for group, prefix in (("settings", ""), ("source", "data.sources.")):
            common = [key for key in saved[group] if key in now[group]]
            found |= {prefix + key: (saved[group][key], now[group][key]) for key in common}
        for key in sorted(saved["deepspeed"].keys() | now["deepspeed"].keys()):
            found[f"DeepSpeed {key}"] = (saved["deepspeed"].get(key), now["deepspeed"].get(key))
    else:  # before format 2
        settings = now["settings"]
        for key, value in saved["model"].items():
            name = f"model.{key}" if f"model.{key}" in settings else f"model.lora.{key}"
            found[name] = (value, settings.get(name, value))
        found["optimization.deepspeed"] = (saved.get("stage"), now["deepspeed_file"])
    return [
        f"{word} ({_short(was)}, now {_short(is_now)})"
        for word, (was, is_now) in found.items()
        if was != is_now
    ]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _flat_settings(settings: Any, prefix: str = "") -> dict[str, Any]:
    """{"data.render_size": 224, ...} of a dataclass of dataclasses, without what is free and the sources."""
    flat: dict[str, Any] = {}
    for field in fields(settings):
        key, value = f"{prefix}{field.name}", getattr(settings, field.name)
        if is_dataclass(value):
            flat |= _flat_settings(value, f"{key}.")
        elif key != "data.sources" and not FREE.fullmatch(key):
            flat[key] = value
    return flat


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inside = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return flat


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} lacks {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value


def _read_training_state(checkpoint: Path) -> dict[str, Any]:
    """training.json, with the entries that `_differences` needs. Raises CheckpointError."""
    path = checkpoint / STATE
    saved = _read_object(path)
    kinds: dict[str, type] = {"step": int, "ranks": int, "head": str}
    if "format" in saved:
        kinds |= {"dtype": str, "settings": dict, "sources": list, "source": dict, "deepspeed": dict}
    else:
        kinds |= {"model": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(saved.get(key), kind)]
    if wrong:
        raise CheckpointError(f"{path} has no usable '{wrong[0]}'")
    return saved


def _verify(checkpoint: Path, rank: int, world: int) -> None:
    """Raise CheckpointError when a file is missing or is not what was written; the ranks share the work."""
    description = read_description(checkpoint)
    saved = _read_training_state(checkpoint)
    extra = description.get("extra")
    if not isinstance(extra, dict) or extra.get("step") != saved["step"]:
        raise CheckpointError(f"{checkpoint}: facegpt.json and {STATE} are of different steps")
    if "format" not in saved:  # of a version without checksums
        if rank < saved["ranks"]:
            read_state(checkpoint, rank)
        return
    sums = _read_object(checkpoint / CHECKSUMS)
    if STATE not in sums:
        raise CheckpointError(f"{checkpoint / CHECKSUMS} is incomplete")
    for name in sorted(sums)[rank::world]:
        path = checkpoint / name
        if not path.is_file():
            raise CheckpointError(f"{checkpoint} lacks {name}")
        if sha256(path) != sums[name]:
            raise CheckpointError(f"{path} is damaged: it is not what was written (SHA-256 differs)")


def _way_out(damaged: Path, older: list[Path]) -> str:
    """How to go on without a damaged checkpoint."""
    for checkpoint in reversed(older):
        try:
            _verify(checkpoint, 0, 1)
        except CheckpointError:
            continue
        return f"{checkpoint.name} is whole: remove {damaged} and resume=true goes on from there"
    return "no older checkpoint is whole, so start anew with overwrite=true or another run=DIRECTORY"

"""The optimizer's part of a checkpoint: one safetensors file per rank, in which nothing can be executed.

DeepSpeed would write and read pickles, and reading a pickle runs what is in it. So its state - nested dicts
and lists of tensors and numbers - is written as tensors, with the rest as JSON in the file's metadata:

    optimizer/rank_00.safetensors    tensors "0", "1", ...; metadata {"state": JSON that refers to them}

Older checkpoints hold DeepSpeed's own files; they are read by PyTorch's restricted unpickler.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facegpt.errors import CheckpointError, TrainingError
from facegpt.files import seal
from facegpt.training.engine import Ranks, zero_stage

OPTIMIZER = "optimizer"
COUNTERS = ("global_steps", "global_samples", "skipped_steps")
UNUSED = ("param_slice_mappings", "zero_stage")  # of DeepSpeed's state: for its converters, not for resuming


def check_can_be_saved(engine: Any) -> None:
    """Raise TrainingError where DeepSpeed's configuration keeps a state that these files cannot hold."""
    if engine.zero_nvme_offload_optimizer():
        raise TrainingError(
            "optimizer states on NVMe cannot be saved in a checkpoint; set offload_optimizer.device to cpu "
            "in the file of optimization.deepspeed"
        )
    if getattr(engine.optimizer, "elastic_checkpoint", False):
        raise TrainingError("remove elastic_checkpoint from the file of optimization.deepspeed")
    _to_json(_optimizer_state(engine), [])


def save_state(engine: Any, checkpoint: Path, ranks: Ranks, extra: dict[str, Any]) -> Path:
    """Write this rank's share of optimizer, schedule and counters, and `extra`; the path of the file.

    Every rank must call it; optimizer/ must exist. Raises OSError when the disk is full.
    """
    alone = zero_stage(engine) == 0 and not ranks.first  # without ZeRO all ranks hold the same
    state = {
        "optimizer": None if alone else _optimizer_state(engine),
        "schedule": engine.lr_scheduler.state_dict(),
        "counters": {name: int(getattr(engine, name)) for name in COUNTERS},
        "extra": extra,
    }
    tensors: list[Tensor] = []
    text = json.dumps(_to_json(state, tensors))
    path = _path(checkpoint, ranks.rank)
    named = {str(number): tensor.detach().cpu().clone() for number, tensor in enumerate(tensors)}
    try:
        save_file(named, path, {"state": text})
    except SafetensorError as error:  # it has no OSError of its own
        raise OSError(str(error)) from None
    seal(path)
    return path


def load_state(engine: Any, checkpoint: Path, ranks: Ranks) -> dict[str, Any]:
    """Put optimizer, schedule and counters into an engine whose model has the checkpoint's weights.

    Every rank must call it. Returns the `extra` that was saved, {} for a checkpoint of an old version. Raises
    CheckpointError when a file is missing, damaged or of other parameters.
    """
    state = read_state(checkpoint, ranks.rank)
    optimizer = engine.optimizer
    try:
        saved = state["optimizer"]
        if "loss_scaler" in saved:
            vars(optimizer.loss_scaler).update(saved["loss_scaler"])
            saved = {**saved, "loss_scaler": optimizer.loss_scaler}
        if zero_stage(engine) == 0:
            optimizer.load_state_dict(saved)
        else:  # DeepSpeed takes the states of all ranks and looks at its own
            if hasattr(optimizer, "checkpoint_event_prologue"):
                optimizer.checkpoint_event_prologue()
            everyone = [saved if rank == ranks.rank else None for rank in range(ranks.world)]
            optimizer.load_state_dict(everyone, load_from_fp32_weights=True)
            if hasattr(optimizer, "checkpoint_event_epilogue"):
                optimizer.checkpoint_event_epilogue()
        engine.lr_scheduler.load_state_dict(state["schedule"])
        for name in COUNTERS:
            setattr(engine, name, int(state["counters"][name]))
        return dict(state["extra"])
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise CheckpointError(
            f"the optimizer state in {checkpoint} does not fit this model ({reason})"
        ) from None


def read_state(checkpoint: Path, rank: int) -> dict[str, Any]:
    """The state of a rank as it was saved. Raises CheckpointError when a file is missing or damaged."""
    if not _path(checkpoint, 0).exists() and any((checkpoint / OPTIMIZER).glob("*.pt")):
        return _read_pickles(checkpoint / OPTIMIZER, rank)
    state = _read(_path(checkpoint, rank))
    if state.get("optimizer", {}) is None:
        state = {**state, "optimizer": _read(_path(checkpoint, 0)).get("optimizer")}
    return state


def _path(checkpoint: Path, rank: int) -> Path:
    return checkpoint / OPTIMIZER / f"rank_{rank:02d}.safetensors"


def _read(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            text, names = file.metadata()["state"], file.keys()
            state = _from_json(json.loads(text), {name: file.get_tensor(name) for name in names})
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent.parent} lacks {path.parent.name}/{path.name}") from None
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is damaged (it holds no optimizer state)")
    return state


def _optimizer_state(engine: Any) -> dict[str, Any]:
    state = {key: value for key, value in engine.optimizer.state_dict().items() if key not in UNUSED}
    if "loss_scaler" in state:
        state["loss_scaler"] = dict(vars(state["loss_scaler"]))
    return state


def _to_json(value: Any, tensors: list[Tensor]) -> Any:
    """`value` in JSON's types: lists as they are, the rest wrapped; its tensors are appended to `tensors`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, list):
        return [_to_json(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_to_json(item, tensors) for item in value]}
    if isinstance(value, dict):  # as pairs, because keys may be numbers
        return {"dict": [[key, _to_json(item, tensors)] for key, item in value.items()]}
    raise TrainingError(
        f"DeepSpeed's optimizer state holds a {type(value).__name__}, which no checkpoint can; take one of "
        "the files in configs/deepspeed for optimization.deepspeed"
    )


def _from_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_from_json(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_from_json(item, tensors) for item in content)
    if kind == "dict":
        return {key: _from_json(item, tensors) for key, item in content}
    raise ValueError(f"unknown {kind!r}")


def _read_pickles(folder: Path, rank: int) -> dict[str, Any]:
    """The state in the files of DeepSpeed.

    The restricted unpickler makes tensors, containers and, of classes, only these four, which do nothing when
    they are made.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    def read(names: Iterable[str]) -> dict[str, Any]:
        path = next((folder / name for name in names if (folder / name).exists()), None)
        if path is None:
            raise CheckpointError(f"{folder} lacks a file of rank {rank}")
        try:
            with torch.serialization.safe_globals(
                [ZeroStageEnum, LossScaler, DynamicLossScaler, fragment_address]
            ):
                return dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a hostile or damaged file can raise anything
            reason = str(error).partition("\n")[0][:120] or type(error).__name__
            raise CheckpointError(f"{path} is damaged or not a plain optimizer state ({reason})") from None

    place = f"zero_pp_rank_{rank}_mp_rank_00"
    common = read((f"{place}_model_states.pt", "mp_rank_00_model_states.pt"))
    try:
        optimizer = common["optimizer"]
        if optimizer is None:
            rank_states = read((f"{place}_optim_states.pt", f"bf16_{place}_optim_states.pt"))
            optimizer = {
                key: value for key, value in rank_states["optimizer_state_dict"].items() if key not in UNUSED
            }
        if "loss_scaler" in optimizer:
            optimizer["loss_scaler"] = dict(vars(optimizer["loss_scaler"]))
        counters = {name: common[name] for name in COUNTERS}
        return {"optimizer": optimizer, "schedule": common["lr_scheduler"], "counters": counters, "extra": {}}
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} holds no optimizer state of DeepSpeed ({error!r})") from None

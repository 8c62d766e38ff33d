"""Ranks and the DeepSpeed engine: how processes start, what is optimised, and with which learning rate."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from facegpt.errors import ConfigError, TrainingError
from facegpt.machine import default_device
from facegpt.model.facegpt import FaceGPT
from facegpt.sample import Batch
from facegpt.training.settings import OptimizationSettings

# Of DeepSpeed's JSON: the YAML sets them, so there is one place to look for each number.
OWNED_KEYS = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
)


@dataclass(frozen=True)
class Ranks:
    """This process among the processes of the run."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of `values` over all ranks, in place; every rank must call it with the same shape."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def gather(self, item: Any) -> list[Any]:
        """The `item` of every rank, in rank order, on every rank; items are pickled, so keep them small."""
        items: list[Any] = [None] * self.world
        if self.world == 1:
            return [item]
        torch.distributed.all_gather_object(items, item)
        return items

    def complaints(self, complaint: str) -> list[str]:
        """What any rank complains of, on every rank; [] when every rank gave "". Every rank must call it."""
        if self.sum(torch.tensor(float(bool(complaint)), device=self.device)) == 0:
            return []
        return [text for text in self.gather(complaint) if text]

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        if self.world > 1:
            torch.distributed.barrier()


def raise_together(ranks: Ranks, complaint: str) -> None:
    """Raise TrainingError on every rank when one has a complaint ("": it has none); every rank must call it.

    A rank that ended alone would leave the others waiting for it.
    """
    for sentence in ranks.complaints(complaint):
        raise TrainingError(sentence)


def start_ranks() -> Ranks:
    """Join the process group that the launcher (deepspeed, torchrun) announces; alone, be a group of one.

    GPUs talk over NCCL, CPUs over gloo. On CPUs the cores are divided among the ranks of this machine unless
    OMP_NUM_THREADS says otherwise: two ranks with two threads each on two cores are ten times slower.

    Raises ConfigError when DeepSpeed is not installed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("training needs DeepSpeed, which is not installed; run `pip install deepspeed`")
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = default_device(local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # it would guess the same, with a warning
        if "OMP_NUM_THREADS" not in os.environ:
            neighbors = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", "1")))
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // neighbors))

    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    if device.type == "cpu":
        # Its shared-memory collectives are compiled on first use (a minute, with a compiler) and no gain. Set
        # and not read, because reading probes every extension with the compiler. A private name of DeepSpeed.
        deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo",
        auto_mpi_discovery=False,
        timeout=timedelta(minutes=30),
        verbose=False,
    )
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)


def deepspeed_config(settings: OptimizationSettings, bfloat16: bool) -> dict[str, Any]:
    """DeepSpeed's JSON completed by the batch sizes and the clipping of the YAML.

    bfloat16: whether the frozen backbone is; with a float32 one `torch_autocast` is taken out. Our files give
    it no `lower_precision_safe_modules`: DeepSpeed's default reduces the gradients of linear layers in
    bfloat16, and at ZeRO-3 gathers their weights in it too. What is trained is float32 and small beside the
    backbone, so float32 costs next to nothing there, and ZeRO-2 and ZeRO-3 compute the same.

    Raises ConfigError when the file is missing, is no JSON object or sets a number that belongs to the YAML.
    """
    path = Path(settings.deepspeed)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(
            f"DeepSpeed configuration {path} (optimization.deepspeed) does not exist; see configs/deepspeed"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"DeepSpeed configuration {path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"DeepSpeed configuration {path} must be a JSON object, {{...}}")
    owned = [key for key in OWNED_KEYS if key in config]
    if owned:
        raise ConfigError(
            f"{path} sets {owned[0]}; the YAML's `optimization` section does that, remove it here"
        )
    if not bfloat16:
        config.pop("torch_autocast", None)
    return {
        **config,
        "train_micro_batch_size_per_gpu": settings.batch,
        "gradient_accumulation_steps": settings.accumulation,
        "gradient_clipping": settings.clip,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW for offloaded states too: nothing to compile
        "steps_per_print": None,
    }


def check_deepspeed_config(settings: OptimizationSettings, bfloat16: bool) -> None:
    """Raise ConfigError for what `deepspeed_config` or DeepSpeed itself would refuse in `build_engine`."""
    from deepspeed.runtime.config import DeepSpeedConfig

    config = deepspeed_config(settings, bfloat16)
    try:
        DeepSpeedConfig(config)
    except Exception as error:  # pydantic's, and whatever else it raises for strange values
        raise ConfigError(f"DeepSpeed does not take {settings.deepspeed}: {error}") from None


def parameter_groups(model: FaceGPT, settings: OptimizationSettings) -> list[dict[str, Any]]:
    """Trainable parameters in three groups - LoRA, <FACE> rows, face head - each with its learning rate."""
    groups: dict[str, list[nn.Parameter]] = {"lora": [], "token": [], "face_head": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "token" if "trainable_tokens" in name else "lora"
            groups["face_head" if name.startswith("face_head.") else group].append(parameter)
    rates = {"lora": settings.lr, "token": settings.token_lr, "face_head": settings.face_head_lr}
    return [
        {"name": name, "params": parameters, "lr": rates[name] or settings.lr}
        for name, parameters in groups.items()
        if parameters
    ]


class PlainOutputs(nn.Module):
    """FaceGPT with a tuple for an output, in which the same tensors carry gradients whatever the batch holds.

    DeepSpeed prepares its backward pass through hooks on the output's tensors. It looks for them in tuples,
    lists and dictionaries only, not behind a dataclass, and at ZeRO-3 the ranks must have equally many.
    """

    def __init__(self, model: FaceGPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """logits (K,V), labels (K,), label_rows (K,), parameter vectors (R,N) with R >= 1, face_rows (F,)."""
        out = self.model(batch)
        vectors = out.face_parameters.to_vector() + out.anchor  # a zero that reaches every trained weight
        return out.logits, out.labels, out.label_rows, vectors, out.face_rows


def build_engine(model: FaceGPT, settings: OptimizationSettings, ranks: Ranks) -> Any:
    """A DeepSpeed engine with AdamW over the trainable parts and DeepSpeed's WarmupDecayLR."""
    import deepspeed
    from deepspeed.runtime.lr_schedules import WarmupDecayLR

    groups = parameter_groups(model, settings)
    rates = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.weight_decay)

    def schedule(optimizer: torch.optim.Optimizer) -> WarmupDecayLR:
        # With its default minimum of 0 the first two steps would do nothing: begin one step up the ramp.
        warmup = max(2, settings.warmup)
        scheduler = WarmupDecayLR(
            optimizer,
            total_num_steps=max(settings.steps, warmup + 1),
            warmup_min_lr=[rate / warmup for rate in rates],
            warmup_max_lr=rates,
            warmup_num_steps=warmup,
            warmup_type="linear",
        )
        scheduler.step()  # it counts from -1, and only after a step of the optimiser
        return scheduler

    engine, *_ = deepspeed.initialize(
        model=PlainOutputs(model),
        optimizer=optimizer,
        lr_scheduler=schedule,
        config=deepspeed_config(settings, model.vlm.dtype == torch.bfloat16),
        dist_init_required=False,
    )
    return engine


def group_names(engine: Any) -> list[str]:
    """Names of the parameter groups in the order of `engine.get_lr()`."""
    return [group["name"] for group in engine.optimizer.param_groups]


def zero_stage(engine: Any) -> int:
    """0 (nothing is split) to 3 (weights are, too)."""
    return int(engine.zero_optimization_stage())


def gathered_parameters(engine: Any, parameters: Iterable[nn.Parameter]) -> AbstractContextManager[None]:
    """Inside, `parameters` have their full shape on every rank, also where ZeRO-3 splits them.

    Every rank must enter it.
    """
    if zero_stage(engine) < 3:
        return nullcontext()
    import deepspeed

    gathered = deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=None)
    return cast("AbstractContextManager[None]", gathered)


def autocast(engine: Any) -> AbstractContextManager[None]:
    """The precision in which the engine computes, for forward passes that do not go through the engine."""
    if not engine.torch_autocast_enabled():
        return nullcontext()
    return torch.autocast(engine.device.type, dtype=engine.torch_autocast_dtype())

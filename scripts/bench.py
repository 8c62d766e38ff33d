"""Measure how fast the head model and the renderer are on this machine.

  python scripts/bench.py head                          the head beside the usual implementation
  python scripts/bench.py render --size 224 --batch 1,8,32 --backends all --json render.json

Times are medians of warm repetitions in milliseconds. What is compared is measured in turns within one run,
so that a busy machine slows all of it alike; OMP_NUM_THREADS sets the threads.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from facegpt.config import MISSING, parse_config, run
from facegpt.files import write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.head.reference import ReferenceHead
from facegpt.render.backends import BACKENDS, choose
from facegpt.render.renderer import render

Task = Callable[[], Callable[[], object]]  # runs the forward pass, returns the backward pass


@dataclass
class BenchSettings:
    """what: head or render; stands first, its key can be left out.
    head: "builtin" or a head file.
    batch: how many faces at once, one measurement each; empty: 1,32,256 for the head, 1,8,32 for rendering.
    size: side of the rendered image in pixels.
    backends: which renderers, or all.
    triangles: about how many the head should have, else a note says how many it has; 0: no note.
    repeats: how often each is measured.
    json: file for the rows.
    """

    what: Literal["head", "render"] = MISSING
    head: str = "builtin"
    batch: list[int] = field(default_factory=list)
    size: int = 224
    backends: list[str] = field(default_factory=lambda: ["all"])
    triangles: int = 0
    repeats: int = 20
    json: Path | None = None

    def __post_init__(self) -> None:
        self.batch = self.batch or ([1, 32, 256] if self.what == "head" else [1, 8, 32])
        if min(*self.batch, self.size, self.repeats) < 1:
            raise ValueError("batch, size and repeats must be at least 1")
        unknown = set(self.backends) - {"all", *BACKENDS[1:]}
        if unknown:
            raise ValueError(f"backends {', '.join(sorted(unknown))}: only {', '.join(BACKENDS[1:])} exist")


def main(argv: list[str]) -> None:
    settings = parse_config(BenchSettings, argv, __doc__, positional=["what"])
    print(_machine())
    rows = {"head": bench_head, "render": bench_render}[settings.what](settings)
    if settings.json:
        write_json(settings.json, rows)


def bench_head(settings: BenchSettings) -> list[dict[str, object]]:
    """Vertices of random faces, and the gradient of all their parameters, beside the usual implementation."""
    head = HeadModel.open(settings.head)
    usual = ReferenceHead(head.data)

    def ours(parameters: FaceParameters) -> Tensor:
        return head(parameters).vertices

    def theirs(parameters: FaceParameters) -> Tensor:
        return usual(parameters)[0]

    rows: list[dict[str, object]] = []
    for batch in settings.batch:
        vector = random_faces(head, batch).to_vector()
        factor = torch.randn(batch, len(head.v_template), 3)
        tasks = {
            name: _task(vector, head, model, factor)
            for name, model in (("einsum per basis", theirs), ("facegpt", ours))
        }
        for name, row in measure(tasks, settings.repeats).items():
            rows.append(
                {"model": name, "device": "cpu", "batch": batch, "vertices": len(head.v_template), **row}
            )
    _print(rows, "model", "einsum per basis")
    return rows


def bench_render(settings: BenchSettings) -> list[dict[str, object]]:
    """Face parameters -> shaded image -> gradients of all parameters."""
    head = HeadModel.open(settings.head)
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    if settings.triangles and abs(settings.triangles - len(head.triangles)) > 0.1 * len(head.triangles):
        print(f"note: this head has {len(head.triangles)} triangles; give a --head with {settings.triangles}")
    asked = list(BACKENDS[1:]) if settings.backends == ["all"] else settings.backends
    rows: list[dict[str, object]] = []
    for name in devices:
        device = torch.device(name)
        backends = [backend for backend in asked if _usable(backend, device)]
        on_device = head.to(device)
        for batch in settings.batch:
            vector = random_faces(on_device, batch).to_vector()
            factor = torch.rand(batch, 3, settings.size, settings.size, device=device)

            tasks = {
                backend: _task(vector, on_device, _painter(on_device, settings.size, backend), factor)
                for backend in backends
            }
            for backend, row in measure(tasks, settings.repeats, device).items():
                shape = {"batch": batch, "size": settings.size, "triangles": len(head.triangles)}
                rows.append({"backend": backend, "device": name, **shape, **row})
    _print(rows, "backend", "torch")
    return rows


def random_faces(head: HeadModel, batch: int) -> FaceParameters:
    """Different faces that stay in the picture: coefficients of one standard deviation, small poses."""
    mean = head.mean_parameters(batch)
    random = torch.Generator().manual_seed(0)
    spread = {"shape": 1.0, "albedo": 1.0, "expression": 0.2, "pose": 0.1, "lighting": 0.1, "camera": 0.0}
    groups = {}
    for name, factor in spread.items():
        group = getattr(mean, name)
        groups[name] = group + factor * torch.randn(group.shape, generator=random).to(group)
    return mean.replace(**groups)


def measure(
    tasks: dict[str, Task], repeats: int, device: torch.device | None = None
) -> dict[str, dict[str, float | None]]:
    """Median milliseconds forward and backward of each task, in turns, and the memory of one run."""
    device = torch.device("cpu") if device is None else device
    memory: dict[str, float | None] = {}
    for name, task in tasks.items():
        task()()  # compiles, fills caches
        memory[name] = _memory(task, device)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for turn in range(repeats + 2):
        for name, task in tasks.items():
            start = _now(device)
            backward = task()
            middle = _now(device)
            backward()
            if turn >= 2:
                seconds[name].append((middle - start, _now(device) - middle))
    return {
        name: {
            "forward_ms": round(1e3 * statistics.median(forward for forward, _ in pairs), 2),
            "backward_ms": round(1e3 * statistics.median(backward for _, backward in pairs), 2),
            "total_ms": round(1e3 * statistics.median(map(sum, pairs)), 2),
            "memory_mb": memory[name],
        }
        for name, pairs in seconds.items()
    }


def _painter(head: HeadModel, size: int, backend: str) -> Callable[[FaceParameters], Tensor]:
    return lambda parameters: render(head, parameters, size, backend).image


def _task(vector: Tensor, head: HeadModel, model: Callable[[FaceParameters], Tensor], factor: Tensor) -> Task:
    """Run the model on parameter vectors (B,N), then the gradient of its output times `factor`."""

    def forward() -> Callable[[], object]:
        leaf = vector.clone().requires_grad_()
        output = model(FaceParameters.from_vector(leaf, head.layout))
        return lambda: torch.autograd.grad(output, leaf, factor)

    return forward


def _memory(task: Task, device: torch.device) -> float | None:
    """Megabytes that a run needs at its peak: of the allocator on a GPU, resident on Linux, else None."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        task()()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier runs freed goes back, or it would be used unseen
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
        before = _status("VmRSS")
        task()()
        return round((_status("VmHWM") - before) / 1e3, 1)
    except (OSError, AttributeError):
        return None


def _status(name: str) -> int:
    """A line of /proc/self/status in kB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _usable(backend: str, device: torch.device) -> bool:
    """Whether the backend runs here at speed; if not, says why. triton's interpreter is for tests only."""
    reason = ""
    if backend == "triton" and device.type != "cuda":
        reason = "it is measured on a GPU only"
    else:
        try:
            choose(backend, device)
        except (ImportError, RuntimeError, ValueError) as error:
            reason = str(error)
    if reason:
        print(f"skipped: {backend} on {device}: {reason}")
    return not reason


def _machine() -> str:
    model = "unknown processor"
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}; "
        f"torch {torch.__version__}; load {load:.1f}"
    )


def _print(rows: list[dict[str, object]], key: str, baseline: str) -> None:
    columns = [key, "device", "batch", "forward_ms", "backward_ms", "total_ms", "memory_mb"]
    print(
        "  ".join(f"{column:>16}" if column == key else f"{column:>11}" for column in columns), "  speed-up"
    )
    for row in rows:
        same = [
            other for other in rows
            if other[key] == baseline and (other["batch"], other["device"]) == (row["batch"], row["device"])
        ]  # fmt: skip
        ratio = f"{float(str(same[0]['total_ms'])) / float(str(row['total_ms'])):9.1f}x" if same else ""
        cells = [f"{row[column]!s:>16}" if column == key else f"{row[column]!s:>11}" for column in columns]
        print("  ".join(cells), ratio)


if __name__ == "__main__":
    sys.exit(run(main))

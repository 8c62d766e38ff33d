"""Where the time of a training step goes, on the parts of the real recipe.

    python scripts/bench_step.py [steps=10] [--config configs/tiny/train.yaml] [json=FILE]

Trains a few steps with a watch on every part; nothing is saved. Takes every key of train/train.py. Make a few
faces first: see `make demo`, or data_gen/synthesize.py. OMP_NUM_THREADS sets the threads.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from facegpt.config import parse_config, run
from facegpt.files import write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.losses.objective import FaceObjective
from facegpt.render.renderer import render
from facegpt.sample import FaceTargets
from facegpt.training.engine import Ranks, build_engine, start_ranks
from facegpt.training.meter import Clock, MetricMeter
from facegpt.training.prepare import TrainingParts, prepare, quiet_libraries
from facegpt.training.settings import TrainSettings
from facegpt.training.step import optimize

SECTIONS = ("data", "vision", "language model", "head", "render", "losses", "optimizer", "communication")
COLLECTIVES = (
    "all_reduce",
    "reduce",
    "broadcast",
    "all_gather_into_tensor",
    "reduce_scatter_tensor",
    "barrier",
)


class Sections:
    """Seconds per section of the present step; what runs inside another section is taken out of that one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self.inner.append(0.0)
        yield
        spent = time.perf_counter() - start
        self.seconds[name] += spent - self.inner.pop()
        self.inner[-1] += spent


@dataclass
class StepSettings(TrainSettings):
    """steps: how many steps are measured, after three to warm up. json: file for the rows."""

    run: str = "outputs/bench_step"  # nothing is written there
    steps: int = 10
    json: str | None = None


def main(argv: list[str]) -> None:
    quiet = ["overwrite=true", "data.check=0", "data.check_files=false"]
    if not any(word.startswith("--config") for word in argv):
        quiet = ["--config", "configs/tiny/train.yaml", *quiet]
    settings = parse_config(StepSettings, [*quiet, *argv], __doc__)
    settings = replace(settings, validation=replace(settings.validation, path=""))
    quiet_libraries()
    ranks = start_ranks()
    parts = prepare(settings, ranks)
    sections = Sections()
    steps = _train(settings, parts, ranks, sections, settings.steps)
    rows: list[dict[str, object]] = []
    total = sum(statistics.mean(step[name] for step in steps) for name in SECTIONS)
    for name in SECTIONS:
        mean = statistics.mean(step[name] for step in steps)
        rows.append({"section": name, "ms": round(1e3 * mean, 1), "share": round(mean / total, 3)})
        print(f"{name:>16} {1e3 * mean:9.1f} ms {mean / total:7.1%}")
    share = sum(float(str(row["share"])) for row in rows if row["section"] in ("head", "render", "losses"))
    faces = statistics.mean(step["faces"] for step in steps)
    print(f"{'sum':>16} {1e3 * total:9.1f} ms; rendering and losses {share:.1%}, {faces:.1f} faces a step")
    torch.distributed.destroy_process_group()
    if settings.json:
        write_json(settings.json, rows)


def _train(
    settings: TrainSettings, parts: TrainingParts, ranks: Ranks, sections: Sections, count: int
) -> list[dict[str, float]]:
    objective, size = parts.face_loss.objective, settings.data.render_size
    parts.face_loss = TimedFaceLoss(parts.head, objective, size, sections)  # type: ignore[assignment]
    tower = parts.model.vlm.get_submodule(_vision_tower(parts.model.vlm))
    tower.forward = _timed(tower.forward, sections, "vision")  # type: ignore[method-assign]
    for name in COLLECTIVES:
        setattr(torch.distributed, name, _timed(getattr(torch.distributed, name), sections, "communication"))
    engine = build_engine(parts.model, settings.optimization, ranks)
    meter = MetricMeter(parts.stream.names, settings.objective, ranks)
    clock = StepClock(ranks.device, sections)
    engine.train()
    batches = parts.stream.steps(1)
    found: list[dict[str, float]] = []
    for step in range(1, count + 4):
        sections.seconds.clear()
        with sections("data"):
            micro_batches = [batch.to(ranks.device) for batch in next(batches)]
        optimize(engine, parts.face_loss, micro_batches, settings, ranks, meter, clock, step)
        if step > 3:  # the first compile and warm up
            faces = sum(len(batch.faces) for batch in micro_batches if batch.faces is not None)
            found.append(defaultdict(float, sections.seconds) | {"faces": float(faces)})
    return found


class StepClock(Clock):
    """The recipe's clock, booked here: what it calls the model is the language model but for the tower."""

    NAMES = {"model": "language model", "render": "losses", "optimizer": "optimizer"}  # noqa: RUF012

    def __init__(self, device: torch.device, sections: Sections) -> None:
        super().__init__(device)
        self.sections = sections

    def __call__(self, section: str) -> Any:
        return self.sections(self.NAMES[section])


class TimedFaceLoss:
    """The recipe's `FaceLoss` in two pieces: losses on detached images, then the renderer's backward pass.

    The head alone is timed by a second forward and backward pass of it, and taken off the renderer's time.
    """

    def __init__(self, head: HeadModel, objective: FaceObjective, size: int, sections: Sections) -> None:
        self.head, self.objective, self.size, self.sections = head, objective, size, sections

    def __call__(
        self, vectors: Tensor, targets: FaceTargets | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        gradient = torch.zeros_like(vectors)
        if targets is None or len(targets) == 0:
            return gradient, None, {}
        leaf = vectors[: len(targets)].detach().float().requires_grad_()
        layout = self.objective.layout
        with torch.enable_grad():
            with self.sections("render"):
                rendering = render(self.head, FaceParameters.from_vector(leaf, layout), self.size)
            image, landmarks = (
                part.detach().requires_grad_() for part in (rendering.image, rendering.landmarks)
            )
            detached = replace(rendering, image=image, landmarks=landmarks)
            direct_leaf = leaf.detach().requires_grad_()
            losses, parts = self.objective(detached, FaceParameters.from_vector(direct_leaf, layout), targets)
            inputs = (image, landmarks, direct_leaf)
            grad_image, grad_landmarks, direct = torch.autograd.grad(losses.sum(), inputs)
            with self.sections("render"):
                outputs, grads = (rendering.image, rendering.landmarks), (grad_image, grad_landmarks)
                (through,) = torch.autograd.grad(outputs, leaf, grads)
            start = time.perf_counter()
            output = self.head(FaceParameters.from_vector(leaf, layout))
            ones = torch.ones_like(output.vertices), torch.ones_like(output.landmarks)
            torch.autograd.grad((output.vertices, output.landmarks), leaf, ones)
            spent = time.perf_counter() - start
        self.sections.seconds["head"] += spent
        self.sections.seconds["render"] -= spent
        self.sections.inner[-1] += spent  # a repetition: it belongs to no section
        gradient[: len(targets)] = through + direct
        return gradient, losses.detach(), {name: part.detach() for name, part in parts.items()}


def _timed(function: Callable[..., Any], sections: Sections, name: str) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with sections(name):
            return function(*args, **kwargs)

    return timed


def _vision_tower(vlm: nn.Module) -> str:
    return next(name for name, _ in vlm.named_modules() if name.endswith("vision_tower"))


if __name__ == "__main__":
    sys.exit(run(main))

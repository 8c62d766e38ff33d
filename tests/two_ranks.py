"""One rank of two with unlike batches; `test_two_ranks.py` starts both and compares with plain PyTorch.

python two_ranks.py OUT     (with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT set)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from small_head import small_head
from torch import Tensor
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from facegpt.data.conversation import encode_conversation, encode_prompt
from facegpt.losses.objective import FaceObjective
from facegpt.model.checkpoint import load_weights
from facegpt.model.facegpt import FaceGPT, build_facegpt
from facegpt.model.generation import generate
from facegpt.model.spec import LoraSettings
from facegpt.sample import Batch, FaceTargets, Message
from facegpt.standins.tiny_llava import TINY_RANDOM, build_tiny_llava
from facegpt.training.engine import autocast, build_engine, gathered_parameters, start_ranks, zero_stage
from facegpt.training.meter import Clock, MetricMeter
from facegpt.training.runs import Run, resume
from facegpt.training.settings import DataSettings, OptimizationSettings, SourceSettings, TrainSettings
from facegpt.training.step import FaceLoss, optimize

SIZE, STEPS = 48, 3
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "deepspeed"
VARIANTS = ("zero2", "zero3", "zero2 bfloat16", "zero3 bfloat16")
# What each rank holds in its two micro-batches: at no time do both have the same.
PLAN = [["text", "photograph"], ["two faces", "text"]]
TURNS = {
    "text": ("Say hi", "hi there now"),
    "photograph": ("<image>\nSay hi", "here <FACE>"),
    "two faces": ("Say hi", "the <FACE> is here <FACE>"),
}


def settings(variant: str = "zero2", folder: Path | None = None) -> TrainSettings:
    """A variant is a file of configs/deepspeed, made to split every weight at ZeRO-3, and a dtype."""
    file = CONFIGS / f"{variant[:5]}.json"
    if folder is not None:
        config = json.loads(file.read_text())
        if config["zero_optimization"]["stage"] == 3:
            # DeepSpeed keeps smaller tensors whole on every rank, and all of ours are smaller than its usual.
            config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        file = folder / f"{variant}.json"
        file.write_text(json.dumps(config))
    chosen = TrainSettings(
        run="unused" if folder is None else str(folder / variant),
        data=DataSettings(sources={"all": SourceSettings("instruct", "unused")}, render_size=SIZE),
        optimization=OptimizationSettings(
            steps=20,
            batch=1,
            accumulation=2,
            lr=1e-3,
            face_head_lr=5e-4,
            warmup=2,
            deepspeed=str(file),
        ),
    )
    chosen.objective.perceptual = 0.0
    return chosen


def backbone() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    words = [text for turn in TURNS.values() for text in turn] * 5
    return build_tiny_llava([*words, "USER: ASSISTANT:"], TINY_RANDOM)


def build(dtype: torch.dtype = torch.float32) -> FaceGPT:
    """The model of the test; only the frozen backbone has another dtype than float32."""
    torch.manual_seed(0)
    vlm, processor = backbone()
    mean = small_head().mean_parameters()
    return build_facegpt(
        vlm.to(dtype), processor, mean.layout, mean.to_vector()[0], LoraSettings(4, 8, 0.0)
    ).train()


def objective(model: FaceGPT) -> FaceObjective:
    return FaceObjective(settings().objective, None, model.spec.layout)


def batch(model: FaceGPT, kind: str, seed: int) -> Batch:
    random = torch.Generator().manual_seed(seed)
    question, answer = TURNS[kind]
    encoded = encode_conversation([Message("user", question), Message("assistant", answer)], model.processor)
    ids = torch.tensor([encoded.input_ids])
    count = answer.count("<FACE>")
    faces = FaceTargets(
        torch.rand(count, 3, SIZE, SIZE, generator=random),
        SIZE / 2 + 10 * torch.randn(count, 68, 2, generator=random),
        torch.rand(count, SIZE, SIZE, generator=random),
    )
    pixels = torch.rand(1, 3, 32, 32, generator=random) if "<image>" in question else None
    mask = torch.tensor([encoded.label_mask])
    return Batch([kind], ["all"], ids, torch.ones_like(ids), mask, pixels, faces if count else None)


def prompt_of(model: FaceGPT, rank: int) -> tuple[Tensor, Tensor]:
    """input_ids (1,T) and attention mask of a question that only this rank asks."""
    messages = [Message("user", ["Say hi", "here is the face, say hi there"][rank])]
    ids = torch.tensor([encode_prompt(messages, model.processor)])
    return ids, torch.ones_like(ids)


def main(out: Path) -> None:
    ranks = start_ranks()
    for variant in VARIANTS:
        dtype = torch.bfloat16 if "bfloat16" in variant else torch.float32
        chosen, model = settings(variant, out), build(dtype)
        face_loss = FaceLoss(small_head(), objective(model), SIZE)
        meter, clock = MetricMeter(["all"], chosen.objective, ranks), Clock(ranks.device)
        micro_batches = [batch(model, kind, 10 * ranks.rank + n) for n, kind in enumerate(PLAN[ranks.rank])]
        engine = build_engine(model, chosen.optimization, ranks)
        rows = []
        for step in range(1, STEPS + 1):
            optimize(engine, face_loss, micro_batches, chosen, ranks, meter, clock, step)
            rows.append({**meter.report(), "grad_norm": float(engine.get_global_grad_norm())})
        held = sum(value.numel() for value in model.parameters())  # on this rank, between the passes
        weights = trained_weights(model, engine)
        prompt, mask = prompt_of(model, ranks.rank)
        with torch.no_grad(), autocast(engine):
            synced = zero_stage(engine) == 3
            reply = generate(model, prompt, mask, max_new_tokens=6, synced_gpus=synced)[0]
        replies = ranks.gather(reply.ids.tolist())
        checkpoint = Run(chosen, small_head().id, ranks).checkpoint(STEPS, engine, model, meter)
        optimize(engine, face_loss, micro_batches, chosen, ranks, meter, clock, STEPS + 1)
        further = trained_weights(model, engine)

        model = build(dtype)
        load_weights(model, checkpoint)  # before the engine, which may split them
        engine = build_engine(model, chosen.optimization, ranks)
        assert resume(engine, checkpoint, meter, ranks) == STEPS
        optimize(engine, face_loss, micro_batches, chosen, ranks, meter, clock, STEPS + 1)
        resumed = trained_weights(model, engine)
        if ranks.first:
            found = {"rows": rows, "weights": weights, "replies": replies, "held": held}
            torch.save({**found, "further": further, "resumed": resumed}, out / f"{variant}.pt")
        ranks.barrier()


def trained_weights(model: FaceGPT, engine: Any) -> dict[str, Tensor]:
    """Copies of the trained weights in their full shapes; every rank must call it."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    with gathered_parameters(engine, trained.values()):
        return {name: value.detach().clone() for name, value in trained.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""One rank of two with unlike batches; `test_two_ranks.py` starts both and compares with plain PyTorch.

python two_ranks.py OUT     (with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT set)
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from small_head import small_head
from torch import Tensor

from facegpt.data.conversation import encode_conversation, encode_prompt
from facegpt.losses.objective import FaceObjective
from facegpt.model.facegpt import FaceGPT, build_facegpt
from facegpt.model.generation import generate
from facegpt.model.spec import LoraSettings
from facegpt.sample import Batch, FaceTargets, Message
from facegpt.standins.tiny_llava import TINY_RANDOM, build_tiny_llava
from facegpt.training.settings import DataSettings, OptimizationSettings, SourceSettings, TrainSettings

SIZE, STEPS = 48, 3
# What each rank holds in its two micro-batches: at no time do both have the same.
PLAN = [["text", "photograph"], ["two faces", "text"]]
TURNS = {
    "text": ("Say hi", "hi there now"),
    "photograph": ("<image>\nSay hi", "here <FACE>"),
    "two faces": ("Say hi", "the <FACE> is here <FACE>"),
}


def settings(stage: int, accumulation: int = 2) -> TrainSettings:
    own = TrainSettings(
        run="unused",
        data=DataSettings(sources={"all": SourceSettings("instruct", "unused")}, render_size=SIZE),
        optimization=OptimizationSettings(
            steps=20,
            batch=1,
            accumulation=accumulation,
            lr=1e-3,
            face_head_lr=5e-4,
            warmup=2,
            deepspeed=str(Path(__file__).resolve().parents[1] / f"configs/deepspeed/zero{stage}.json"),
        ),
    )
    own.objective.perceptual = 0.0
    return own


def build() -> FaceGPT:
    torch.manual_seed(0)
    words = [text for turn in TURNS.values() for text in turn] * 5
    backbone, processor = build_tiny_llava([*words, "USER: ASSISTANT:"], TINY_RANDOM)
    mean = small_head().mean_parameters()
    return build_facegpt(
        backbone, processor, mean.layout, mean.to_vector()[0], LoraSettings(4, 8, 0.0)
    ).train()


def objective(model: FaceGPT) -> FaceObjective:
    return FaceObjective(settings(2).objective, None, model.spec.layout)


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
    from facegpt.training.engine import build_engine, gathered_parameters, start_ranks, zero_stage
    from facegpt.training.meter import Clock, MetricMeter
    from facegpt.training.step import FaceLoss, optimize

    ranks = start_ranks()
    for stage in (2, 3):
        own, model = settings(stage), build()
        face_loss = FaceLoss(small_head(), objective(model), SIZE)
        meter, clock = MetricMeter(["all"], own.objective, ranks), Clock(ranks.device)
        micro_batches = [batch(model, kind, 10 * ranks.rank + n) for n, kind in enumerate(PLAN[ranks.rank])]
        engine = build_engine(model, own.optimization, ranks)
        rows = []
        for step in range(STEPS):
            optimize(engine, face_loss, micro_batches, own, ranks, meter, clock, step)
            rows.append({**meter.report(), "grad_norm": float(engine.get_global_grad_norm())})
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        with gathered_parameters(engine, trained.values()):
            weights = {name: value.detach().clone() for name, value in trained.items()}
        prompt, mask = prompt_of(model, ranks.rank)
        with torch.no_grad():
            synced = zero_stage(engine) == 3
            reply = generate(model, prompt, mask, max_new_tokens=6, synced_gpus=synced)[0]
        replies = ranks.gather(reply.ids.tolist())
        if ranks.first:
            torch.save({"rows": rows, "weights": weights, "replies": replies}, out / f"zero{stage}.pt")
        ranks.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

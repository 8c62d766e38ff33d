"""A world for training runs in miniature: random tiny LLaVA, small head, random recogniser, twelve faces."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
import torch
from data_files import face_row, write_annotations, write_shards
from recipes import load_recipe
from safetensors.torch import save_file
from small_head import small_head_data

from facegpt.config import load_config
from facegpt.data.templates import ANSWERS, IMAGE_PROMPTS
from facegpt.head.files.format import save_head
from facegpt.perception.tiny_network import TinyNetwork
from facegpt.standins.tiny_llava import TINY_RANDOM, build_tiny_llava, save_tiny_llava
from facegpt.training.engine import Ranks, start_ranks
from facegpt.training.interrupt import Interrupt
from facegpt.training.settings import TrainSettings

CHAT = [
    {"from": "human", "value": "What is a jaw?"},
    {"from": "gpt", "value": "The lower bone of the face."},
]


@dataclass
class World:
    """Folder of the parts, and the overrides that make a short run on them."""

    path: Path

    def overrides(self, run: Path, *more: str) -> list[str]:
        faces = self.path / "faces"
        return [
            f"run={run}",
            f"model.backbone={self.path / 'llava'}",
            f"model.head={self.path / 'head.npz'}",
            f"model.recognizer={self.path / 'recognizer.safetensors'}",
            "model.lora.rank=4",
            "model.lora.alpha=8",
            "model.lora.dropout=0.1",
            "data.render_size=48",
            "data.max_length=256",
            f"data.sources.photographs={{kind: image_to_face, path: {faces}, weight: 2}}",
            f"data.sources.descriptions={{kind: text_to_face, path: {faces}, weight: 1}}",
            f"data.sources.chat={{kind: instruct, path: {self.path / 'chat.json'}, weight: 1}}",
            "optimization.steps=4",
            "optimization.batch=2",
            "optimization.accumulation=2",
            "optimization.lr=1e-3",
            "optimization.warmup=2",
            "logging.every=1",
            "logging.progress=false",
            "checkpoint.every=2",
            *more,
        ]

    def settings(self, run: Path, *more: str) -> TrainSettings:
        return load_config(TrainSettings, None, self.overrides(run, *more))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    path = tmp_path_factory.mktemp("world")
    texts = [*ANSWERS, *IMAGE_PROMPTS, "USER: ASSISTANT:"] * 3
    save_tiny_llava(*build_tiny_llava(texts, TINY_RANDOM), path / "llava")
    save_head(small_head_data(), path / "head.npz")
    torch.manual_seed(0)
    save_file(TinyNetwork(folded=True).state_dict(), path / "recognizer.safetensors")
    write_shards(path / "faces", [face_row(number) for number in range(12)], shard=6)
    write_annotations(path / "faces", list(range(12)))
    rows = [{"id": f"chat-{number}", "conversations": CHAT} for number in range(5)]
    (path / "chat.json").write_text(json.dumps(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", path / "cache")
        patch.setenv("HF_DATASETS_CACHE", str(path / "cache"))
        yield World(path)


@pytest.fixture(scope="session")
def ranks() -> Ranks:
    """This process as the only rank; the process group stays up for all tests of the session."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return start_ranks()


@pytest.fixture(scope="session")
def run_training(ranks: Ranks) -> Callable[[TrainSettings], list[dict]]:
    """Train in this process and return the lines of metrics.jsonl."""
    train = load_recipe("train/train.py")

    def run(settings: TrainSettings) -> list[dict]:
        train.train(settings, train.prepare(settings, ranks), ranks, Interrupt())
        lines = (Path(settings.run) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run

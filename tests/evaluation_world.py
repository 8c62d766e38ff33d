"""The evaluation recipes' world in miniature: a small head, twenty rendered faces, a tiny random model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from data_files import encode, write_shards
from PIL import Image
from small_head import small_head_data
from talking_model import talking_model

from facegpt.files import write_json
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.model.checkpoint import save_checkpoint
from facegpt.render.renderer import render
from facegpt.standins.synthetic import sample_parameters

SIZE, COUNT = 48, 20


@dataclass
class World:
    """head.npz, faces/, chat.json, and two runs: `speaks` answers all with a face, `silent` nothing."""

    path: Path
    head: HeadModel
    truth: FaceParameters

    def words(self, run: str, out: Path, *more: str) -> list[str]:
        return [
            f"checkpoint={self.path / run}",
            f"data={self.path / 'faces'}",
            f"head={self.path / 'head.npz'}",
            f"out={out}",
            "device=cpu",
            "max_new_tokens=2",
            *more,
        ]


def make_world(path: Path) -> World:
    save_head(small_head_data(), path / "head.npz")
    head = HeadModel.load(path / "head.npz")
    truth = sample_parameters(head, COUNT, torch.Generator().manual_seed(0))
    write_faces(path / "faces", head, truth)
    chat = [{"from": "human", "value": "What is a jaw?"}, {"from": "gpt", "value": "A bone."}]
    write_json(path / "chat.json", [{"id": f"chat-{n}", "conversations": chat} for n in range(3)])
    for name, speaks in (("speaks", True), ("silent", False)):
        model = talking_model(head, path / "llava", speaks)
        save_checkpoint(model, path / name / "checkpoints" / "step_000007", head.id, {"step": 7})
    return World(path, head, truth)


def write_faces(
    folder: Path, head: HeadModel, truth: FaceParameters, described: bool = True, known: bool = True
) -> None:
    """Face records of `truth` on black, with descriptions, and with their parameters if `known`."""
    shown = render(head, truth, SIZE)
    rows = []
    for index in range(len(truth)):
        image = (255 * shown.image[index].clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
        mask = (255 * shown.skin_mask[index]).byte().numpy()
        rows.append(
            {
                "id": f"face-{index}",
                "image": encode(Image.fromarray(image)),
                "landmarks": shown.landmarks[index].flatten().tolist(),
                "skin_mask": encode(Image.fromarray(mask)),
                "parameters": truth[index].to_vector()[0].tolist() if known else None,
            }
        )
    write_shards(folder, rows, shard=8)
    write_json(folder / "dataset.json", {"head_id": head.id, "count": len(rows)})
    if described:
        lines = [
            {
                "id": row["id"],
                "description": {"pose": f"It looks {n} degrees up.", "shape": "A long face."},
                "conversation": [["Is it dark?", "No."]],
            }
            for n, row in enumerate(rows)
        ]
        (folder / "descriptions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

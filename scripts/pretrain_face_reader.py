"""Train the reader of the small LLaVA's face tower: `python scripts/pretrain_face_reader.py`.

The reader sums up what the 64 tokens of a picture say of a face (`facegpt.model.face_reader`). Here it
learns to say the facts of rendered faces, whose parameters are known because they were drawn: all 236 face
parameters and the 68 landmarks. The landmark network before it, made for photographs of people, stays as it
is; renderings are worn down as photographs are (`facegpt.standins.photographic`) so that what is learnt
carries over to them.

    WORK/faces-*.npz                        pieces: map, thumbnail, parameters, landmarks; kept and reused
    OUT/tower.safetensors, OUT/tower.json   the weights that ship with the package, and what they are worth

Rendering gives 24 to 38 faces a second and process; 4,000 steps took 105 seconds on one core.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from facegpt.config import at_least, parse_config, run
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.machine import package_versions
from facegpt.model.face_reader import FaceReader
from facegpt.model.face_tower import FaceTower
from facegpt.model.small_llava import ASSETS, read_trunk
from facegpt.parts import part_path
from facegpt.render.renderer import render
from facegpt.sample import REFERENCE_SIZE
from facegpt.standins.photographic import photographic
from facegpt.standins.synthetic import background, photograph, sample_parameters

AT_ONCE = 25  # faces rendered together; part of what the seed means
WORN = 0.6  # share of the renderings that are worn down as photographs are
ZOOMED, ZOOM = 0.5, (-0.15, 0.3)  # share of other crops than our own data's, and their log scale
# Weights of the squared errors, each in units of the fact's own spread.
WEIGHTS = {"pose": 6.0, "camera": 4.0, "expression": 2.0}
LANDMARK_WEIGHT = 1.5
INPUT_NOISE = 0.1  # standard deviations, added to tokens in training


@dataclass
class ReaderSettings:
    """out: folder of the weights. work: folder of the faces. faces: rendered in all. held_out: of them for
    measuring only. piece: faces per file. workers: processes that render. steps, batch, lr: of the training.
    width, hidden: of the reader. seed: of faces, weights and batches.
    """

    out: str = str(ASSETS)
    work: str = "outputs/face_reader"
    faces: int = 40_000
    held_out: int = 2000
    piece: int = 2000
    workers: int = 2
    steps: int = 4000
    batch: int = 128
    lr: float = 1.5e-3
    width: int = 32
    hidden: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "faces", "held_out", "piece", "workers", "steps", "batch", "width", "hidden")
        if self.held_out >= self.faces:
            raise ValueError(
                f"held_out is {self.held_out} of {self.faces} faces; none are left to learn from"
            )


def main(argv: list[str]) -> None:
    settings = parse_config(ReaderSettings, argv, __doc__)
    faces = render_faces(settings)
    tokens, center, spread = standardize(faces)
    facts = np.concatenate([faces["parameters"], faces["landmarks"].reshape(len(tokens), -1)], axis=1)
    reader, figures = train(tokens, torch.from_numpy(facts), settings)
    weights = {f"reader.{name}": weight for name, weight in reader.state_dict().items()}
    weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    out = Path(settings.out)
    with atomic_path(out / "tower.safetensors") as path:
        save_file({**weights, "center": center, "spread": spread}, path)
    about = {
        "settings": asdict(settings),
        "versions": package_versions(("torch", "numpy")),
        "held out": figures,
    }
    write_json(out / "tower.json", about)
    print(json.dumps(figures, indent=1))


def render_faces(settings: ReaderSettings) -> dict[str, np.ndarray]:
    """The pieces of all faces, joined; those that are missing are rendered first, several at once."""
    work = Path(settings.work)
    work.mkdir(parents=True, exist_ok=True)
    pieces = [
        (work / f"faces-{settings.seed}-{start:06d}-{count}.npz", count, f"{settings.seed}/{start}")
        for start in range(0, settings.faces, settings.piece)
        for count in [min(settings.piece, settings.faces - start)]
    ]
    missing = [piece for piece in pieces if not piece[0].exists()]
    with multiprocessing.get_context("spawn").Pool(settings.workers, torch.set_num_threads, (1,)) as pool:
        for _ in tqdm(
            pool.imap_unordered(render_piece, missing), desc="faces", total=len(missing), unit="file"
        ):
            pass
    stored = [np.load(path) for path, _, _ in pieces]
    return {name: np.concatenate([piece[name] for piece in stored]) for name in stored[0].files}


def render_piece(piece: tuple[Path, int, str]) -> None:
    """Render `count` faces from a seed of their own and write what the tower sees of them."""
    path, count, seed = piece
    generator = torch.Generator().manual_seed(int.from_bytes(seed.encode(), "big") % 2**63)
    head = HeadModel.builtin()
    config, weights = read_trunk(part_path("face_landmarker"))
    tower = FaceTower(config).eval()
    tower.trunk.load_state_dict(weights)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("map", "cells", "parameters", "landmarks")}
    for start in range(0, count, AT_ONCE):
        parameters = other_crops(sample_parameters(head, min(AT_ONCE, count - start), generator), generator)
        pixels, landmarks = pictures(head, parameters, config.image_size, generator)
        with torch.no_grad():
            tokens = tower.local_tokens(pixels)  # neither centered nor scaled yet
        found["map"].append(tokens[..., : config.channels].half().numpy())
        found["cells"].append((255 * tokens[..., config.channels :]).round().byte().numpy())
        found["parameters"].append(parameters.to_vector().numpy())
        found["landmarks"].append((landmarks / REFERENCE_SIZE).numpy())
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **{name: np.concatenate(arrays) for name, arrays in found.items()})  # type: ignore[arg-type]


def other_crops(parameters: FaceParameters, generator: torch.Generator) -> FaceParameters:
    """Half of the faces nearer or farther: crops of photographs follow the landmark box, ours the camera."""
    count = len(parameters)
    chosen = torch.rand(count, generator=generator) < ZOOMED
    zoom = torch.exp(ZOOM[0] + (ZOOM[1] - ZOOM[0]) * torch.rand(count, generator=generator))
    camera = parameters.camera.clone()
    camera[:, 0] *= torch.where(chosen, zoom, 1.0)
    return parameters.replace(camera=camera)


def pictures(
    head: HeadModel, parameters: FaceParameters, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures (n,3,side,side) as the processor would give them, and landmarks (n,68,2) in 224ths."""
    with torch.no_grad():
        rendering = render(head, parameters, REFERENCE_SIZE)
    images = photograph(rendering, background(len(parameters), REFERENCE_SIZE, generator), generator)
    worn = torch.rand(len(images), generator=generator) < WORN
    if bool(worn.any()):
        images[worn] = photographic(images[worn], rendering.mask[worn], rendering.landmarks[worn], generator)
    larger = F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False)
    return larger.clamp(0, 1), rendering.landmarks


def standardize(faces: dict[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (n,64,176) float16 of mean 0 and deviation 1, their center (176,) and spread (176,)."""
    sample = slice(None, None, max(1, len(faces["map"]) // 4000))
    raw = np.concatenate([faces["map"][sample].astype(np.float32), faces["cells"][sample] / 255.0], axis=2)
    center, spread = raw.mean(axis=(0, 1)), raw.std(axis=(0, 1)).clip(min=1e-3)
    channels = faces["map"].shape[2]
    tokens = np.empty((*faces["map"].shape[:2], len(center)), np.float16)
    tokens[..., :channels] = (faces["map"] - center[:channels]) / spread[:channels]
    tokens[..., channels:] = (faces["cells"] / np.float32(255) - center[channels:]) / spread[channels:]
    return torch.from_numpy(tokens), torch.from_numpy(center).float(), torch.from_numpy(spread).float()


def train(tokens: Tensor, facts: Tensor, settings: ReaderSettings) -> tuple[FaceReader, dict[str, Any]]:
    """A reader of standardized facts, and how well it reads those of faces that were held out."""
    torch.manual_seed(settings.seed)
    layout = HeadModel.builtin().layout
    count = len(tokens) - settings.held_out
    mean, deviation = facts[:count].mean(0), facts[:count].std(0).clamp(min=1e-3)
    wanted = (facts - mean) / deviation
    weight = torch.full((facts.shape[1],), LANDMARK_WEIGHT)
    weight[: layout.total] = torch.cat(
        [torch.full((size,), WEIGHTS.get(name, 1.0)) for name, size in layout.sizes.items()]
    )
    reader = FaceReader(tokens.shape[1], tokens.shape[2], settings.width, facts.shape[1], settings.hidden)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=settings.lr, weight_decay=0.05)
    bar = tqdm(range(settings.steps), desc="reader", mininterval=5)
    for step in bar:
        rows = torch.randint(count, (settings.batch,))
        seen = tokens[rows].float()
        seen += INPUT_NOISE * torch.randn(seen.shape)
        loss = ((reader(seen) - wanted[rows]).square() * weight).mean()
        for group in optimizer.param_groups:
            decay = 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
            group["lr"] = settings.lr * min(1.0, (step + 1) / 100) * decay
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return reader, measure(reader, tokens[count:], wanted[count:], deviation, settings)


@torch.no_grad()
def measure(
    reader: FaceReader, tokens: Tensor, wanted: Tensor, deviation: Tensor, settings: ReaderSettings
) -> dict[str, Any]:
    """Correlations with the truth per group, and the mean landmark error in pixels at 224."""
    said = torch.cat([reader(part.float()) for part in tokens.split(256)])
    moved, truth = said - said.mean(0), wanted - wanted.mean(0)
    r = (moved * truth).sum(0) / (moved.norm(dim=0) * truth.norm(dim=0)).clamp(min=1e-6)
    layout, first = HeadModel.builtin().layout, 0
    figures: dict[str, Any] = {"n": len(tokens)}
    for name, size in layout.sizes.items():
        figures[f"mean r, {name}"] = round(float(r[first : first + size].mean()), 3)
        first += size
    figures["mean r, first 20 of shape"] = round(float(r[:20].mean()), 3)
    wrong = ((said - wanted) * deviation)[:, layout.total :].unflatten(1, (-1, 2)) * REFERENCE_SIZE
    figures["landmarks, px at 224"] = round(float(wrong.norm(dim=2).mean()), 2)
    return figures


if __name__ == "__main__":
    sys.exit(run(main))

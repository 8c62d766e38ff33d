"""Pretrain the tiny LLaVA, the stand-in for llava-1.5-7b-hf: `python scripts/pretrain_tiny_llava.py out=DIR`.

1. Render faces of the built-in head and read their facts (`facegpt/standins/language.py`).
2. Vision tower: regress the facts from the patch features through a throw-away probe. It plays the part of
   CLIP's pretraining; the tower is frozen from here on.
3. Projector and language model: conversations about faces, seen or told in words, and plain text about
   situations and feelings; a second throw-away probe asks the state behind an image or such words for the
   facts, so that it learns to look and to read.
4. Measure on held-out faces and held-out situations; save weights (bfloat16) and figures.

Every step is seeded and cached under `work`, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from facegpt.config import parse_config, run
from facegpt.data.conversation import Encoded, encode_conversation
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.model.backbone import resolve_dtype
from facegpt.render.renderer import render
from facegpt.standins.answers import answer_accuracy, language_states
from facegpt.standins.augmentation import LARGEST_MOVE, fact_vector, mirror_facts, move_facts, move_images
from facegpt.standins.conversations import (
    plain_conversation,
    questions_about,
    reading_conversation,
    to_messages,
)
from facegpt.standins.language import POINTS, Facts, read_facts
from facegpt.standins.synthetic import background, photograph, sample_parameters
from facegpt.standins.tiny_llava import TinySize, build_tiny_llava, save_tiny_llava

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


@dataclass
class TinyLlavaSettings:
    """out: folder for the model. work: folder of what is cached between runs. seed: of everything drawn.
    faces, held_out: how many to train on and to measure on.
    vision_steps, vision_batch, vision_lr: pretraining of the tower.
    language_steps, language_batch, language_lr: pretraining of projector and language model.
    plain_share: how many of the conversations are about no face.
    reading_share: how many tell of a face in words instead of showing it. threads: of torch.
    """

    out: str = "facegpt/assets/tiny_llava"
    work: str = "outputs/pretrain"
    seed: int = 0
    faces: int = 15360
    held_out: int = 512
    vision_steps: int = 6000
    vision_batch: int = 32
    vision_lr: float = 1.2e-3
    language_steps: int = 1600
    language_batch: int = 16
    language_lr: float = 2e-3
    plain_share: float = 0.2
    reading_share: float = 0.2
    threads: int = 2


def main(settings: TinyLlavaSettings) -> None:
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    work = Path(settings.work)
    work.mkdir(parents=True, exist_ok=True)
    head = HeadModel.builtin()
    images, facts = make_faces(head, settings, work)
    model, processor = make_model(facts, settings)
    features = pretrain_vision(model, images, facts, settings, work)
    pretrain_language(model, processor, features, facts, settings, work)
    figures = answer_accuracy(model, processor, features, facts, settings.held_out, settings.seed)
    save_tiny_llava(model, processor, Path(settings.out))
    recorded = {key: value for key, value in asdict(settings).items() if key not in ("out", "work")}
    write_json(
        Path(settings.out) / "pretraining.json",
        {"settings": recorded, "head_id": head.id, "held_out": figures},
    )
    print(json.dumps(figures, indent=2))


def make_faces(head: HeadModel, settings: TinyLlavaSettings, work: Path) -> tuple[np.ndarray, list[Facts]]:
    """uint8 images (n,3,112,112) and their facts; the last `held_out` are never trained on."""
    size = TinySize().image
    path = work / f"faces-{head.id}-{settings.seed}-{settings.faces}.npz"
    if not path.exists():
        generator = torch.Generator().manual_seed(settings.seed)
        images, vectors = [], []
        for _ in tqdm(range(settings.faces // 32), desc="render faces", mininterval=5):
            parameters = sample_parameters(head, 32, generator)
            with torch.no_grad():
                image = photograph(
                    render(head, parameters, 2 * size), background(32, 2 * size, generator), generator
                )
            images.append((F.avg_pool2d(image, 2).clamp(0, 1) * 255).round().byte().numpy())
            vectors.append(parameters.to_vector().numpy())
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, images=np.concatenate(images), vectors=np.concatenate(vectors))
    stored = np.load(path)
    parameters = FaceParameters.from_vector(torch.from_numpy(stored["vectors"]), head.layout)
    facts = [
        f
        for start in range(0, len(parameters), 256)
        for f in read_facts(head, parameters[start : start + 256])
    ]
    return stored["images"], facts


def make_model(
    facts: list[Facts], settings: TinyLlavaSettings
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """An untrained model whose vocabulary was learnt from what is said of the first faces."""
    rng = random.Random(settings.seed)
    texts = []
    for f in facts[:2000]:
        pairs = questions_about(f, rng, 12) + plain_conversation(rng) + reading_conversation(f, rng)[1:]
        texts += [text for pair in pairs for text in pair]
    return build_tiny_llava(texts, TinySize(), settings.seed)


def normalize(images: np.ndarray) -> Tensor:
    """uint8 (n,3,h,w) -> CLIP's pixel values."""
    pixels = torch.from_numpy(images).float().div_(255)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class Probe(nn.Module):
    """Reads facts from patch features, by attention and by place; thrown away after the vision stage."""

    def __init__(self, hidden: int, patches: int, facts: int, queries: int = 16):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, hidden) * 0.02)
        self.norm = nn.LayerNorm(hidden)
        self.attention = nn.MultiheadAttention(hidden, 6, batch_first=True)
        self.out = nn.Linear(queries * hidden, facts)
        self.by_place = nn.Linear(patches * hidden, facts)

    def forward(self, features: Tensor) -> Tensor:  # (B, P, H) -> (B, facts)
        features = self.norm(features)
        queries = self.queries.expand(len(features), -1, -1)
        read = self.attention(queries, features, features, need_weights=False)[0]
        return self.out(read.flatten(1)) + self.by_place(features.flatten(1))


def place_positions(tower: Any) -> None:
    """Start the position embeddings as sine waves in x and y, so that the places need not be learnt."""
    embedding = tower.embeddings.position_embedding.weight
    side, hidden = round((len(embedding) - 1) ** 0.5), embedding.shape[1]
    frequency = 10000.0 ** -(torch.arange(hidden // 4) / (hidden / 4))
    angles = torch.arange(side)[:, None] * frequency
    wave = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, hidden / 2)
    grid = torch.cat([wave[:, None].expand(-1, side, -1), wave[None].expand(side, -1, -1)], dim=2)
    with torch.no_grad():
        embedding[1:] = 0.5 * grid.flatten(0, 1)


def patch_features(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """What the vision tower says of images (B,3,h,w): (B,patches,H), without the CLS token."""
    return model.model.vision_tower(pixels).last_hidden_state[:, 1:]


def pretrain_vision(
    model: LlavaForConditionalGeneration,
    images: np.ndarray,
    facts: list[Facts],
    settings: TinyLlavaSettings,
    work: Path,
) -> Tensor:
    """Train the tower through the probe; returns the frozen tower's patch features of all images, float16."""
    tower = model.model.vision_tower
    targets = torch.tensor([[fact_vector(f), fact_vector(mirror_facts(f))] for f in facts])  # (n, 2, facts)
    path, train = work / "vision.pt", len(images) - settings.held_out
    if path.exists():
        tower.load_state_dict(torch.load(path, weights_only=True))
    else:
        place_positions(tower)
        probe = Probe(
            tower.config.hidden_size, images.shape[-1] ** 2 // tower.config.patch_size**2, targets.shape[2]
        )
        parameters = [*(p for p in tower.parameters() if p.requires_grad), *probe.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=settings.vision_lr, betas=(0.9, 0.98), weight_decay=0.02)
        generator = torch.Generator().manual_seed(settings.seed)
        bar = tqdm(range(settings.vision_steps), desc="vision", mininterval=5)
        for step in bar:
            rows = torch.randint(train, (settings.vision_batch,), generator=generator)
            flipped = torch.rand(len(rows), generator=generator) < 0.5
            pixels = normalize(images[rows.numpy()])
            pixels = torch.where(flipped[:, None, None, None], pixels.flip(-1), pixels)
            moves = torch.randint(-LARGEST_MOVE, LARGEST_MOVE + 1, (len(rows), 2), generator=generator)
            with autocast():
                predicted = probe(patch_features(model, move_images(pixels, moves)))
            moved = move_facts(targets[rows, flipped.long()], moves, images.shape[-1])
            loss = F.smooth_l1_loss(predicted.float(), moved)
            update(optimizer, loss, parameters, settings.vision_lr, step, settings.vision_steps)
            if step % 100 == 0 or step == settings.vision_steps - 1:
                with torch.no_grad():
                    held = probe(patch_features(model, normalize(images[train : train + 256]))).float()
                truth = targets[train : train + 256, 0]
                missed = (held - truth).square().mean(0) / targets[:, 0].var(0).clamp_min(1e-6)
                groups = {"points": missed[: 2 * len(POINTS)], "angles": missed[2 * len(POINTS) :][:4],
                          "rest": missed[2 * len(POINTS) + 4 :]}  # fmt: skip
                said = ", ".join(f"{name} {float(values.mean()):.3f}" for name, values in groups.items())
                bar.write(f"step {step} loss {loss.item():.4f}, held-out variance unexplained: {said}")
        with atomic_path(path) as temporary:
            torch.save(tower.state_dict(), temporary)
    tower.requires_grad_(False)
    features = []
    with torch.no_grad(), autocast():
        for start in tqdm(range(0, len(images), 128), desc="features", mininterval=5):
            features.append(patch_features(model, normalize(images[start : start + 128])).half())
    return torch.cat(features)


def pretrain_language(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, features: Tensor, facts: list[Facts],
    settings: TinyLlavaSettings, work: Path,
) -> None:  # fmt: skip
    """Train projector and language model on conversations; the tower's features are given."""
    path, train = work / "language.pt", len(facts) - settings.held_out
    language = nn.ModuleList([model.model.multi_modal_projector, model.model.language_model, model.lm_head])
    if path.exists():
        language.load_state_dict(torch.load(path, weights_only=True))
        return
    mean, scale = feature_statistics(features)
    standard = ((features.float() - mean) * scale).half()
    targets = torch.tensor([fact_vector(f) for f in facts])
    probe = nn.Linear(model.lm_head.in_features, targets.shape[1])
    parameters = [*language.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.language_lr, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(settings.seed)
    tokenizer = processor.tokenizer
    bar = tqdm(range(settings.language_steps), desc="language", mininterval=5)
    for step in bar:
        shown, encoded = [], []
        read_at = []  # (conversation, token where a face has been read, which face)
        for place in range(settings.language_batch):
            kind, row = rng.random(), rng.randrange(train)
            with_image = kind >= settings.plain_share + settings.reading_share
            if kind < settings.plain_share:
                pairs = plain_conversation(rng)
            elif with_image:
                pairs = questions_about(facts[row], rng, 6)
                shown.append(row)
            else:
                pairs = reading_conversation(facts[row], rng)
            encoded.append(encode_conversation(to_messages(pairs, with_image), processor))
            if kind >= settings.plain_share:
                read_at.append((place, end_of_face(encoded[-1], model.config.image_token_index), row))
        width = max(len(e.input_ids) for e in encoded)
        ids = torch.tensor(
            [e.input_ids + [tokenizer.pad_token_id] * (width - len(e.input_ids)) for e in encoded]
        )
        labels = torch.tensor([e.label_mask + [False] * (width - len(e.label_mask)) for e in encoded])
        with autocast():
            hidden = language_states(model, ids, ids != tokenizer.pad_token_id, standard[shown])
            logits = model.lm_head(hidden[:, :-1][labels[:, 1:]])
            places, tokens, faces = (list(column) for column in zip(*read_at, strict=True))
            # What the model has read when image or words end: without this it repeats likely words for long.
            read = probe(hidden[places, tokens])
        text_loss = F.cross_entropy(logits.float(), ids[:, 1:][labels[:, 1:]])
        fact_loss = F.smooth_l1_loss(read.float(), targets[faces])
        loss = text_loss + 3 * fact_loss
        update(optimizer, loss, parameters, settings.language_lr, step, settings.language_steps)
        if step % 50 == 0:
            bar.set_postfix(text=f"{text_loss.item():.3f}", facts=f"{fact_loss.item():.4f}")
        if step % 200 == 0:
            bar.write(f"step {step} text loss {text_loss.item():.3f} fact loss {fact_loss.item():.4f}")
    fold_statistics(model.model.multi_modal_projector, mean, scale)
    with atomic_path(path) as temporary:
        torch.save(language.state_dict(), temporary)


def end_of_face(encoded: Encoded, image_token: int) -> int:
    """The token where a face has been read: the image's last, or the last before the answer about words."""
    ids = encoded.input_ids
    if image_token in ids:
        return len(ids) - 1 - ids[::-1].index(image_token)
    return encoded.label_mask.index(True) - 1


def feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation (H,) of each feature; 0 for one that is nearly constant but far from zero.

    A few features of a transformer's residual stream are hundreds of times larger than the others. Fed with
    them as they are, the projector learns for thousands of steps before the language model sees anything.
    """
    flat = features.float().flatten(0, 1)
    mean, deviation = flat.mean(0), flat.std(0)
    return mean, torch.where(mean.abs() > 30 * deviation, torch.zeros_like(mean), 1 / deviation)


def fold_statistics(projector: Any, mean: Tensor, scale: Tensor) -> None:
    """Let the projector's first layer take raw features where it took standardised ones."""
    with torch.no_grad():
        projector.linear_1.weight.mul_(scale)
        projector.linear_1.bias.sub_(projector.linear_1.weight @ mean)


def autocast() -> torch.autocast:
    dtype = resolve_dtype("auto", "cpu")
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def update(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    parameters: list[nn.Parameter],
    lr: float,
    step: int,
    steps: int,
) -> None:
    """One clipped AdamW step under linear warm-up and, in the second half, linear decay."""
    scale = min(1.0, (step + 1) / 200, 2 * (1 - step / steps))
    for group in optimizer.param_groups:
        group["lr"] = lr * max(scale, 0.02)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


if __name__ == "__main__":
    sys.exit(run(lambda argv: main(parse_config(TinyLlavaSettings, argv, __doc__))))

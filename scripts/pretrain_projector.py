"""Train the small LLaVA's projector alone: `python scripts/pretrain_projector.py`. LLaVA's first stage.

Tower and language model stay as they are; the projector learns to give the tokens of a picture such places
among the words that the language model can say what is on it. The pictures are the rendered faces that
`scripts/pretrain_face_reader.py` left in WORK, what is said of them comes from their known parameters:
descriptions, and questions with their answers (`facegpt.standins`).

    OUT/projector.safetensors, OUT/projector.json   the weights that ship with the package, and their worth
    STATE                                           weights and optimizer, every `save` steps, to go on from

On two cores with AVX-512 BF16, beside other work, a step of 12 faces took 14 s: hours without a GPU.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from facegpt.config import at_least, parse_config, run
from facegpt.data.conversation import encode_conversation
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.machine import package_versions
from facegpt.model.backbone import freeze, load_backbone
from facegpt.model.small_llava import ASSETS
from facegpt.sample import IMAGE_TOKEN, Message
from facegpt.standins.descriptions import describe_freely
from facegpt.standins.language import Facts, read_facts
from facegpt.standins.rendered_faces import RenderedFaces
from facegpt.standins.talk import talk_about

DESCRIBE = [
    "Describe this face.",
    "What does this person look like?",
    "Tell me about the person in the picture.",
    "What do you see?",
    "Please describe the photograph in a few words.",
    "How would you describe this person?",
]
TURNS = 3  # questions about one picture: its 64 tokens are paid for once


@dataclass
class ProjectorSettings:
    """out: folder of the weights. work: the faces of `pretrain_face_reader.py`. state: file to go on from.
    steps, batch, lr: of the training. held_out: faces for measuring only. save: steps between two states.
    seed: of batches and words.
    """

    out: str = str(ASSETS)
    work: str = "outputs/face_reader"
    state: str = "outputs/projector.pt"
    steps: int = 300
    batch: int = 12
    lr: float = 1e-3
    held_out: int = 64
    save: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "steps", "batch", "held_out", "save")


def main(argv: list[str]) -> None:
    settings = parse_config(ProjectorSettings, argv, __doc__)
    model, processor = load_backbone("small")
    freeze(model)
    projector = model.model.multi_modal_projector.float().requires_grad_(True)
    faces = Faces(Path(settings.work))
    started, state = time.perf_counter(), Path(settings.state)
    before = evaluate(model, processor, faces, settings)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=settings.lr, weight_decay=0.0)
    first = 0
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        projector.load_state_dict(saved["projector"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    losses = []
    bar = tqdm(range(first, settings.steps), initial=first, total=settings.steps, desc="projector")
    for step in bar:
        rng = random.Random(f"{settings.seed}/{step}")
        rows = [rng.randrange(len(faces) - settings.held_out) for _ in range(settings.batch)]
        loss = language_loss(model, processor, faces, rows, rows, rng)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min(1.0, (step + 1) / 20) * (1 - step / settings.steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}")
        if (step + 1) % settings.save == 0:
            with atomic_path(state) as path:
                content = {"projector": projector.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save({**content, "step": step + 1}, path)
    after = evaluate(model, processor, faces, settings)
    figures = {"before": before, "after": after, "seconds": round(time.perf_counter() - started)}
    out = Path(settings.out)
    with atomic_path(out / "projector.safetensors") as path:
        save_file({name: w.to(torch.bfloat16) for name, w in projector.state_dict().items()}, path)
    versions = package_versions(("torch", "transformers"))
    about = {"settings": asdict(settings), "versions": versions, "text loss on held-out faces": figures}
    write_json(out / "projector.json", about)
    print(json.dumps(figures, indent=1))


class Faces(RenderedFaces):
    """The faces of `pretrain_face_reader.py` with what can be said of them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.head = HeadModel.builtin()

    def facts(self, rows: list[int]) -> list[Facts]:
        """What can be said of these faces."""
        return read_facts(self.head, FaceParameters.from_vector(self.parameters[rows], self.head.layout))


def language_loss(
    model: Any, processor: Any, faces: Faces, said: list[int], shown: list[int], rng: random.Random
) -> Tensor:
    """Mean cross entropy of what is said of faces `said`, when faces `shown` are seen."""
    encoded = [
        encode_conversation(conversation(facts, rng), processor, name="a face") for facts in faces.facts(said)
    ]
    ids = pad_sequence([torch.tensor(e.input_ids) for e in encoded], batch_first=True)
    labels = pad_sequence([torch.tensor(e.label_mask) for e in encoded], batch_first=True)
    mask = pad_sequence([torch.ones(len(e.input_ids)) for e in encoded], batch_first=True).long()
    with torch.no_grad():
        tokens = faces.tokens(shown, model.model.vision_tower)
    features = model.model.multi_modal_projector(tokens.float())
    embeddings = model.get_input_embeddings()(ids)
    is_image = (ids == model.config.image_token_id)[..., None]
    embeddings = embeddings.masked_scatter(is_image, features.to(embeddings.dtype))
    hidden = model.model.language_model(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    rows, columns = torch.nonzero(labels[:, 1:], as_tuple=True)
    logits = model.get_output_embeddings()(hidden[rows, columns]).float()
    return nn.functional.cross_entropy(logits, ids[rows, columns + 1])


def conversation(facts: Facts, rng: random.Random) -> list[Message]:
    """A few questions about one picture and their answers, a description among them."""
    pairs = [(rng.choice(DESCRIBE), describe_freely(facts, rng)[0]), *talk_about(facts, rng, TURNS - 1)]
    rng.shuffle(pairs)
    messages = []
    for number, (question, answer) in enumerate(pairs):
        messages.append(Message("user", question if number else f"{IMAGE_TOKEN}\n{question}"))
        messages.append(Message("assistant", answer))
    return messages


@torch.no_grad()
def evaluate(model: Any, processor: Any, faces: Faces, settings: ProjectorSettings) -> dict[str, float]:
    """Text loss on held-out faces, and the same when another face is shown: what the picture is worth."""
    last = list(range(len(faces) - settings.held_out, len(faces)))
    figures = {}
    for name, shown in (("own face", last), ("another face", last[1:] + last[:1])):
        parts = []
        for start in range(0, len(last), settings.batch):
            rng = random.Random(f"held out/{settings.seed}/{start}")
            part = slice(start, start + settings.batch)
            parts.append(float(language_loss(model, processor, faces, last[part], shown[part], rng)))
        figures[name] = round(float(np.mean(parts)), 4)
    return figures


if __name__ == "__main__":
    sys.exit(run(main))

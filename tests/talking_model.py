"""A tiny random FaceGPT for tests that can be made to say `<FACE>` first."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from facegpt.chat import answer, question
from facegpt.head.model import HeadModel
from facegpt.model.backbone import load_backbone
from facegpt.model.facegpt import FaceGPT, build_facegpt
from facegpt.model.spec import LoraSettings
from facegpt.standins.tiny_llava import TINY_RANDOM, build_tiny_llava, save_tiny_llava

TEXTS = [
    "USER: Show me the 3D face of this person. ASSISTANT: Here is the face: it smiles, the jaw is open."
] * 20


def talking_model(head: HeadModel, folder: Path, speaks: bool = True) -> FaceGPT:
    """A FaceGPT of random weights, its backbone in `folder`; if it `speaks`, replies begin with `<FACE>`."""
    if not folder.exists():
        save_tiny_llava(*build_tiny_llava(TEXTS, TINY_RANDOM), folder)
    backbone, processor = load_backbone(folder, torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean = head.mean_parameters().to_vector()[0]
        model = build_facegpt(backbone, processor, head.layout, mean, LoraSettings(rank=2, alpha=4))
    return model if not speaks else _speak(model)


def gray_image(size: int = 48) -> Image.Image:
    return Image.linear_gradient("L").resize((size, size)).convert("RGB")


def _speak(model: FaceGPT) -> FaceGPT:
    """Turn the output row of `<FACE>` towards the states in which answers begin."""
    states: list[torch.Tensor] = []
    output = model.vlm.get_output_embeddings()
    handle = output.register_forward_hook(lambda module, inputs, result: states.append(inputs[0]))
    answer(model, [question("Show me the face.", gray_image()), question("What does it look like?")], 1)
    handle.remove()
    row = next(p for name, p in model.named_parameters() if "lm_head" in name and "trainable_tokens" in name)
    with torch.no_grad():
        row.copy_(row + torch.cat(states).mean(0))
    return model

"""The keys of `facegpt chat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facegpt.config import at_least


@dataclass
class ChatSettings:
    """checkpoint: a run or one of its checkpoints; without it, the model that comes with facegpt.
    out: folder for replies and faces.
    prompt: what to say; without it, an interactive chat.
    image: a picture that goes with the (first) message.
    landmarks: 68 or 51 landmarks of the image, .pts or .npy, to crop it by.
    batch: a file of requests, which are answered instead of a chat.
    batch_size: how many of them at once.
    meshes: of a batch, draw and export every face.
    head: "builtin" or the head file used in training.
    rigged: write every face as a rigged GLB too.
    json: one line of JSON for each reply, with its text and the files of its faces, and nothing else.
    pictures: how a terminal shows faces: auto, kitty, iterm2, sixel, blocks or none.
    expect_face: a reply to the prompt that has no face is an error.
    backbone: where the vision-language model lies, if it has moved.
    device: cuda or cpu; auto is the GPU where there is one.
    max_new_tokens: the longest reply.
    temperature: 0 takes the likeliest token.
    seed: of the draws at a temperature above 0.
    """

    checkpoint: Path | None = None
    out: Path = Path("faces")
    prompt: str | None = None
    image: Path | None = None
    landmarks: Path | None = None
    batch: Path | None = None
    batch_size: int = 16
    meshes: bool = False
    head: str = "builtin"
    rigged: bool = False
    json: bool = False
    pictures: Literal["auto", "kitty", "iterm2", "sixel", "blocks", "none"] = "auto"
    expect_face: bool = False
    backbone: str | None = None
    device: str = "auto"
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, self, "max_new_tokens", "batch_size")
        at_least(0, self, "temperature")
        if self.landmarks is not None and self.image is None:
            raise ValueError(f"landmarks={self.landmarks} is given without the image that it belongs to")
        if self.expect_face and self.prompt is None:
            raise ValueError("expect_face goes with a prompt")
        if self.meshes and self.batch is None:
            raise ValueError("meshes goes with a batch; a chat writes every face anyway")
        of_a_chat = ("prompt", "image", "rigged", "temperature", "json")
        if self.batch is not None and (given := [name for name in of_a_chat if getattr(self, name)]):
            raise ValueError(f"{given[0]} goes with a chat and not with a batch; leave it out")

"""`facegpt demo`: what a visitor may ask with one click, a picture of a rendered face among it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from facegpt.head.model import HeadModel
from facegpt.render.renderer import render
from facegpt.standins.synthetic import sample_parameters
from facegpt.visualize import to_pil

PHOTO_SIZE = 448
PHOTO_SEED = 3
WALL = (0.42, 0.47, 0.52)


@dataclass
class Example:
    """title: on its button. text: what is asked. picture: what is shown with it."""

    title: str
    text: str
    picture: Path | None = None


def make_examples(head: HeadModel, folder: Path) -> list[Example]:
    """A question about an image, an explicit wish, a speculative one; the image is drawn into `folder`."""
    face = sample_parameters(head, 1, torch.Generator().manual_seed(PHOTO_SEED))
    with torch.no_grad():
        drawn = render(head, face, PHOTO_SIZE, background=torch.tensor(WALL), supersample=2)
    picture = folder / "examples" / "face.jpg"
    picture.parent.mkdir()
    to_pil(drawn.image[0]).save(picture, quality=92)
    return [
        Example("Show it a picture", "Can you make a 3D head of this person?", picture),
        Example(
            "Describe a face", "I need the face of a man with dark skin who grins and looks to the left."
        ),
        Example("Let it guess", "Her team just lost the final in the last minute. Show me how she looks."),
    ]

"""What the speculative benchmark shows of a head: a sheet of feelings, and how far anatomy wanders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from facegpt.evaluation.action_units import FEELINGS, prototype, stem
from facegpt.evaluation.replies import SpokenFace
from facegpt.evaluation.speculative_set import Situation
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.visualize import contact_sheet, head_picture

SIZE = 260  # of a head; its face is cut out
FACE = (0.2, 0.1, 0.8, 0.95)  # left, top, right, bottom, in shares of that


def feelings_sheet(
    head: HeadModel,
    situations: Sequence[Situation],
    spoken: Sequence[SpokenFace | None],
    described: Sequence[SpokenFace | None],
) -> Image.Image:
    """A column for each feeling: its prototype, the face of its first situation, and that of the description.

    spoken, described: one for each situation; where the first has none, the cell is empty. Only expression,
    jaw and nod are drawn, on the mean face.
    """
    first = {situation.feeling: place for place, situation in reversed(list(enumerate(situations)))}
    table: list[list[Image.Image | None]] = [
        [_picture(head, prototype_face(head, feeling)) for feeling in FEELINGS]
    ]
    for faces in (spoken, described):
        chosen = [faces[first[feeling]] if feeling in first else None for feeling in FEELINGS]
        table.append([None if face is None else _picture(head, face) for face in chosen])
    return contact_sheet(table, list(FEELINGS))


def prototype_face(head: HeadModel, feeling: str) -> SpokenFace:
    """The prototype of a feeling in the components of a head."""
    moved, jaw, pitch = prototype(feeling)
    expression = {name: moved.get(name, moved.get(stem(name), 0.0)) for name in head.expression_names}
    return SpokenFace(expression, jaw, pitch, np.zeros(0))


def parameters_of(
    head: HeadModel, expression: Mapping[str, float], jaw: float, pitch: float
) -> FaceParameters:
    """The mean face (1) of a head with an expression by its components' names, jaw and nod in radians."""
    face = head.mean_parameters()
    values = [expression.get(name, 0.0) for name in head.expression_names]
    new = face.expression.clone()
    new[0, : len(values)] = torch.tensor(values).to(new)
    pose = face.pose.clone()
    pose[0, 0], pose[0, 3] = pitch, jaw
    return face.replace(expression=new, pose=pose)


def _picture(head: HeadModel, face: SpokenFace) -> Image.Image:
    picture = head_picture(head, parameters_of(head, face.expression, face.jaw, face.pitch), SIZE)
    left, top, right, bottom = (round(SIZE * share) for share in FACE)
    return picture.crop((left, top, right, bottom))


def shape_spread(head: HeadModel, faces: Sequence[SpokenFace]) -> np.ndarray:
    """RMS distance (A,) in mm of each face's shape from the mean shape of all, over the face region.

    Empty where some face has another number of shape components than the head.
    """
    if any(len(face.shape) != head.layout.shape for face in faces) or not faces:
        return np.zeros(0)
    mean = head.mean_parameters(len(faces))
    shapes = torch.tensor(np.stack([face.shape for face in faces])).to(mean.shape)
    region = head.regions.get("face", slice(None))
    with torch.no_grad():
        vertices = head(mean.replace(shape=shapes)).vertices[:, region]  # (A, V, 3)
    moved = vertices - vertices.mean(dim=0)
    return 1000 * moved.square().sum(dim=2).mean(dim=1).sqrt().cpu().numpy()

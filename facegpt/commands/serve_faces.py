"""`facegpt serve`: faces that were spoken. Parameters are kept; files are made when they are asked for."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from facegpt.chat import Turn
from facegpt.commands.chat_turns import PICTURE_SIZE
from facegpt.export.face_files import write_faces
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.finite import check_parameters
from facegpt.visualize import head_picture

MEDIA_TYPES = {"glb": "model/gltf-binary", "png": "image/png", "json": "application/json"}
NAME = re.compile(r"([A-Za-z0-9_-]{22})\.(glb|png|json)")  # of a file: 128 random bits, and its kind


@dataclass
class KeptFace:
    """One face (batch of 1) and how likely the model found it."""

    parameters: FaceParameters
    probability: float


class FaceShelf:
    """The faces said last, by name, in memory. `most` are kept, the oldest go first."""

    def __init__(self, head: HeadModel, most: int = 1000) -> None:
        self.head, self.most = head, most
        self.kept: OrderedDict[str, KeptFace] = OrderedDict()
        self.lock = Lock()

    def add(self, turn: Turn) -> list[str]:
        """Keep the faces of a turn; their names. Raises RenderingError for one with absurd numbers."""
        for face in turn.faces:
            check_parameters(face)
        names = [secrets.token_urlsafe(16) for _ in turn.faces]
        with self.lock:
            for name, face, probability in zip(names, turn.faces, turn.probabilities, strict=True):
                self.kept[name] = KeptFace(face, probability)
            while len(self.kept) > self.most:
                self.kept.popitem(last=False)
        return names

    def describe(self, name: str, address: str) -> dict[str, Any]:
        """A kept face as JSON values: its numbers by group, and links that begin with `address`."""
        face = self.kept[name]
        groups = face.parameters.layout.sizes
        links = {kind: f"{address}v1/faces/{name}.{kind}" for kind in MEDIA_TYPES}
        return {
            "id": name,
            "probability": face.probability,
            "head_id": self.head.id,
            "parameters": {group: getattr(face.parameters, group)[0].tolist() for group in groups},
            **links,
        }

    def file(self, name: str, kind: str, rigged: bool = False) -> bytes | None:
        """The content of a face's file, made now; None when there is no such face (any more)."""
        face = self.kept.get(name)
        return None if face is None else make_file(self.head, face, kind, rigged)


def make_file(head: HeadModel, face: KeptFace, kind: str, rigged: bool = False) -> bytes:
    """A face as GLB (or, rigged, one that can be animated), as picture, or as JSON of named coefficients."""
    write: Callable[[Path], None]
    if kind == "png":
        write = partial(_draw, head, face.parameters)
    elif kind == "json":
        write = partial(
            write_faces, parameters=face.parameters, head=head, about={"probability": face.probability}
        )
    elif rigged:
        write = partial(export_rigged_head, head, face.parameters)
    else:
        write = partial(export_mesh, head.mesh(face.parameters))
    with tempfile.TemporaryDirectory(prefix="facegpt-") as folder:  # for all exporters write files
        path = Path(folder) / f"face.{kind}"
        write(path)
        return path.read_bytes()


def _draw(head: HeadModel, face: FaceParameters, path: Path) -> None:
    head_picture(head, face, PICTURE_SIZE).save(path)

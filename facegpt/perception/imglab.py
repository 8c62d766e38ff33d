"""Read annotated faces from the XML files of dlib's imglab.

A file lists images, their boxes, and in each box the parts, here the 68 landmarks by their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

import torch
from torch import Tensor

from facegpt.errors import LandmarkError
from facegpt.files import file_size, printable

LARGEST_FILE = 64 << 20  # bytes; the 7,764 faces of 300-W take 40 MB
MOST_FACES = 100_000
PARTS = [f"{number:02d}" for number in range(68)]


@dataclass
class ImglabFace:
    """One box with 68 parts.

    image: the file, as the XML writes it, relative to the XML's folder. landmarks (68,2) float32 in pixels
    with centres at half integers, x right, y down.
    """

    image: str
    landmarks: Tensor


def read_imglab(path: str | Path) -> list[ImglabFace]:
    """The faces of an imglab file in its order: the boxes whose parts are named 00 to 67, each once.

    Boxes with other parts, or that are marked `ignore`, are left out. Parts are whole numbers that name
    pixels, so 0.5 is added to come to their centres. Raises LandmarkError, naming the file, when it is
    missing, no regular file, larger than `LARGEST_FILE`, not XML of this kind, or has more than `MOST_FACES`
    faces. Nothing outside the file is read, and a document type, which could define entities that unfold
    without end, is refused.
    """
    path = Path(path)
    size = file_size(path)
    if size is None:
        raise LandmarkError(f"{printable(path)}: no such file; give an XML file of imglab")
    if size > LARGEST_FILE:
        raise LandmarkError(f"{path}: {size} bytes, {LARGEST_FILE} is the limit for an imglab file")
    reader = _Reader(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except OSError as error:
        raise LandmarkError(f"{path}: cannot be read ({error.strerror})") from None
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise LandmarkError(f"{path}: not a readable imglab file: {error}") from None
    if reader.root != "dataset":
        raise LandmarkError(f"{path}: its root is <{reader.root}>, imglab's is <dataset>")
    return reader.faces


@dataclass
class _Reader:
    """What the parser has met: the image and the parts of the box it is in, and the faces so far."""

    path: Path
    root: str = ""
    image: str | None = None
    box: dict[str, tuple[float, float]] | None = None
    faces: list[ImglabFace] = field(default_factory=list)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.root = self.root or name
        if name == "image":
            self.image = attributes.get("file")
        elif name == "box":
            self.box = None if attributes.get("ignore", "0") != "0" else {}
        elif name == "part" and self.box is not None and attributes.get("name") in PARTS:
            x, y = float(attributes.get("x", "nan")), float(attributes.get("y", "nan"))
            self.box[attributes["name"]] = (x + 0.5, y + 0.5)

    def end(self, name: str) -> None:
        if name == "image":
            self.image = None
        if name != "box" or self.box is None:
            return
        box, self.box = self.box, None
        if self.image is None or len(box) < len(PARTS):
            return
        points = torch.tensor([box[part] for part in PARTS])
        if not bool(torch.isfinite(points).all()):
            raise LandmarkError(f"{self.path}: a part of {self.image} is not a finite number; correct it")
        if len(self.faces) == MOST_FACES:
            raise LandmarkError(f"{self.path}: more than {MOST_FACES} faces; split the file")
        self.faces.append(ImglabFace(self.image, points))

    def refuse_doctype(self, *_: object) -> NoReturn:
        raise LandmarkError(f"{self.path}: has a document type, which imglab never writes; remove it")

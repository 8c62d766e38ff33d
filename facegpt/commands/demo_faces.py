"""`facegpt demo`: one spoken face as the page shows it, with the files that a visitor takes home."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from facegpt.commands.demo_sliders import LIGHT_SLIDERS, Slider, lights, moved, positions
from facegpt.export.face_files import write_faces
from facegpt.export.mesh_io import export_mesh
from facegpt.export.rigged_head import export_rigged_head
from facegpt.files import atomic_path
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.visualize import head_picture

PICTURE_SIZE = 384
# What a button says -> the end of the file's name.
FILES = {
    "GLB": ".glb",
    "GLB with rig": "_rigged.glb",
    "OBJ (zip)": "_obj.zip",
    "Picture": ".png",
    "Parameters": ".json",
}


@dataclass
class ShownFace:
    """One `<FACE>` of a conversation.

    number: from 0 on. spoken: as the model said it. probability: of its token. folder: of its files.
    values: where its sliders stand, of the face and then of the light. version: counts the changes, because
    a browser takes a file of the same name for the same file.
    """

    number: int
    spoken: FaceParameters
    probability: float
    folder: Path
    values: list[float]
    version: int = 0

    @property
    def name(self) -> str:
        return f"Face {self.number + 1}"

    def file(self, ending: str, version: int | None = None) -> Path:
        """One of `FILES`; `version` 0 is the face as it was spoken."""
        place = self.folder / str(self.version if version is None else version)
        return place / f"face_{self.number + 1}{ending}"


def spoken_face(
    head: HeadModel,
    spoken: FaceParameters,
    probability: float,
    number: int,
    folder: Path,
    sliders: list[Slider],
) -> ShownFace:
    """A face that was just said, with its files written. ValueError for one that is not finite or huge."""
    values = [*positions(spoken, sliders), *(slider.studio for slider in LIGHT_SLIDERS)]
    face = ShownFace(number, spoken, probability, folder / f"face_{number + 1}", values)
    _write(head, face, spoken)
    return face


def change_face(head: HeadModel, face: ShownFace, sliders: list[Slider], values: Sequence[float]) -> None:
    """Put the sliders of a face (of the face, then of the light) at `values`, and write its files anew.

    Raises ValueError, and changes nothing, for values that are not finite.
    """
    before = face.version, face.values
    changed = moved(face.spoken, sliders, values[: len(sliders)])
    face.version, face.values = face.version + 1, list(values)
    try:
        _write(head, face, changed)
    except ValueError:
        face.version, face.values = before
        raise
    if face.version > 2:  # the last but one may still be on its way to the browser
        shutil.rmtree(face.folder / str(face.version - 2), ignore_errors=True)


def _write(head: HeadModel, face: ShownFace, parameters: FaceParameters) -> None:
    shine = lights(face.values[-len(LIGHT_SLIDERS) :])
    picture = head_picture(head, parameters, PICTURE_SIZE, lights=shine)  # first what a strange face fails at
    face.file("").parent.mkdir(parents=True)
    picture.save(face.file(".png"))
    mesh = head.mesh(parameters)
    export_mesh(mesh, face.file(".glb"))
    export_rigged_head(head, parameters, face.file("_rigged.glb"))
    write_faces(face.file(".json"), parameters, head, {"probability": face.probability})
    with TemporaryDirectory() as place, atomic_path(face.file("_obj.zip")) as path:
        export_mesh(mesh, Path(place) / f"face_{face.number + 1}.obj")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(place).iterdir()):
                archive.write(file, file.name)

"""facegpt convert FACE.json --from HEAD --to HEAD --out NEW.json

Turns face parameters of one head into those of another: FLAME 2020 into 2023 Open, the built-in head into
ICT-FaceKit, and so on; a HEAD is "builtin" or a head file. FACE is the .json of `facegpt chat` or
`facegpt fit`, or a .npz with one array per group for many faces. Prints how far the new faces are from the
old ones, in mm.

Heads of one topology (all FLAME versions) are fitted vertex by vertex. Between others only the face's skin is
compared, through landmarks and nearest points: expect a millimetre or two, a neck that has become part of the
head's rotation, and the mean albedo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facegpt.commands.output import check_output
from facegpt.config import MISSING, parse_config
from facegpt.errors import ConfigError, HeadMismatchError
from facegpt.export.face_files import read_faces, write_faces
from facegpt.fitting.transfer import same_albedo, same_topology, transfer
from facegpt.head.model import HeadModel


@dataclass
class ConvertSettings:
    """face: .json of one face, or .npz; stands first, its key can be left out.
    from_: the head of the face.
    to: the head to convert to.
    out: .json for one face, .npz for more.
    prior: what a coefficient of one standard deviation may cost, in mm; null: 0, between topologies 0.1.
    """

    face: Path = MISSING
    from_: str = MISSING
    to: str = MISSING
    out: Path = MISSING
    prior: float | None = None

    def __post_init__(self) -> None:
        if self.out.suffix not in (".json", ".npz"):
            raise ValueError(f"out={self.out} ends in neither .json nor .npz")
        if self.prior is not None and self.prior < 0:
            raise ValueError(f"prior is {self.prior}, 0 or more is needed")


def main(argv: Sequence[str]) -> None:
    settings = parse_config(ConvertSettings, argv, __doc__, positional=["face"])
    check_output(settings.out)
    faces = read_faces(settings.face)
    source, target = HeadModel.open(settings.from_), HeadModel.open(settings.to)
    if faces.head_id is not None and not source.has_id(faces.head_id):
        raise HeadMismatchError(
            f"{settings.face} was made with head {faces.head_id}, {settings.from_} is {source.id}; "
            "give the head it was made with as --from"
        )
    try:
        solution = transfer(faces.parameters, source, target, settings.prior)
        residual = solution.residual.tolist()
        about = {"converted_from": {"file": settings.face.name, "head_id": source.id}}
        one = {"residual_mm": residual[0]} if len(residual) == 1 else {}
        write_faces(settings.out, solution.parameters, target, about | one)
    except ValueError as error:  # heads that have nothing in common, several faces for one .json
        raise ConfigError(f"{settings.face} cannot be converted: {error}") from None
    how = "every vertex" if same_topology(source, target) else "the face's skin, by nearest points"
    print(f"compared over {how}")
    for number, value in enumerate(residual):
        print(f"face {number}: residual {value:.3f} mm")
    if not same_albedo(source, target):
        print("the heads have different albedo models: albedo is the mean")
    print(f"wrote {settings.out}")

"""facegpt convert FACE.json --from HEAD --to HEAD --out NEW.json

Turns face parameters of one head into those of another: FLAME 2020 into 2023 Open, the built-in head into
ICT-FaceKit, and so on; a HEAD is "builtin" or a head file. FACE is the .json of chat.py or fit.py, or a .npz
with one array per group for many faces. Prints how far the new faces are from the old ones, in mm.

Heads of one topology (all FLAME versions) are fitted vertex by vertex. Between others only the face's skin is
compared, through landmarks and nearest points: expect a millimetre or two, a neck that has become part of the
head's rotation, and the mean albedo.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from facegpt.errors import FaceGPTError, HeadMismatchError
from facegpt.export.face_files import read_faces, write_faces
from facegpt.fitting.transfer import same_albedo, same_topology, transfer
from facegpt.head.model import HeadModel


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        faces = read_faces(options.faces)
        source, target = load(options.source), load(options.target)
        if faces.head_id is not None and not source.has_id(faces.head_id):
            raise HeadMismatchError(
                f"{options.faces} was made with head {faces.head_id}, {options.source} is {source.id}; "
                "give the head it was made with as --from"
            )
        solution = transfer(faces.parameters, source, target, options.prior)
        residual = solution.residual.tolist()
        about = {"converted_from": {"file": options.faces.name, "head_id": source.id}}
        one = {"residual_mm": residual[0]} if len(residual) == 1 else {}
        write_faces(options.out, solution.parameters, target, about | one)
    except (FaceGPTError, ValueError, OSError) as error:
        print(f"convert_parameters: {error}", file=sys.stderr)
        return 1
    how = "every vertex" if same_topology(source, target) else "the face's skin, by nearest points"
    print(f"compared over {how}")
    for number, value in enumerate(residual):
        print(f"face {number}: residual {value:.3f} mm")
    if not same_albedo(source, target):
        print("the heads have different albedo models: albedo is the mean")
    print(f"wrote {options.out}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=Path, metavar="FACE", help=".json of one face, or .npz")
    parser.add_argument("--from", dest="source", required=True, metavar="HEAD", help="the head of FACE")
    parser.add_argument("--to", dest="target", required=True, metavar="HEAD", help="the head to convert to")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help=".json for one face, .npz")
    parser.add_argument(
        "--prior",
        type=float,
        metavar="MM",
        help="what a coefficient of one standard deviation may cost; default 0, between topologies 0.1",
    )
    return parser.parse_args(arguments)


def load(head: str) -> HeadModel:
    return HeadModel.open(head)


if __name__ == "__main__":
    sys.exit(main())

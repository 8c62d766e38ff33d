"""facegpt import-head ict-facekit DIR --out FILE.safetensors

Makes a head file of ours (.safetensors or .npz) from ICT-FaceKit, a statistical head under the MIT licence
that needs no registration: DIR is a clone of github.com/ICT-VGL/ICT-FaceKit. Prints what was made and how
well its parts fit. Use the file as any head: `--head FILE` or `model.head=FILE`.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from facegpt.errors import FaceGPTError
from facegpt.head.files.format import save_head
from facegpt.head.files.ict_facekit import load_ict_facekit
from facegpt.head.landmarks import contour_row, surface_points
from facegpt.head.model import HeadModel
from facegpt.render.surface import vertex_normals

READERS = {"ict-facekit": load_ict_facekit}
YAWS = (-30, 0, 30)  # degrees
FACING = -0.1  # a normal's z below which its point looks away; a silhouette has 0


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    start = time.perf_counter()
    try:
        data = READERS[options.kind](options.folder)
        save_head(data, options.out)
        head = HeadModel.load(options.out)  # what is on disk, as a user will read it
    except (FaceGPTError, OSError) as error:
        print(f"import_head: {error}", file=sys.stderr)
        return 1
    print(f"{data.metadata['name']}: {len(data.v_template)} vertices, {len(data.triangles)} triangles,")
    print(f"{head.layout.shape} identity and {head.layout.expression} expression components")
    for line in checks(head):
        print(line)
    print(f"wrote {options.out} (head {head.id}) in {time.perf_counter() - start:.1f} s")
    print("licence: " + ", ".join(line for line in data.metadata["licence"].splitlines()[:3] if line))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=list(READERS), help="what DIR holds")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help=".safetensors or .npz")
    return parser.parse_args(arguments)


def checks(head: HeadModel) -> list[str]:
    """Sentences with the sizes that tell whether unit, landmarks and contour are right."""
    output = head()
    points, joints = output.landmarks[0], output.joints[0]

    def millimeters(a: Tensor, b: Tensor) -> str:
        return f"{1000 * float((a - b).norm()):.1f} mm"

    lines = [
        f"between outer eye corners {millimeters(points[36], points[45])} (a human face: about 90), between "
        f"eye centres {millimeters(joints[3], joints[4])} (about 63)"
    ]
    for yaw in YAWS:
        parameters = head.mean_parameters()
        parameters.pose[:, 1] = math.radians(yaw)
        turned = head(parameters)
        normals = vertex_normals(turned.vertices, head.triangles)[0]
        row = int(contour_row(torch.tensor([float(yaw)])))
        assert head.contour_triangles is not None and head.contour_barycentric is not None
        facing = surface_points(
            normals[None], head.triangles, head.contour_triangles[row], head.contour_barycentric[row]
        )[0, :, 2]
        hidden = int((facing < FACING).sum())
        lines.append(f"contour at a yaw of {yaw:+d} degrees: {hidden} of 17 points face away from the camera")
    return lines


if __name__ == "__main__":
    sys.exit(main())

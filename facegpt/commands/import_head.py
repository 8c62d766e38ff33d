"""facegpt import-head ict-facekit DIR --out FILE.safetensors

Makes a head file of ours (.safetensors or .npz) from ICT-FaceKit, a statistical head under the MIT licence
that needs no registration: DIR is a clone of github.com/ICT-VGL/ICT-FaceKit. Prints what was made and how
well its parts fit. Use the file as any head: `--head FILE` or `model.head=FILE`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from facegpt.commands.output import check_output
from facegpt.config import MISSING, parse_config
from facegpt.head.files.format import save_head
from facegpt.head.files.ict_facekit import load_ict_facekit
from facegpt.head.landmarks import contour_row, surface_points
from facegpt.head.model import HeadModel
from facegpt.render.surface import vertex_normals

READERS = {"ict-facekit": load_ict_facekit}
YAWS = (-30, 0, 30)  # degrees
FACING = -0.1  # a normal's z below which its point looks away; a silhouette has 0


@dataclass
class ImportHeadSettings:
    """kind: what the folder holds; stands first, its key can be left out.
    folder: the clone of the model's repository; stands second.
    out: head file to write, .safetensors or .npz.
    """

    kind: Literal["ict-facekit"] = MISSING
    folder: Path = MISSING
    out: Path = MISSING

    def __post_init__(self) -> None:
        if self.out.suffix not in (".safetensors", ".npz"):
            raise ValueError(f"out={self.out} ends in neither .safetensors nor .npz")


def main(argv: Sequence[str]) -> None:
    settings = parse_config(ImportHeadSettings, argv, __doc__, positional=["kind", "folder"])
    start = time.perf_counter()
    check_output(settings.out)
    data = READERS[settings.kind](settings.folder)
    save_head(data, settings.out)
    head = HeadModel.load(settings.out)  # what is on disk, as a user will read it
    print(f"{data.metadata['name']}: {len(data.v_template)} vertices, {len(data.triangles)} triangles,")
    print(f"{head.layout.shape} identity and {head.layout.expression} expression components")
    for line in checks(head):
        print(line)
    print(f"wrote {settings.out} (head {head.id}) in {time.perf_counter() - start:.1f} s")
    print("licence: " + ", ".join(line for line in data.metadata["licence"].splitlines()[:3] if line))


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

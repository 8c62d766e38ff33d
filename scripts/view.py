"""Contact sheets of a head: identities, expressions, poses and albedo.

    python scripts/view.py --sheet out.png
    python scripts/view.py --sheet out.png --head my_head.npz --parts expressions poses --size 200

Every picture is drawn by the package's own renderer in studio light.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from facegpt.files import atomic_path
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.visualize import contact_sheet, head_picture

PARTS = ("mean", "identities", "components", "expressions", "poses", "albedo", "crowd")
COLUMNS = 10


def mean_rows(head: HeadModel, size: int) -> tuple[list[list[Image.Image]], list[str]]:
    """The mean face from four sides, with albedo and as clay."""
    mean, yaws = head.mean_parameters(), (0.0, 0.5, 1.0, 1.57)
    rows = [[head_picture(head, mean, 2 * size, yaw, clay) for yaw in yaws] for clay in (False, True)]
    return rows, [f"{round(yaw * 57.3)} degrees" for yaw in yaws]


def random_rows(head: HeadModel, size: int, albedo: bool, count: int = 20) -> list[list[Image.Image]]:
    """Random people, the same ones for every call."""
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for index in range(count):
        person = head.mean_parameters()
        person = person.replace(shape=torch.randn(person.shape.shape, generator=generator))
        if albedo:
            person = person.replace(albedo=torch.randn(person.albedo.shape, generator=generator))
        pictures.append(head_picture(head, person, size, (0.0, 0.5)[index % 2], clay=not albedo))
    return [pictures[k : k + COLUMNS] for k in range(0, count, COLUMNS)]


def component_pictures(
    head: HeadModel, group: str, names: list[str], values: tuple[float, ...], size: int, clay: bool
) -> list[tuple[str, list[Image.Image]]]:
    """For each named component of a parameter group, the mean face with it at each of the values."""
    pictures = []
    for index, name in enumerate(names):
        row = []
        for value in values:
            parameters = head.mean_parameters()
            coefficients = getattr(parameters, group).clone()
            coefficients[:, index] = value
            row.append(head_picture(head, replace(parameters, **{group: coefficients}), size, 0.3, clay))
        pictures.append((name, row))
    return pictures


def pose_rows(head: HeadModel, size: int) -> tuple[list[list[Image.Image]], list[str]]:
    """Head turned, jaw opened, neck bent, eyes turned."""
    poses: dict[str, FaceParameters] = {}
    mean = head.mean_parameters(neck=True, eyes=True)

    def posed(group: str, column: int, value: float) -> FaceParameters:
        changed = getattr(mean, group).clone()
        changed[:, column] = value
        if group == "eyes":
            changed[:, column + 3] = value
        return replace(mean, **{group: changed})

    for name, column, values in (
        ("turn", 1, (-0.6, 0.6)),
        ("nod", 0, (-0.3, 0.3)),
        ("jaw", 3, (0.12, 0.25, 0.44)),
    ):
        poses |= {f"{name} {value:+.2f}": posed("pose", column, value) for value in values}
    poses |= {f"neck {value:+.1f}": posed("neck", 2, value) for value in (-0.3, 0.3)}
    poses |= {f"eyes {value:+.1f}": posed("eyes", 1, value) for value in (-0.4, 0.4)}
    return [[head_picture(head, parameters, size) for parameters in poses.values()]], list(poses)


def expression_rows(head: HeadModel, size: int) -> tuple[list[list[Image.Image]], list[str]]:
    pictures = component_pictures(head, "expression", head.expression_names, (1.0,), size, clay=False)
    rows = []
    for start in range(0, len(pictures), COLUMNS):
        rows.append([row[0] for _, row in pictures[start : start + COLUMNS]])
    titles = [" ".join(name for name, _ in pictures[k::COLUMNS]) for k in range(COLUMNS)]
    return rows, titles


def draw(head: HeadModel, parts: list[str], size: int) -> Image.Image:
    """One tall picture with the wanted parts below one another."""
    sheets = []
    if "mean" in parts:
        sheets.append(contact_sheet(*mean_rows(head, size)))
    if "identities" in parts:
        sheets.append(contact_sheet(random_rows(head, size, albedo=False)))
    for part, group, names in (
        ("components", "shape", head.shape_names[:30]),
        ("albedo", "albedo", head.albedo_names[:30]),
    ):
        if part in parts:
            table = component_pictures(head, group, names, (-2.0, 2.0), size, clay=part == "components")
            columns = [[row[k] for _, row in table[s : s + COLUMNS]] for s in (0, 10, 20) for k in (0, 1)]
            titles = [
                ", ".join(name.replace("_", " ") for name, _ in table[k::COLUMNS]) for k in range(COLUMNS)
            ]
            sheets.append(contact_sheet(columns, titles))
    if "expressions" in parts:
        sheets.append(contact_sheet(*expression_rows(head, size)))
    if "poses" in parts:
        sheets.append(contact_sheet(*pose_rows(head, size)))
    if "crowd" in parts:
        sheets.append(contact_sheet(random_rows(head, size, albedo=True)))
    page = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), "white")
    top = 0
    for sheet in sheets:
        page.paste(sheet, (0, top))
        top += sheet.height
    return page


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sheet", type=Path, required=True, help="picture to write")
    parser.add_argument("--head", type=Path, help="head file; the built-in head when left out")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--size", type=int, default=150, help="pixels of one face")
    arguments = parser.parse_args()
    head = HeadModel.load(arguments.head) if arguments.head else HeadModel.builtin()
    page = draw(head, arguments.parts, arguments.size)
    with atomic_path(arguments.sheet) as path:
        page.save(path, format="PNG")


if __name__ == "__main__":
    main()

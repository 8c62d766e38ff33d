"""facegpt view --sheet out.png [--head my_head.npz] [--parts expressions,poses] [--size 200]

Draws contact sheets of a head: its mean, what every component does, poses, and crowds of random people.
Every picture is drawn by the package's own renderer.

Parts: `mean` from four sides, with albedo and as clay; `identities`, `expressions` and `albedo` show
components, identity and albedo at -2 and +2 standard deviations, expressions at 1; `poses` turns head, jaw,
neck and eyes; `crowd` draws random people under varied light; `training` draws random faces as pretraining
sees them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

from facegpt.commands.output import check_output
from facegpt.config import MISSING, parse_config
from facegpt.errors import ConfigError, HeadFileError
from facegpt.files import atomic_path
from facegpt.head.model import HeadModel
from facegpt.render.renderer import render, render_mesh
from facegpt.standins.synthetic import background, photograph, sample_parameters
from facegpt.visualize import BACKGROUND, INK, contact_sheet, head_picture, to_pil

FORMATS = {".png": "PNG", ".jpg": "JPEG"}
SheetPart = Literal["mean", "identities", "expressions", "poses", "albedo", "crowd", "training"]
PARTS: tuple[SheetPart, ...] = get_args(SheetPart)
WIDTH = 1900  # pixels of the page, about
TRAINING_SIZE = 112


def mean_pictures(head: HeadModel, size: int) -> list[Image.Image]:
    """The mean face from four sides, with albedo and as clay."""
    mean = head.mean_parameters()
    pictures = []
    for degrees in (0, 30, 60, 90):
        yaw = math.radians(degrees)
        both = [head_picture(head, mean, 2 * size, yaw, clay) for clay in (False, True)]
        pictures.append(captioned(both, f"{degrees} degrees", stacked=True))
    return pictures


def component_pictures(
    head: HeadModel, group: str, names: Sequence[str], values: Sequence[float], size: int, clay: bool = False
) -> list[Image.Image]:
    """For each leading component of a parameter group, the mean face with it at each of the values."""
    pictures = []
    for index, name in enumerate(names):
        row = []
        for value in values:
            parameters = head.mean_parameters()
            coefficients = getattr(parameters, group).clone()
            coefficients[:, index] = value
            # The face fills its picture: what components move or paint is often small.
            larger = round(1.25 * size)
            picture = head_picture(head, replace(parameters, **{group: coefficients}), larger, 0.35, clay)
            left, top = round(0.51 * larger - 0.5 * size), round(0.09 * larger)
            row.append(picture.crop((left, top, left + size, top + size)))
        pictures.append(captioned(row, name.replace("_", " ")))
    return pictures


def pose_pictures(head: HeadModel, size: int) -> list[Image.Image]:
    """Head turned, jaw opened, neck bent, eyes turned; angles in degrees."""
    mean = head.mean_parameters(neck=True, eyes=True)
    poses = [
        ("turn", "pose", (1,), (-35, 35)), ("nod", "pose", (0,), (-20, 20)),
        ("lean", "pose", (2,), (-15, 15)),
        ("jaw", "pose", (3,), (7, 15, 25)), ("neck", "neck", (2,), (-18, 18)),
        ("eyes turn", "eyes", (1, 4), (-25, 25)), ("eyes nod", "eyes", (0, 3), (-20, 20)),
    ]  # fmt: skip
    pictures = []
    for name, group, columns, angles in poses:
        for angle in angles:
            changed = getattr(mean, group).clone()
            changed[:, list(columns)] = math.radians(angle)
            picture = head_picture(head, replace(mean, **{group: changed}), size)
            pictures.append(captioned([picture], f"{name} {angle:+d}"))
    return pictures


def crowd_pictures(head: HeadModel, size: int, count: int, seed: int) -> list[Image.Image]:
    """Random people of varied pose under varied light, before a plain wall, mouths mostly closed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = sample_parameters(head, count, generator)
    people = head.mean_parameters(count, neck=head.layout.neck, eyes=head.layout.eyes)
    light = drawn.lighting.unflatten(1, (9, 3))
    light = torch.lerp(light, light.mean(2, keepdim=True), 0.6).flatten(1)  # a camera's white balance
    people = people.replace(shape=drawn.shape, albedo=drawn.albedo, lighting=light)
    people = people.replace(
        expression=0.5 * drawn.expression, pose=drawn.pose * people.pose.new_tensor([0.7] * 6)
    )
    low, high = head.v_template.amin(dim=0), head.v_template.amax(dim=0)
    tall = high[1] - low[1]
    camera = torch.stack([2.0 / tall, 0 * tall, 0.42 * tall - high[1]])[None]
    pictures = []
    with torch.no_grad():
        for index in range(count):
            mesh = head.mesh(people[index : index + 1])
            shown = render_mesh(mesh, camera, light[index : index + 1], 2 * size, 2 * size)
            wall = torch.tensor(BACKGROUND).to(shown.image).reshape(1, 3, 1, 1) * 0.93
            image = shown.image.clamp(0, 1) + (1 - shown.mask[:, None]) * wall
            pictures.append(to_pil(F.avg_pool2d(image, 2)[0]))
    return pictures


def training_pictures(head: HeadModel, count: int, seed: int) -> list[Image.Image]:
    """Random faces as pretraining on synthetic photographs sees them, in their own size."""
    generator = torch.Generator().manual_seed(seed)
    parameters = sample_parameters(head, count, generator)
    walls = background(count, TRAINING_SIZE, generator)
    pictures = []
    with torch.no_grad():
        for index in range(count):
            shown = render(head, parameters[index : index + 1], TRAINING_SIZE)
            pictures.append(to_pil(photograph(shown, walls[index : index + 1], generator)[0]))
    return pictures


def captioned(pictures: Sequence[Image.Image], text: str, stacked: bool = False) -> Image.Image:
    """Pictures of one size side by side, or stacked, over a caption."""
    width, height = pictures[0].size
    columns, rows = (1, len(pictures)) if stacked else (len(pictures), 1)
    font, text = _fitting_font(text, columns * width - 4, max(11, min(20, round(0.11 * height))))
    line = sum(font.getmetrics()) + 3 if isinstance(font, ImageFont.FreeTypeFont) else 16
    tile = Image.new("RGB", (columns * width, rows * height + line), "white")
    for number, picture in enumerate(pictures):
        place = (0, number * height) if stacked else (number * width, 0)
        tile.paste(picture, place)
    pen = ImageDraw.Draw(tile)
    pen.text((tile.width // 2, tile.height - line + 2), text, fill=INK, font=font, anchor="ma")
    return tile


def _fitting_font(
    text: str, width: int, size: int
) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, str]:
    """The largest legible font in which the text fits the width; a text that fits in none is cut short."""
    for smaller in range(size, 8, -1):
        font = ImageFont.load_default(size=float(smaller))
        if font.getlength(text) <= width:
            return font, text
    while len(text) > 1 and font.getlength(text + "…") > width:
        text = text[:-1]
    return font, text + "…"


def section(title: str, pictures: Sequence[Image.Image]) -> Image.Image:
    """A headline over a table of pictures as wide as the page."""
    gap = max(6, round(min(pictures[0].size) * 0.05))
    columns = max(1, min(len(pictures), (WIDTH - gap) // (pictures[0].width + gap)))
    # Full rows, when they are not much shorter.
    columns = next((k for k in range(columns, columns // 2, -1) if len(pictures) % k == 0), columns)
    table = contact_sheet([pictures[k : k + columns] for k in range(0, len(pictures), columns)])
    font = ImageFont.load_default(size=28.0)
    width = max(table.width, round(font.getlength(title)) + 24)
    sheet = Image.new("RGB", (width, table.height + 48), "white")
    ImageDraw.Draw(sheet).text((gap, 12), title, fill=INK, font=font)
    sheet.paste(table, (0, 48))
    return sheet


def draw(head: HeadModel, parts: Sequence[str], size: int, count: int = 64, seed: int = 0) -> Image.Image:
    """One page with the wanted parts below one another.

    size: pixels of one face; count: people of a crowd. Raises ConfigError when the head has nothing to show
    for a part.
    """
    sheets = []
    for part in parts:
        if part == "mean":
            sheets.append(section("Mean face", mean_pictures(head, size)))
        elif part == "poses":
            sheets.append(section("Poses, in degrees", pose_pictures(head, size)))
        elif part == "crowd":
            title = f"{count} random people under varied light"
            sheets.append(section(title, crowd_pictures(head, round(1.3 * size), count, seed)))
        elif part == "training":
            title = f"Random faces as training sees them, {TRAINING_SIZE} pixels"
            sheets.append(section(title, training_pictures(head, count, seed)))
        else:
            sheets.append(component_section(head, part, size))
    page = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), "white")
    top = 0
    for sheet in sheets:
        page.paste(sheet, (0, top))
        top += sheet.height
    return page


def component_section(head: HeadModel, part: str, size: int) -> Image.Image:
    """Identities or albedo at -2 and +2, or expressions at 1."""
    group, names, layout = {
        "identities": ("shape", head.shape_names, head.layout.shape),
        "expressions": ("expression", head.expression_names, head.layout.expression),
        "albedo": ("albedo", head.albedo_names, head.layout.albedo),
    }[part]
    if layout == 0:
        raise ConfigError(f"this head has no {group} components; leave {part!r} out of parts")
    names = list(names) or [f"{group} {index + 1}" for index in range(layout)]
    if part == "expressions":
        return section("Expressions at 1", component_pictures(head, group, names, (1.0,), size))
    title = f"{'Identity' if group == 'shape' else 'Albedo'} components at -2 and +2 standard deviations"
    pictures = component_pictures(head, group, names[:50], (-2.0, 2.0), size, clay=group == "shape")
    return section(title, pictures)


@dataclass
class ViewSettings:
    """sheet: picture to write, .png or .jpg.
    head: "builtin" or a head file.
    parts: what to draw; null: all that the head has.
    size: pixels of one face, 48 to 1024.
    count: people in each crowd, 1 to 400.
    seed: which people the crowds show.
    """

    sheet: Path = MISSING
    head: str = "builtin"
    parts: list[SheetPart] | None = None
    size: int = 150
    count: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 48 <= self.size <= 1024:
            raise ValueError(f"size is {self.size}, 48 to 1024 pixels are needed")
        if not 1 <= self.count <= 400:
            raise ValueError(f"count is {self.count}, 1 to 400 people are needed")
        if self.sheet.suffix.lower() not in FORMATS:
            raise ValueError(f"sheet={self.sheet} does not end in {' or '.join(FORMATS)}")
        if self.parts == []:
            raise ValueError("parts names nothing to draw")


def main(argv: Sequence[str]) -> None:
    settings = parse_config(ViewSettings, argv, __doc__)
    check_output(settings.sheet)
    head = HeadModel.open(settings.head)
    sizes = {
        "identities": head.layout.shape,
        "expressions": head.layout.expression,
        "albedo": head.layout.albedo,
    }
    parts = settings.parts or [part for part in PARTS if sizes.get(part, 1) > 0]
    try:
        page = draw(head, parts, settings.size, settings.count, settings.seed)
    except ValueError as error:  # vertices that are not finite, and the like
        raise HeadFileError(f"the head {settings.head} cannot be drawn: {error}") from None
    with atomic_path(settings.sheet) as path:
        page.convert("RGB").save(path, format=FORMATS[settings.sheet.suffix.lower()], quality=88)
    print(f"wrote {settings.sheet}, {page.width} x {page.height} pixels: {', '.join(parts)}")

"""Pictures for people: heads in studio light, overlays, landmarks and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from facegpt.head.mesh import Mesh
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.finite import check_parameters
from facegpt.render.lighting import ambient
from facegpt.render.renderer import render_mesh
from facegpt.render.rendering import Rendering

BACKGROUND = (0.925, 0.915, 0.900)  # warm light grey
CLAY = (0.71, 0.66, 0.62)
INK = (55, 52, 50)
ANSWER = (150, 84, 40)  # of what a model says, beside what it was asked
Lights = tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]
# From the head towards the light, and RGB strength: a warm key from the upper left of the picture, a cool
# fill from the right, and a rim from behind that parts the head from the background.
LIGHTS: Lights = (
    ((-0.65, 0.55, 0.65), (0.95, 0.90, 0.83)),
    ((0.85, 0.05, 0.50), (0.17, 0.19, 0.22)),
    ((0.65, 0.40, -0.65), (0.50, 0.50, 0.52)),
)
SKY, GROUND = (0.30, 0.31, 0.33), (0.16, 0.15, 0.14)
GAMMA = 2.2
SUPERSAMPLE = 2  # rendered pixels for one of a head's picture, along each axis


def to_pil(image: Tensor) -> Image.Image:
    """An RGB image (3,H,W) in [0,1] as a PIL image; values outside are clamped."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"an image of shape (3, H, W) is needed, got {tuple(image.shape)}")
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


@torch.no_grad()
def head_picture(
    head: HeadModel,
    parameters: FaceParameters,
    size: int = 512,
    yaw: float = 0.0,
    clay: bool = False,
    lights: Lights = LIGHTS,
) -> Image.Image:
    """A portrait of one head in studio light; the parameters' own camera and lighting are not used.

    yaw: radians by which the head is turned about the vertical axis beyond its pose, positive to the
    subject's left. clay: show the geometry without albedo. lights: other ones than the studio's.
    Heads of one model are drawn to the same scale, so pictures can be compared.
    Raises ValueError when the parameters are not those of one face; RenderingError, which is one too, when
    they are not finite or huge.
    """
    if len(parameters) != 1:
        raise ValueError(f"a picture shows one face, got {len(parameters)}: pass parameters[k]")
    check_parameters(parameters)
    mesh = head.mesh(parameters)
    if clay:
        colors = torch.tensor(CLAY).to(mesh.vertices).expand_as(mesh.vertices)
        mesh = Mesh(mesh.vertices, mesh.triangles, colors=colors)
    low, high = head.v_template.amin(dim=0), head.v_template.amax(dim=0)
    # Some air above, and the cut through the neck below the picture's edge.
    tall = high[1] - low[1]
    middle = torch.stack([(low[0] + high[0]) / 2, high[1] - 0.43 * tall, (low[2] + high[2]) / 2])
    mesh = replace(mesh, vertices=(mesh.vertices - middle) @ _turn(yaw).to(middle).T)
    camera = torch.stack([1.9 / tall, 0 * tall, 0 * tall])[None]
    light = ambient().to(middle)
    rendering = render_mesh(mesh, camera, light, size * SUPERSAMPLE, size * SUPERSAMPLE)
    return to_pil(F.avg_pool2d(_studio(rendering, lights), SUPERSAMPLE)[0])


def _turn(yaw: float) -> Tensor:
    sine, cosine = math.sin(yaw), math.cos(yaw)
    return torch.tensor([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])


def _studio(rendering: Rendering, lights: Lights) -> Tensor:
    """Light an evenly lit rendering anew, (1,3,H,W), in linear colours: sum of lights, then display code."""
    albedo, normals = rendering.image.clamp(0, 1), rendering.normals
    height = albedo.shape[2]

    def color(value: Sequence[float]) -> Tensor:
        return torch.tensor(value).to(albedo).reshape(1, 3, 1, 1)

    up = (normals[:, 1:2] + 1) / 2
    light = color(SKY) * up + color(GROUND) * (1 - up)
    shine = torch.zeros_like(up)
    for direction, strength in lights:
        toward = F.normalize(color(direction), dim=1)
        cosine = (normals * toward).sum(dim=1, keepdim=True)
        light = light + color(strength) * ((cosine + 0.25) / 1.25).clamp(min=0)  # wrapped: skin is soft
        halfway = F.normalize(toward + color((0.0, 0.0, 1.0)), dim=1)
        glint = (normals * halfway).sum(dim=1, keepdim=True).clamp(min=0) ** 28
        shine = shine + color(strength).mean() * 0.07 * glint * (cosine > 0)
    lit = (albedo**GAMMA * light + shine) * ambient_occlusion(rendering)
    rows = torch.linspace(1.0, 0.90, height).to(albedo).reshape(1, 1, -1, 1)
    mask = rendering.mask[:, None]
    return mask * lit.clamp(0, 1) ** (1 / GAMMA) + (1 - mask) * color(BACKGROUND) * rows


def ambient_occlusion(rendering: Rendering) -> Tensor:
    """How much of its surroundings a pixel sees (1,1,H,W): darker where the neighbourhood is nearer.

    Not so towards the outline, where the surface turns away and everything beside a pixel is nearer.
    """
    depth, mask, facing = rendering.depth[:, None], rendering.mask[:, None], rendering.normals[:, 2:].abs()
    shade = torch.ones_like(depth)
    for share, strength in ((1 / 90, 9.0), (1 / 30, 4.0)):
        width = 2 * max(1, round(depth.shape[2] * share)) + 1
        weight = _blur(mask, width).clamp(min=1e-6)
        hollow = (depth - _blur(depth * mask, width) / weight).clamp(0, 0.12)
        shade = shade * (1 - strength * facing * hollow)
    return shade.clamp(0.35, 1)


def _blur(image: Tensor, width: int) -> Tensor:
    """Two box blurs per axis; one axis at a time, because a square window costs its area per pixel."""
    for window in ((width, 1), (1, width), (width, 1), (1, width)):
        image = F.avg_pool2d(image, window, stride=1, padding=(window[0] // 2, window[1] // 2))
    return image


def overlay(photo: Tensor, rendering: Tensor, mask: Tensor, alpha: float = 1.0) -> Image.Image:
    """A rendering (3,H,W) laid over a photograph (3,H,W) where the mask (H,W) is 1, `alpha` opaque."""
    cover = (alpha * mask).to(photo)
    return to_pil(photo * (1 - cover) + rendering.to(photo) * cover)


def draw_landmarks(
    picture: Image.Image, landmarks: Tensor, color: tuple[int, int, int] = (40, 220, 120)
) -> Image.Image:
    """A copy of the picture with a dot at each landmark (N,2), given in its pixels."""
    smooth = 4
    radius = max(1.0, min(picture.size) / 130) * smooth
    dots = Image.new("L", (picture.width * smooth, picture.height * smooth))
    pen = ImageDraw.Draw(dots)
    for x, y in landmarks.detach().cpu().tolist():
        x, y = x * smooth - 0.5, y * smooth - 0.5  # PIL counts pixels, landmarks measure from the edge
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    solid = Image.new("RGB", picture.size, color)
    return Image.composite(solid, picture.convert("RGB"), dots.resize(picture.size, Image.Resampling.BOX))


def contact_sheet(
    rows: Sequence[Sequence[Image.Image | Tensor | None]],
    titles: Sequence[str] | None = None,
) -> Image.Image:
    """Pictures in rows and columns on white, with a title above each column.

    Pictures are PIL images or (3,H,W) tensors and keep their size, centred in cells as large as the largest;
    None leaves a cell empty, and rows may differ in length. Titles are wrapped to their cells.
    Raises ValueError when there is no picture or there are not as many titles as columns.
    """
    table = [[to_pil(cell) if isinstance(cell, Tensor) else cell for cell in row] for row in rows]
    pictures = [cell for row in table for cell in row if cell is not None]
    columns = max((len(row) for row in table), default=0)
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    if titles is not None and len(titles) != columns:
        raise ValueError(f"{len(titles)} titles were given for {columns} columns")
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    gap = max(6, round(min(width, height) * 0.05))
    font = ImageFont.load_default(size=float(np.clip(height * 0.075, 11, 26)))
    heads = [_wrap(title, width, font) for title in titles or []]
    top = gap + max((_extent(text, font)[1] + gap // 2 for text in heads), default=0)
    size = (gap + columns * (width + gap), top + len(table) * (height + gap))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(heads):
        x = gap + column * (width + gap) + width // 2
        pen.multiline_text((x, top - gap // 2), text, fill=INK, font=font, anchor="md", align="center")
    for number, row in enumerate(table):
        y = top + number * (height + gap)
        for column, picture in enumerate(row):
            if picture is not None:
                x = gap + column * (width + gap)
                place = (x + (width - picture.width) // 2, y + (height - picture.height) // 2)
                sheet.paste(picture.convert("RGB"), place)
    return sheet


def dialogue_sheet(
    rows: Sequence[tuple[str, str, Image.Image | None, Image.Image | None]], size: int = 256
) -> Image.Image:
    """What was said to a model and what came of it, one exchange below the other, on white.

    rows: what was asked, what was answered, the picture that was shown, the face that was spoken (pictures
    of any size, None where there is none). Each row has the picture, the words, and the face, `size` high;
    words that need more room make their row taller.
    Raises ValueError without a row.
    """
    if not rows:
        raise ValueError("a dialogue needs at least one exchange")
    gap, width = size // 16, 2 * size
    font = ImageFont.load_default(size=float(max(11, round(size * 0.075))))
    strips = []
    for asked, answered, shown, face in rows:
        texts = [_wrap(text, width, font) for text in (asked, answered)]
        heights = [_extent(text, font)[1] for text in texts]
        tall = max(size, sum(heights) + gap)
        strip = Image.new("RGB", (2 * size + width + 2 * gap, tall), "white")
        pen = ImageDraw.Draw(strip)
        top = (tall - sum(heights) - gap) // 2
        pen.multiline_text((size + gap, top), texts[0], fill=INK, font=font)
        pen.multiline_text((size + gap, top + heights[0] + gap), texts[1], fill=ANSWER, font=font)
        for picture, left in ((shown, 0), (face, size + width + 2 * gap)):
            if picture is not None:
                small = picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
                strip.paste(small, (left, (tall - size) // 2))
        strips.append(strip)
    height = sum(strip.height + gap for strip in strips) + gap
    sheet = Image.new("RGB", (strips[0].width + 2 * gap, height), "white")
    top = gap
    for strip in strips:
        sheet.paste(strip, (gap, top))
        top += strip.height + gap
    return sheet


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Break lines at spaces so that each fits the width where it can."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def _extent(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> tuple[int, int]:
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return math.ceil(box[2]), math.ceil(box[3])

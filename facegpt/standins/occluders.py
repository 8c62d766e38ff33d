"""Hair, hats, glasses, hands and clothes over rendered heads: soft patches that know where the head is.

They are painted, not modelled: what matters is that parts of a face are hidden, that hair is not always short
and that a neck does not always end in a cut. Points below are in the head's own frame in the image plane:
`across` to the right and `down` from the nose bridge to the chin, in units of that distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facegpt.standins.draw import choose, normal, uniform

CLOTHES, HAIR, HAT, GLASSES, HAND = 0.55, 0.6, 0.1, 0.25, 0.1  # probabilities
HAIR_COLORS = (
    (0.05, 0.045, 0.04), (0.08, 0.06, 0.05), (0.16, 0.10, 0.07), (0.28, 0.18, 0.11), (0.40, 0.27, 0.17),
    (0.62, 0.47, 0.29), (0.80, 0.68, 0.47), (0.42, 0.18, 0.09), (0.50, 0.49, 0.48), (0.80, 0.79, 0.77),
)  # fmt: skip
BRIDGE, CHIN = 27, 8  # of the 68 landmarks
EYES = (slice(36, 42), slice(42, 48))


@dataclass
class HeadFrame:
    """Where B heads are in their images.

    across, down (B,H,W): of every pixel. head (B,H,W): 1 on the head. landmarks (B,68,2): across, down.
    top, left, right (B,1,1): extent of the head above its chin. light (B,1,1): mean brightness of the face.
    """

    across: Tensor
    down: Tensor
    head: Tensor
    landmarks: Tensor
    top: Tensor
    left: Tensor
    right: Tensor
    light: Tensor

    def __getitem__(self, rows: Tensor) -> HeadFrame:
        return HeadFrame(*(value[rows] for value in vars(self).values()))


def head_frame(images: Tensor, mask: Tensor, landmarks: Tensor) -> HeadFrame:
    """The frames of heads in images (B,3,H,W) with mask (B,H,W) and landmarks (B,68,2) in pixels."""
    origin, axis = landmarks[:, BRIDGE], landmarks[:, CHIN] - landmarks[:, BRIDGE]
    axis = axis / axis.square().sum(dim=1, keepdim=True).clamp(min=1e-6)  # (B, 2)
    points = landmarks - origin[:, None]
    turned = torch.stack([axis[:, 1], -axis[:, 0]], dim=1)  # to the right where `axis` is down
    own = torch.stack([(points * turned[:, None]).sum(-1), (points * axis[:, None]).sum(-1)], dim=-1)
    height, width = images.shape[-2:]
    x = (torch.arange(width).to(landmarks) + 0.5 - origin[:, :1])[:, None]  # (B, 1, W)
    y = (torch.arange(height).to(landmarks) + 0.5 - origin[:, 1:])[:, :, None]
    across = x * turned[:, :1, None] + y * turned[:, 1:, None]
    down = x * axis[:, :1, None] + y * axis[:, 1:, None]
    seen = (mask > 0.5) & (down < 0.6)
    far = torch.full_like(across, torch.inf)
    # A head that the image cuts off is as high as heads are, and at least as wide as its contour.
    top = torch.where(seen, down, far).amin(dim=(1, 2)).clamp(-1.3, -0.9)
    left = torch.minimum(torch.where(seen, across, far).amin(dim=(1, 2)), own[:, :17, 0].amin(1))
    right = torch.maximum(torch.where(seen, across, -far).amax(dim=(1, 2)), own[:, :17, 0].amax(1))
    light = (images.mean(dim=1) * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)
    edges = (value.view(-1, 1, 1) for value in (top, left, right, light))
    return HeadFrame(across, down, mask, own, *edges)


def occlude(images: Tensor, mask: Tensor, landmarks: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B,3,H,W) in [0,1] of heads that wear and hold things; new images (B,3,H,W) in [0,1].

    mask (B,H,W): 1 on the head; landmarks (B,68,2) in pixels. Both stay true: what is hidden is still there.
    """
    frame = head_frame(images, mask.to(images), landmarks.to(images))
    for probability, paint in (
        (CLOTHES, clothes),
        (HAIR, hair),
        (GLASSES, glasses),
        (HAT, hat),
        (HAND, hand),
    ):
        rows = choose(len(images), probability, generator).to(images.device)
        if len(rows):
            color, opacity = paint(images[rows], frame[rows], generator)
            painted = torch.lerp(images[rows], color.clamp(0, 1), opacity[:, None])
            images = images.index_copy(0, rows, painted)
    return images


def hair(images: Tensor, frame: HeadFrame, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Short or long hair around the face, with a hairline, sometimes bangs, and ragged strands.

    Returns color (B,3,H,W) and opacity (B,H,W), as the other painters do.
    """
    count, like = len(images), images
    draw = _Draw((count, 1, 1), generator, like)
    middle, half = (frame.left + frame.right) / 2, (frame.right - frame.left) / 2
    # Its outline: half an ellipse above the ears, below them two falls that widen, down to `length`.
    volume = draw(0.0, 0.35) * draw(0.3, 1.0)
    length = torch.where(draw(0, 1) < 0.45, draw(-0.3, 0.3), draw(0.6, 2.6))
    widest = half * (0.97 + 0.6 * volume)
    rise = (frame.down / (frame.top - 0.6 * volume)).clamp(min=0)
    widening = 1 + draw(-0.1, 0.3) * frame.down.clamp(min=0)
    aside = (frame.across - middle) / (widest * widening)
    outline = 1 - (aside.square() + rise.square()).sqrt()
    # The strands: noise in the angle about the crown, long along the radius, or curls with no direction.
    x, y = frame.across - middle - 0.2 * draw(-1, 1), frame.down - 0.75 * frame.top
    radius = (x * x + y * y).sqrt()
    curls = draw(0, 1) < 0.25
    u = torch.where(curls, 2.2 * x, torch.atan2(x, y + 1.5 * radius) * 3)
    v = torch.where(curls, 2.2 * y, 0.35 * radius + draw(-1, 1))
    strands = _texture(u, v, generator)
    ragged = draw(0.02, 0.12) * strands
    # The face looks out of it: a round opening below the hairline, between the temples.
    contour = frame.landmarks[:, :17, 0]
    low, high = contour.amin(1).view(-1, 1, 1), contour.amax(1).view(-1, 1, 1)
    hairline = torch.where(draw(0, 1) < 0.3, draw(-0.3, -0.02), draw(-0.62, -0.35))
    reach = (high - low) / 2 * draw(0.84, 1.06)
    parted = draw(-0.5, 0.5) * (draw(0, 1) < 0.5)
    slant = (frame.across - (low + high) / 2) / reach
    up = ((0.25 - frame.down) / (0.25 - hairline)).clamp(min=0) * (1 + 0.3 * parted * slant)
    power = draw(2.0, 3.5)
    opening = 1 - (slant.abs().clamp(min=1e-3) ** power + up.clamp(min=1e-3) ** power) ** (1 / power)
    sharp = draw(12, 40)
    inside = torch.sigmoid(sharp * (outline + ragged)) * torch.sigmoid(
        sharp * (length - frame.down + 2 * ragged)
    )
    # It is behind the head where the opening lies beside it, and falls in front of the ears.
    covered = 1 - frame.head * torch.sigmoid(sharp * (opening - ragged))
    shade = 1 + draw(0.15, 0.45) * strands + draw(-0.35, 0.35) * slant.clamp(-1.5, 1.5)
    behind = 1 - 0.5 * (1 - frame.head) * torch.sigmoid(8 * (frame.down - 0.2))
    choices = images.new_tensor(HAIR_COLORS)
    picked = torch.randint(len(choices), (count,), generator=generator, device=generator.device)
    color = choices[picked.to(images.device)] * (1 + 0.04 * normal((count, 3), generator, like))
    color = torch.where(draw(0, 1)[:, 0] < 0.03, uniform((count, 3), 0, 1, generator, like), color)
    bright = (frame.light / 0.45).clamp(0.5, 1.2) * draw(0.75, 1.2) * shade * behind
    return color[..., None, None] * bright[:, None], inside * covered * draw(0.9, 1.0)


def hat(images: Tensor, frame: HeadFrame, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A cap or a hood of cloth: straight or round at the forehead, wider than the head."""
    draw = _Draw((len(images), 1, 1), generator, images)
    contour = frame.landmarks[:, :17, 0]
    low, high = contour.amin(1).view(-1, 1, 1), contour.amax(1).view(-1, 1, 1)
    # Turned to the side, the back of the head shows beyond the contour.
    middle = (low + high + frame.left + frame.right) / 4
    aside = (frame.across - middle) / ((high - low) / 2 * draw(1.0, 1.15))
    rise = ((frame.down + 0.2) / (frame.top + 0.2 - draw(0.05, 0.4))).clamp(min=0)
    power = draw(2.0, 3.0)
    outline = 1 - (aside.abs().clamp(min=1e-3) ** power + rise.clamp(min=1e-3) ** power) ** (1 / power)
    brim = draw(-0.5, -0.2) + draw(-0.15, 0.25) * aside.square() + draw(-0.15, 0.15) * aside
    shade = 1 - draw(0, 0.35) * aside.abs() - 0.3 * torch.sigmoid(25 * (frame.down - brim + 0.12))
    color = _cloth(frame.across, frame.down, generator, images) * (frame.light / 0.5).clamp(0.5, 1.5)[:, None]
    opacity = torch.sigmoid(90 * outline) * torch.sigmoid(90 * (brim - frame.down))
    return color * shade[:, None], opacity


def clothes(images: Tensor, frame: HeadFrame, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shoulders and a collar around the neck, high as a scarf's now and then."""
    draw = _Draw((len(images), 1, 1), generator, images)
    jaw = frame.landmarks[:, CHIN, 0].view(-1, 1, 1) * 0.5 + (frame.left + frame.right) / 4
    beside = frame.across - jaw
    scarf = draw(0, 1) < 0.2
    collar = torch.where(scarf, draw(0.85, 1.1), draw(1.25, 1.6))
    neck = draw(0.55, 0.75) * (frame.right - frame.left) / 2
    # Lowest in the middle, highest beside the neck, then the shoulders fall.
    out = (beside.abs() / neck).clamp(max=1)
    line = collar - draw(0.02, 0.35) * out.square() + draw(0.25, 0.6) * (beside.abs() - neck).clamp(min=0)
    folds = _texture(0.8 * frame.across + draw(-1, 1), 0.5 * frame.down + draw(-1, 1), generator)
    fall = 1 + 0.15 * folds - 0.3 * torch.sigmoid(20 * (line - frame.down + 0.1))
    color = _cloth(frame.across, frame.down, generator, images) * (frame.light / 0.5).clamp(0.5, 1.5)[:, None]
    return color * fall[:, None], torch.sigmoid(70 * (frame.down - line) + 0.5 * folds)


def glasses(images: Tensor, frame: HeadFrame, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two rims with a bridge and temples; the lenses are clear, tinted, or those of sunglasses."""
    draw = _Draw((len(images), 1, 1), generator, images)
    thick, height, power = draw(0.01, 0.035), draw(0.16, 0.26), draw(2.0, 4.5)
    wide, lower = draw(0.85, 1.1), draw(-0.02, 0.06)
    frames, lenses = torch.zeros_like(frame.across), torch.zeros_like(frame.across)
    for eye, sign in zip(EYES, (-1, 1), strict=True):
        corners = frame.landmarks[:, eye]  # (B, 6, 2)
        width = (corners[..., 0].amax(1) - corners[..., 0].amin(1)).view(-1, 1, 1) * wide
        x = frame.across - corners[..., 0].mean(1).view(-1, 1, 1)
        y = frame.down - corners[..., 1].mean(1).view(-1, 1, 1) - lower
        norm = (x / width).abs().clamp(min=1e-3) ** power + (y / height).abs().clamp(min=1e-3) ** power
        distance = (norm ** (1 / power) - 1) * torch.minimum(width, height)  # near enough to units of length
        frames = torch.maximum(frames, torch.sigmoid(250 * (thick - distance.abs())))
        lenses = torch.maximum(lenses, torch.sigmoid(250 * -distance))
        # From the outer rim towards the ear, as far as the head reaches.
        ear = torch.where(frame.across * sign > 0, 1.0, 0.0) * torch.sigmoid(100 * (x * sign - width))
        bar = torch.sigmoid(250 * (0.8 * thick - (y + 0.35 * height).abs()))
        frames = torch.maximum(frames, bar * ear * frame.head)
    left, right = (frame.landmarks[:, eye].mean(1) for eye in EYES)  # (B, 2) each
    along = (frame.across - left[:, :1, None]) / (right[:, :1, None] - left[:, :1, None]).abs().clamp(
        min=0.05
    )
    level = torch.lerp(left[:, 1:, None], right[:, 1:, None], along.clamp(0, 1)) + lower - 0.3 * height
    bridge = torch.sigmoid(250 * (0.8 * thick - (frame.down - level).abs())) * ((along - 0.5).abs() < 0.5)
    frames = torch.maximum(frames, bridge * (1 - lenses))
    dark = draw(0, 1)
    tint = torch.where(dark < 0.2, draw(0.6, 0.97), torch.where(dark < 0.5, draw(0.05, 0.3), draw(0, 0.08)))
    glare = torch.sigmoid(15 * (frame.across + frame.down * draw(-1, 1) - draw(-0.5, 0.5))) * draw(0, 0.25)
    lens = torch.where(dark < 0.5, draw(0.02, 0.3), draw(0.7, 1.0)) + glare
    rim = uniform((len(images), 3, 1, 1), 0, 1, generator, images) * draw(0.05, 0.7)[:, None]
    opacity = torch.maximum(frames * draw(0.6, 1.0), lenses * tint)
    share = (frames / (frames + lenses * tint + 1e-4))[:, None]
    return torch.lerp(lens[:, None].expand_as(images), rim.expand_as(images), share), opacity


def hand(images: Tensor, frame: HeadFrame, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A palm and four fingers over a part of the face, or beside it, in about the color of its skin."""
    count = len(images)
    draw = _Draw((count, 1, 1), generator, images)
    angle = draw(-1.0, 1.0)
    place = (draw(-1.1, 1.1), draw(0.2, 1.5))  # of the palm: from the mouth's height to below the chin
    x, y = frame.across - place[0], frame.down - place[1]
    along, beside = x * torch.sin(angle) - y * torch.cos(angle), x * torch.cos(angle) + y * torch.sin(angle)
    size = draw(0.42, 0.6)
    along, beside = along / size, beside / size
    distance = (((along + 0.2) / 0.85) ** 2 + (beside / 0.75) ** 2).sqrt() - 1
    # The arm, away from the fingers.
    distance = torch.minimum(distance, torch.maximum(beside.abs() - 0.55, along + 0.6))
    bend = draw(0.3, 1.0)
    for finger, longest in zip((-0.57, -0.19, 0.19, 0.57), (0.8, 1.0, 0.95, 0.7), strict=True):
        tip = 0.5 + longest * bend
        reach = along - along.clamp(torch.zeros_like(tip), tip)
        lateral = beside - finger * (1 + 0.2 * along.clamp(min=0) * draw(0, 1))
        distance = torch.minimum(distance, (reach.square() + lateral.square()).sqrt() - 0.2)
    skin = (images * frame.head[:, None]).sum(dim=(2, 3)) / frame.head.sum(dim=(1, 2))[:, None].clamp(min=1)
    color = skin * (1.1 + 0.03 * normal((count, 3), generator, images))
    shade = 1 - 0.45 * torch.sigmoid(14 * (distance + 0.14)) + 0.06 * _texture(x, y, generator)
    return color[..., None, None] * shade[:, None], torch.sigmoid(-35 * distance)


class _Draw:
    """Uniform numbers, one for each image: `_Draw(shape, generator, like)(low, high)`."""

    def __init__(self, shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> None:
        self.shape, self.generator, self.like = shape, generator, like

    def __call__(self, low: float, high: float) -> Tensor:
        return uniform(self.shape, low, high, self.generator, self.like)


def _texture(u: Tensor, v: Tensor, generator: torch.Generator, cells: int = 48) -> Tensor:
    """Noise (B,H,W) of standard deviation about 0.5 at u, v (B,H,W): a tile on [-1,1]^2, mirrored beyond."""
    tile = normal((len(u), 1, cells, cells), generator, u)
    where = torch.stack([u, v], dim=-1)
    coarse = F.grid_sample(tile, where, padding_mode="reflection", align_corners=False)
    fine = F.grid_sample(tile, 2.7 * where, padding_mode="reflection", align_corners=False)
    return (0.6 * coarse + 0.4 * fine)[:, 0]


def _cloth(across: Tensor, down: Tensor, generator: torch.Generator, like: Tensor) -> Tensor:
    """Color (B,3,H,W) of plain cloth, every third one with stripes."""
    count = len(across)
    draw = _Draw((count, 1, 1), generator, like)
    two = uniform((2, count, 3, 1, 1), 0.03, 0.9, generator, like)
    muted = two.mean(dim=2, keepdim=True)
    two = torch.lerp(muted, two, draw(0, 1)[:, None])
    angle = draw(0, math.pi)
    wave = torch.sin((across * torch.cos(angle) + down * torch.sin(angle)) * draw(8, 50))
    striped = torch.sigmoid(8 * wave) * (draw(0, 1) < 0.33)
    return torch.lerp(two[0], two[1], striped[:, None])

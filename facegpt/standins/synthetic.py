"""Random faces with known truth: what a camera might see of a head model.

Everything is drawn from an explicit generator, so a seed and a head give the same faces again.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.render.lighting import directional, sh_basis
from facegpt.render.rendering import Rendering

SHAPE_SIGMA, ALBEDO_SIGMA = 0.8, 1.0
MAX_YAW, MAX_PITCH, MAX_ROLL, MAX_JAW = math.radians(40), math.radians(20), math.radians(15), 0.4
SCALE_JITTER, SHIFT_JITTER = 0.12, 0.008  # relative; metres

# What faces do: named components with their share, and the range of jaw opening (radians) that goes with it.
ARCHETYPES: dict[str, tuple[dict[str, float], tuple[float, float]]] = {
    "smile": ({"mouthSmile": 1.0, "cheekSquint": 0.6}, (0.0, 0.02)),
    "laugh": ({"mouthSmile": 1.0, "cheekSquint": 0.8, "eyeSquint": 0.5}, (0.1, 0.3)),
    "sadness": ({"mouthFrown": 1.0, "browInnerUp": 0.8, "mouthShrugLower": 0.3}, (0.0, 0.0)),
    "anger": ({"browDown": 1.0, "mouthPress": 0.7, "eyeSquint": 0.4}, (0.0, 0.0)),
    "surprise": ({"browOuterUp": 1.0, "browInnerUp": 0.8, "eyeWide": 0.9}, (0.15, 0.4)),
    "fear": ({"browInnerUp": 0.9, "eyeWide": 0.9, "mouthStretch": 0.8}, (0.03, 0.2)),
    "disgust": ({"noseSneer": 1.0, "mouthUpperUp": 0.7, "browDown": 0.3}, (0.0, 0.05)),
    "blink": ({"eyeBlink": 1.0}, (0.0, 0.0)),
    "pucker": ({"mouthPucker": 1.0}, (0.0, 0.0)),
    "funnel": ({"mouthFunnel": 0.9}, (0.05, 0.15)),
    "puff": ({"cheekPuff": 1.0}, (0.0, 0.0)),
    "speech": ({"mouthLowerDown": 0.6, "mouthUpperUp": 0.3}, (0.08, 0.25)),
    "open mouth": ({}, (0.1, 0.4)),
}
# feeling -> the archetypes that show it
SHOWN_BY: dict[str, tuple[str, ...]] = {
    "happiness": ("smile", "laugh"),
    "sadness": ("sadness",),
    "anger": ("anger",),
    "surprise": ("surprise",),
    "fear": ("fear",),
    "disgust": ("disgust",),
}


def sample_parameters(head: HeadModel, count: int, generator: torch.Generator) -> FaceParameters:
    """`count` random faces that the camera frames, on the head's device.

    Identity N(0, 0.8), albedo N(0, 1); expressions are one or two archetypes, mostly symmetric, of varied
    strength; yaw within 40, pitch within 20, roll within 15 degrees; ambient plus directional light of varied
    direction, strength and tint; scale within 12 % of the head's default camera, the landmark box near the
    centre.
    Expression components without a name that `ARCHETYPES` knows are drawn from a decaying normal.
    """
    layout = head.layout
    device = head.mean_parameters().shape.device
    expression, jaw = _expressions(head.expression_names, layout.expression, count, generator)
    rotation = _head_rotation(count, generator)
    sideways = 0.04 * torch.randn(count, 2, generator=generator) * (jaw[:, None] > 0)
    parameters = head.mean_parameters(count, neck=layout.neck, eyes=layout.eyes).to("cpu")
    parameters = parameters.replace(
        shape=SHAPE_SIGMA * torch.randn(count, layout.shape, generator=generator),
        albedo=ALBEDO_SIGMA * torch.randn(count, layout.albedo, generator=generator),
        expression=expression,
        pose=torch.cat([rotation, jaw[:, None], sideways.clamp(-0.08, 0.08)], dim=1),
        lighting=_lighting(count, generator),
    ).to(device)
    return parameters.replace(camera=_camera(head, parameters, generator))


def background(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random backgrounds (count,3,size,size) in [0,1]: soft gradients, half of them with clutter."""
    axis = torch.linspace(-1, 1, size)
    angle = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    ramp = 0.5 + 0.35 * (torch.cos(angle) * axis[None, None, :] + torch.sin(angle) * axis[None, :, None])
    ends = _colors(2 * count, generator).view(2, count, 3, 1, 1)
    image = torch.lerp(ends[0], ends[1], ramp[:, None])
    cluttered = (torch.rand(count, 1, 1, 1, generator=generator) < 0.5).float()
    for cells, amplitude in ((3, 0.12), (7, 0.1 * cluttered), (20, 0.08 * cluttered)):
        noise = torch.randn(count, 3, cells, cells, generator=generator)
        noise = 0.3 * noise + 0.7 * noise[:, :1]  # mostly brightness, as in photographs
        image = image + amplitude * F.interpolate(
            noise, size=(size, size), mode="bicubic", align_corners=False
        )
    for _ in range(6):
        image = torch.lerp(image, *_object(count, axis, cluttered, generator))
    return image.clamp(0, 1)


def photograph(rendering: Rendering, backdrop: Tensor, generator: torch.Generator) -> Tensor:
    """The rendered heads before a background (B,3,H,W), with slight sensor noise; (B,3,H,W) in [0,1]."""
    image = rendering.image.clamp(0, 1)
    image = image + (1 - rendering.mask[:, None]) * backdrop.to(image)
    sigma = 0.012 * torch.rand(len(image), 1, 1, 1, generator=generator)
    noise = sigma * torch.randn(image.shape, generator=generator)
    return (image + noise.to(image)).clamp(0, 1)


@dataclass
class _Archetypes:
    """shares (K,3,E): component shares on both sides, left, right; jaw (K,2): range; frequency (K,).

    known (E,) bool: the components that some archetype moves.
    """

    shares: Tensor
    jaw: Tensor
    frequency: Tensor
    known: Tensor


def _archetypes(names: list[str], size: int) -> _Archetypes:
    """`ARCHETYPES` in the components of this head.

    A named component that no archetype mentions is an archetype of its own, drawn more rarely; when no name
    is known at all (FLAME's are only numbered) there are none of these.
    """
    stems: dict[str, list[tuple[int, int]]] = {}
    for index, name in enumerate(names):
        stem, side = _split_side(name)
        stems.setdefault(stem, []).append((side, index))
    table = [({key.lower(): v for key, v in parts.items()}, jaw, 1.0) for parts, jaw in ARCHETYPES.values()]
    mentioned = {key for parts, _, _ in table for key in parts}
    if mentioned & stems.keys():
        table += [({stem: 0.8}, (0.0, 0.0), 0.15) for stem in sorted(stems.keys() - mentioned - {""})]
    shares = torch.zeros(len(table), 3, size)
    for row, (parts, _, _) in enumerate(table):
        for stem, share in parts.items():
            for side, index in stems.get(stem, []):
                shares[row, side, index] = share
    jaw, frequency = torch.tensor([row[1] for row in table]), torch.tensor([row[2] for row in table])
    return _Archetypes(shares, jaw, frequency, known=shares.any(0).any(0))


def _split_side(name: str) -> tuple[str, int]:
    """mouthSmileLeft or mouth_smile_L -> ("mouthsmile", 1); sides are 0 both, 1 left, 2 right."""
    match = re.fullmatch(r"(.+?)_?(?:(Left|_L|(?<=[a-z_])L)|(Right|_R|(?<=[a-z_])R))", name)
    if match is None or name in ("mouthLeft", "mouthRight", "jawLeft", "jawRight"):  # these are directions
        return name.replace("_", "").lower(), 0
    return match[1].replace("_", "").lower(), 1 if match[2] else 2


def _expressions(
    names: list[str], size: int, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Expression coefficients (count, size) and jaw opening (count,) in radians."""
    table = _archetypes(list(names)[:size], size)
    chosen = torch.multinomial(table.frequency.expand(count, -1), 2, replacement=False, generator=generator)
    strength = 0.25 + 0.85 * torch.rand(count, 2, generator=generator)
    kind = torch.rand(count, generator=generator)
    strength[:, 1] *= (kind < 0.3).float() * 0.7  # a second archetype for 3 faces of 10
    strength *= (kind < 0.88).float()[:, None]  # and a neutral face for 1 of 8
    sides = torch.ones(count, 2, 3)
    weaker = torch.randint(1, 3, (count, 2, 1), generator=generator)
    one_sided = torch.rand(count, 2, 1, generator=generator) < 0.15
    factor = torch.where(one_sided, 0.7 * torch.rand(count, 2, 1, generator=generator), torch.ones(()))
    sides.scatter_(2, weaker, factor)
    expression = torch.einsum("bk,bks,bkse->be", strength, sides, table.shares[chosen]).clamp(max=1.2)
    low, high = table.jaw[chosen].unbind(-1)
    opening = (strength * (low + (high - low) * torch.rand(count, 2, generator=generator))).sum(1)
    idle = (torch.rand(count, generator=generator) < 0.2) * 0.1 * torch.rand(count, generator=generator)
    decay = 0.8 * torch.exp(-torch.arange(size) / 12.0)
    unnamed = decay * torch.randn(count, size, generator=generator) * ~table.known
    return expression + unnamed, (opening + idle).clamp(0, MAX_JAW)


def _head_rotation(count: int, generator: torch.Generator) -> Tensor:
    """Axis-angle (count,3) of yaw after pitch after roll; half-normal-like spread, cut at the limits."""
    limits = torch.tensor([MAX_YAW, MAX_PITCH, MAX_ROLL])
    angles = (0.5 * limits * torch.randn(count, 3, generator=generator)).clamp(-limits, limits)
    (cy, cp, cr), (sy, sp, sr) = torch.cos(angles / 2).unbind(1), torch.sin(angles / 2).unbind(1)
    w = cy * cp * cr + sy * sp * sr  # the quaternion q_y q_x q_z
    vector = torch.stack(
        [cy * sp * cr + sy * cp * sr, sy * cp * cr - cy * sp * sr, cy * cp * sr - sy * sp * cr], 1
    )
    length = vector.norm(dim=1)
    return vector * (2 * torch.atan2(length, w) / length.clamp(min=1e-12))[:, None]


def _lighting(count: int, generator: torch.Generator) -> Tensor:
    """SH coefficients (count,27): ambient, key and weak fill light; mean shading from the front near 0.95."""
    azimuth = 1.2 * torch.randn(2, count, generator=generator).clamp(-1.5, 1.5)
    elevation = 0.35 + 0.45 * torch.randn(2, count, generator=generator).clamp(-2, 2)
    direction = torch.stack(
        [
            torch.sin(azimuth) * torch.cos(elevation),
            torch.sin(elevation),
            torch.cos(azimuth) * torch.cos(elevation),
        ],
        dim=-1,
    )
    tint = 1 + 0.08 * torch.randn(3, count, 1, generator=generator) * torch.tensor([1.0, 0.1, -1.0])
    ambient = 0.4 + 0.5 * torch.rand(count, 1, generator=generator)
    fill = 0.3 * torch.rand(count, 1, generator=generator)
    lighting = directional(direction[0], (1 - ambient) * tint[0], ambient * tint[1])
    lighting = lighting + directional(direction[1], (1 - ambient) * fill * tint[2], torch.zeros(count, 3))
    x, y = torch.meshgrid(torch.linspace(-0.8, 0.8, 9), torch.linspace(-0.8, 0.8, 9), indexing="xy")
    seen = torch.stack([x, y, (1 - x * x - y * y).clamp(min=0).sqrt()], -1)[x * x + y * y < 0.9]
    shading = sh_basis(seen) @ lighting.view(count, 9, 3)  # (count, points, 3)
    target = 0.95 + 0.06 * torch.randn(count, 1, generator=generator).clamp(-2, 2)
    return lighting * (target / shading.mean(dim=(1, 2))[:, None])


def _camera(head: HeadModel, parameters: FaceParameters, generator: torch.Generator) -> Tensor:
    """A camera (B,3) of about the default camera's scale, its centre near that of the landmark box."""
    with torch.no_grad():
        points = head(parameters).landmarks[..., :2]
    center = (points.amin(1) + points.amax(1)) / 2
    uniform = (2 * torch.rand(len(parameters), 3, generator=generator) - 1).to(center)
    scale = head.default_camera[0] * (1 + SCALE_JITTER * uniform[:, :1])
    return torch.cat([scale, SHIFT_JITTER * uniform[:, 1:] - center], dim=1)


def _colors(count: int, generator: torch.Generator) -> Tensor:
    """Colours (count,3,1,1), more often muted than saturated."""
    brightness = 0.1 + 0.8 * torch.rand(count, 1, 1, 1, generator=generator)
    chroma = torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(
        count, 3, 1, 1, generator=generator
    )
    return (brightness + 0.25 * chroma).clamp(0, 1)


def _object(count: int, axis: Tensor, visible: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A soft-edged box or ellipse of one colour: colour (count,3,1,1) and opacity (count,1,size,size)."""
    center = 2 * torch.rand(2, count, 1, 1, 1, generator=generator) - 1
    extent = 0.1 + 0.5 * torch.rand(2, count, 1, 1, 1, generator=generator)
    x = ((axis[None, None, None, :] - center[0]) / extent[0]).abs()
    y = ((axis[None, None, :, None] - center[1]) / extent[1]).abs()
    power = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.5, 2.0, 8.0)
    distance = (x**power + y**power) ** (1 / power)
    sharpness = 4 + 30 * torch.rand(count, 1, 1, 1, generator=generator)
    present = visible * (torch.rand(count, 1, 1, 1, generator=generator) < 0.7)
    return torch.rand(count, 3, 1, 1, generator=generator), present * torch.sigmoid(
        sharpness * (1 - distance)
    )

"""What a camera, a lens and a file format do to a picture: the variety that renderings lack.

For the training of a vision side that shall carry over to photographs. Nothing here moves a pixel, so what is
known about a face stays true; what hides parts of it is in `facegpt.standins.occluders`. Everything is drawn
from an explicit generator, and each effect has a probability of its own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from facegpt.standins.draw import choose, normal, uniform
from facegpt.standins.occluders import occlude

TONE, VIGNETTE, BLUR, NOISE, GRAY, RESOLUTION, BLOCKS = 0.9, 0.25, 0.35, 0.5, 0.06, 0.35, 0.5  # probabilities
COARSEST = 0.25  # of the side in pixels, to which a picture's resolution may fall
# Quantisation steps of JPEG's luminance (ITU-T T.81, table K.1) at quality 50, in 255ths.
QUANTIZATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


def photographic(images: Tensor, mask: Tensor, landmarks: Tensor, generator: torch.Generator) -> Tensor:
    """Renderings before a background as photographs of people might be: `occlude`, then `degrade`.

    images (B,3,H,W) in [0,1]; mask (B,H,W): 1 on the head; landmarks (B,68,2) in pixels. Returns new images
    (B,3,H,W) in [0,1]; landmarks, mask and parameters stay true of them.
    """
    return degrade(occlude(images, mask, landmarks, generator), generator)


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B,3,H,W) in [0,1] as another camera would have taken and stored them, (B,3,H,W) in [0,1].

    In the order in which a photograph suffers it: vignetting, exposure with white balance and contrast, blur
    of lens or motion, sensor noise, now and then no color, loss of resolution, the blocks of a JPEG file.
    """
    images = images.clamp(0, 1)
    for probability, effect in (
        (VIGNETTE, vignette),
        (TONE, tone),
        (BLUR, blur),
        (NOISE, noise),
        (GRAY, gray),
        (RESOLUTION, resolution),
        (BLOCKS, blocks),
    ):
        rows = choose(len(images), probability, generator).to(images.device)
        if len(rows):
            images = images.index_copy(0, rows, effect(images[rows], generator).clamp(0, 1))
    return images


def vignette(images: Tensor, generator: torch.Generator) -> Tensor:
    """Darker towards the corners, by up to 60 %, around a point near the middle."""
    count, _, height, width = images.shape
    center = 0.3 * normal((count, 2, 1, 1), generator, images)
    x = torch.linspace(-1, 1, width).to(images) - center[:, :1]  # (B, 1, W)
    y = torch.linspace(-1, 1, height).to(images)[:, None] - center[:, 1:]
    strength = uniform((count, 1, 1, 1), 0.1, 0.6, generator, images)
    return images * (1 - strength * ((x * x + y * y) / 2).clamp(max=1))


def tone(images: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma in about [0.6, 1.7], contrast, exposure by 20 %, white balance by about 6 %, saturation."""
    shape = (len(images), 1, 1, 1)
    gamma = torch.exp(0.27 * normal(shape, generator, images).clamp(-2, 2))
    gain = 1 + 0.2 * uniform(shape, -1, 1, generator, images)
    # Light is warm or cold far more often than it is green or magenta.
    warmth, tint = 0.06 * normal(shape, generator, images), 0.02 * normal(shape, generator, images)
    balance = 1 + torch.cat([warmth + tint, -tint, tint - warmth], dim=1)
    contrast = uniform(shape, 0.85, 1.25, generator, images)
    saturation = uniform(shape, 0.6, 1.3, generator, images)
    images = images.clamp(min=1e-4) ** gamma * (gain * balance)
    images = torch.lerp(_luminance(images), images, saturation)
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return middle + contrast * (images - middle)


def blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian blur of up to 1 % of the side along each axis, alike along both or, as of motion, not."""
    count, width = len(images), images.shape[-1]
    sigma = uniform((count, 2), 0.002, 0.01, generator, images) * width
    alike = uniform((count,), 0, 1, generator, images) < 0.7
    sigma[alike, 1] = sigma[alike, 0]
    images = _blur_down(_blur_down(images, sigma[:, 1]).mT.contiguous(), sigma[:, 0])
    return images.mT.contiguous()


def noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Sensor noise up to 0.04, fine in brightness, coarser and weaker in color."""
    count, _, height, width = images.shape
    sigma = 0.04 * uniform((count, 1, 1, 1), 0, 1, generator, images) ** 2
    color = normal((count, 3, height // 2, width // 2), generator, images)
    color = F.interpolate(color, size=(height, width), mode="nearest")
    return images + sigma * (normal((count, 1, height, width), generator, images) + 0.5 * color)


def gray(images: Tensor, generator: torch.Generator) -> Tensor:
    """No color; every other one toned like an old print."""
    sepia = images.new_tensor((1.06, 1.0, 0.88)).view(1, 3, 1, 1)
    toned = uniform((len(images), 1, 1, 1), 0, 1, generator, images) < 0.5
    return _luminance(images) * torch.where(toned, sepia, torch.ones_like(sepia))


def resolution(images: Tensor, generator: torch.Generator) -> Tensor:
    """Made smaller, to down to `COARSEST` of the side, and large again."""
    size = images.shape[-2:]
    share = uniform((len(images),), 0, 1, generator, images).tolist()
    result = []
    for image, scale in zip(images.split(1), share, strict=True):  # each has another size in between
        scale = COARSEST ** (scale * scale)  # mostly mild
        small = (max(1, round(scale * size[0])), max(1, round(scale * size[1])))
        coarse = F.interpolate(image, size=small, mode="bilinear", antialias=True)
        result.append(F.interpolate(coarse, size=size, mode="bilinear"))
    return torch.cat(result)


def blocks(images: Tensor, generator: torch.Generator) -> Tensor:
    """What JPEG leaves at a quality of 15 to 90: the cosine transform of 8 x 8 pixels, quantised.

    The color differences are quantised twice as coarsely as brightness, which stands for JPEG's own table and
    their halved resolution. A border beyond the last whole block stays as it is.
    """
    height, width = (8 * (side // 8) for side in images.shape[-2:])
    quality = uniform((len(images),), 15, 90, generator, images)
    # As the reference implementation scales its tables with the quality.
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50).view(-1, 1, 1, 1, 1)
    steps = scale * images.new_tensor(QUANTIZATION).flatten() / 255  # (B, 1, 1, 1, 64)
    steps = torch.cat([steps, 2 * steps, 2 * steps], dim=1).clamp(min=1 / 255)
    luminance = _luminance(images[..., :height, :width])
    planes = torch.cat([luminance, images[:, ::2, :height, :width] - luminance], dim=1)  # Y, R - Y, B - Y
    tiles = planes.reshape(len(images), 3, height // 8, 8, width // 8, 8).transpose(3, 4).flatten(-2)
    cosine = _cosine_transform().to(images)
    coded = ((tiles @ cosine.T) / steps).round() * steps
    tiles = (coded @ cosine).unflatten(-1, (8, 8)).transpose(3, 4)
    planes = tiles.reshape(planes.shape)
    brightness, red, blue = planes.split(1, dim=1)
    green = -(LUMINANCE[0] * red + LUMINANCE[2] * blue) / LUMINANCE[1]
    result = images.clone()
    result[..., :height, :width] = brightness + torch.cat([red, green, blue], dim=1)
    return result


def _luminance(images: Tensor) -> Tensor:
    return (images * images.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _blur_down(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (B,3,H,W) blurred along their columns by sigma (B,) pixels; the border is repeated."""
    radius = max(1, math.ceil(2.5 * float(sigma.max())))
    distance = torch.arange(-radius, radius + 1).to(sigma) / sigma[:, None]
    weights = torch.softmax(-0.5 * distance.square(), dim=1).repeat_interleave(3, dim=0)
    padded = F.pad(images, (0, 0, radius, radius), mode="replicate").flatten(0, 1)
    blurred = F.conv2d(padded[None], weights[:, None, :, None], groups=len(weights))
    return blurred.view(images.shape)


def _cosine_transform() -> Tensor:
    """The orthonormal two-dimensional DCT-II of 8 x 8 numbers, row by row, as a matrix (64,64)."""
    frequency, place = torch.arange(8.0)[:, None], torch.arange(8.0)
    matrix = 0.5 * torch.cos(math.pi / 8 * frequency * (place + 0.5))
    matrix[0] /= math.sqrt(2)
    return torch.kron(matrix, matrix)

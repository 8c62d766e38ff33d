"""BlazeFace (Bazarevsky et al. 2019), MediaPipe's short-range face detector: boxes and eyes of faces."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facegpt.perception.graph_network import GraphNetwork
from facegpt.perception.squares import Square, cut_square

SIZE = 128  # pixels that the network sees
ANCHORS = 896
SMALLEST_SCORE = 0.5
LARGEST_OVERLAP = 0.3  # intersection over union, above which two boxes are one face
CROP_SCALE = 1.5  # of the landmark network's square to the box
WHOLE = 2  # views of the whole picture: as it is, and at half the size
SMALLEST_TILE = 128  # pixels of the picture; a smaller tile would be mere magnification


@dataclass(frozen=True)
class Detection:
    """A face in pixels of the picture: center and size of its box, eyes (2,2), left in the image first."""

    x: float
    y: float
    width: float
    height: float
    eyes: np.ndarray
    score: float

    def square(self) -> Square:
        """What the landmark network is to see: a square around the box, turned so that the eyes are level."""
        return square_around(self.x, self.y, self.width, self.height, self.eyes)


def square_around(x: float, y: float, width: float, height: float, eyes: np.ndarray) -> Square:
    """MediaPipe's square around a box by its center, turned by the line between two eyes (2,2)."""
    across, down = eyes[1] - eyes[0]
    return Square(x, y, CROP_SCALE * max(width, height), math.atan2(down, across))


def detect_faces(network: GraphNetwork, image: Image.Image, tiles: bool = True) -> list[Detection]:
    """The faces of an RGB picture, best score first.

    The network sees faces of about a tenth of its view to nearly the whole of it. So it is shown the picture
    as it is, with a wide margin (for crops that the face fills), and in overlapping tiles of half the side.
    Without `tiles` it takes a quarter of the time or less and finds large faces only.
    """
    squares = views(*image.size)[: None if tiles else WHOLE]
    device = next(network.parameters()).device
    seen = torch.stack([cut_square(image, square, SIZE) for square in squares]).to(device)
    with torch.inference_mode():
        boxes, scores = network(seen * 2 - 1)
    found = [
        detection
        for square, box, score in zip(squares, boxes.cpu(), scores.cpu(), strict=True)
        for detection in _decode(square, box, score)
    ]
    return merge(found)


def views(width: int, height: int) -> list[Square]:
    """The squares of a picture that the detector is shown, the `WHOLE` that hold all of it first."""
    side = max(width, height)
    squares = [Square(width / 2, height / 2, factor * side) for factor in range(1, WHOLE + 1)]
    tile = side / 2
    if tile >= SMALLEST_TILE:
        squares += [Square(x, y, tile) for y in _centers(height, tile) for x in _centers(width, tile)]
    return squares


def _centers(length: float, tile: float) -> list[float]:
    """Centers of tiles that cover a length, each overlapping the next by half or more."""
    if length <= tile:
        return [length / 2]
    count = math.ceil((length - tile) / (tile / 2)) + 1
    return [float(center) for center in np.linspace(tile / 2, length - tile / 2, count)]


def anchors() -> Tensor:
    """Centers (896,2) of the anchors in fractions of the view: 2 per cell of 16 x 16, then 6 of 8 x 8."""
    grids = []
    for cells, each in ((16, 2), (8, 6)):
        centers = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(centers, centers, indexing="ij")
        grids.append(torch.stack([x, y], dim=-1).reshape(-1, 2).repeat_interleave(each, dim=0))
    return torch.cat(grids)


def _decode(square: Square, boxes: Tensor, scores: Tensor) -> list[Detection]:
    """Detections of one view. boxes (896,16): center, size and six points, in pixels from the anchor."""
    probability = scores[:, 0].clamp(-100, 100).sigmoid()
    kept = (probability > SMALLEST_SCORE) & boxes.isfinite().all(dim=1)
    numbers = boxes[kept].reshape(-1, 8, 2) / SIZE
    points = square.to_picture((numbers + anchors()[kept][:, None]).numpy())  # the size is none of them
    sizes = numbers[:, 1].numpy() * square.side
    faces = []
    for point, (width, height), score in zip(points, sizes, probability[kept], strict=True):
        if width > 0 and height > 0:
            x, y = point[0]
            faces.append(Detection(x, y, width, height, point[2:4], float(score)))
    return faces


def merge(detections: list[Detection]) -> list[Detection]:
    """One detection per face, best first: those that overlap the best are averaged, weighted by score.

    MediaPipe's weighted non-maximum suppression.
    """
    rows = np.array([[d.x, d.y, d.width, d.height, *d.eyes.flat, d.score] for d in detections])
    rows = rows.reshape(-1, 9)
    rows = rows[np.argsort(-rows[:, 8], kind="stable")]
    faces = []
    while len(rows):
        boxes = corners(rows)
        shared = shared_areas(boxes[0], boxes)
        same = shared > LARGEST_OVERLAP * (areas(boxes[0]) + areas(boxes) - shared)
        same[0] = True
        x, y, width, height, *eyes = np.average(rows[same, :8], axis=0, weights=rows[same, 8])
        faces.append(Detection(x, y, width, height, np.array(eyes).reshape(2, 2), float(rows[0, 8])))
        rows = rows[~same]
    return faces


def corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes (N,4+) as center x, y, width, height -> (N,4) left, top, right, bottom."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2], axis=1)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (...,) of boxes (...,4) as left, top, right, bottom."""
    product: np.ndarray = np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
    return product


def shared_areas(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas (...,) of what boxes (...,4) have in common, each as left, top, right, bottom."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    product: np.ndarray = np.prod(np.clip(high - low, 0, None), axis=-1)
    return product

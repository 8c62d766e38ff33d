"""MediaPipe's face landmarker in torch: a photograph -> its faces, each with 478 points and 68 landmarks.

The networks are those of `face_landmarker.task` (Apache-2.0; BlazeFace, Bazarevsky et al. 2019; Face Mesh,
Kartynnik et al. 2019, Grishchenko et al. 2020), read from the file as it is.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facegpt.errors import CheckpointError
from facegpt.parts import part_path
from facegpt.perception.face_detector import ANCHORS, areas, detect_faces, shared_areas, square_around
from facegpt.perception.face_points import BLENDSHAPE_POINTS, BLENDSHAPES, COUNT, EYE_CORNERS, to_landmarks
from facegpt.perception.graph_network import Graph, GraphNetwork, trace
from facegpt.perception.squares import Square, cut_square
from facegpt.perception.tflite_file import LARGEST_FILE
from facegpt.perception.tflite_network import read_network

SIZE = 256  # pixels that the landmark network sees
SMALLEST_SCORE = 0.5
SAME_FACE = 0.5  # share of a face's box within that of a larger one, above which they are one
MOST_FACES = 100  # of a picture
AT_ONCE = 8  # faces per call of the landmark network
# File in the archive -> shape of its input and of the outputs that are used, without batch.
_NETWORKS: dict[str, tuple[tuple[int, ...], list[tuple[int, ...]]]] = {
    "face_detector.tflite": ((3, 128, 128), [(ANCHORS, 16), (ANCHORS, 1)]),
    "face_landmarks_detector.tflite": ((3, SIZE, SIZE), [(3 * COUNT, 1, 1), (1, 1, 1)]),
    "face_blendshapes.tflite": ((len(BLENDSHAPE_POINTS), 2), [(len(BLENDSHAPES),)]),
}

# What zipfile and zlib raise for archives that are broken, encrypted or compressed in a way of their own.
_BROKEN = (OSError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclass
class FoundFace:
    """One face in pixels of the picture, x right, y down, centres at half integers.

    points (478,3): MediaPipe's face mesh with irises; z in pixels too, smaller is nearer to the camera.
    landmarks (68,2): iBUG order. score in [0,1]: how sure the network is that this is a face.
    box: left, top, right, bottom of the points.
    """

    points: Tensor
    landmarks: Tensor
    score: float
    box: tuple[float, float, float, float]


def read_task(path: str | Path) -> dict[str, tuple[Graph, dict[str, Tensor]]]:
    """Graph and weights of the three networks of a `face_landmarker.task` file, by their names in it.

    Raises CheckpointError, naming the file, when it is missing, broken, hostile or of another design.
    """
    networks = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name, (given, made) in _NETWORKS.items():
                if (size := archive.getinfo(name).file_size) > LARGEST_FILE:
                    raise CheckpointError(f"{path}: {name} has {size} bytes, {LARGEST_FILE} is the limit")
                with archive.open(name) as file:
                    graph, weights = read_network(file.read(LARGEST_FILE), f"{path}: {name}")
                shapes = trace(graph)
                if tuple(graph.shape) != given or [shapes[o][1:] for o in graph.outputs[: len(made)]] != made:
                    raise CheckpointError(f"{path}: {name} is a network of another design; fetch it again")
                networks[name] = graph, weights
    except _BROKEN as error:
        raise CheckpointError(f"{path}: cannot be read as face_landmarker.task ({error})") from error
    return networks


class FaceLandmarker:
    """Finds the faces of photographs. Made by `open`; the networks are frozen.

    detector, landmarks, mixer: the three networks, for those who want their numbers.
    """

    def __init__(self, detector: GraphNetwork, landmarks: GraphNetwork, mixer: GraphNetwork):
        self.detector, self.landmarks, self.mixer = detector, landmarks, mixer

    @staticmethod
    def open(path: str | Path | None = None, device: torch.device | str = "cpu") -> FaceLandmarker:
        """The landmarker of a `face_landmarker.task` file; of the fetched one when there is no path.

        Raises MissingPartError when it was not fetched yet, CheckpointError where `read_task` does.
        """
        networks = read_task(part_path("face_landmarker") if path is None else path)
        return FaceLandmarker(*(GraphNetwork(*pair).to(device) for pair in networks.values()))

    def find(self, image: Image.Image, tiles: bool = True) -> list[FoundFace]:
        """The faces of a picture, largest first, at most `MOST_FACES`; an empty list when there is none.

        Each is located twice, the second time in a square around the points of the first. tiles: see
        `detect_faces`.
        """
        image = image.convert("RGB")
        squares = [found.square() for found in detect_faces(self.detector, image, tiles)]
        points, scores = self._locate(image, squares[:MOST_FACES])
        squares = [_square_of(mesh) for mesh in points[scores > SMALLEST_SCORE]]
        points, scores = self._locate(image, squares)
        return _distinct(points, scores)

    def _locate(self, image: Image.Image, squares: list[Square]) -> tuple[np.ndarray, np.ndarray]:
        """Points (N,478,3) in pixels of the picture and scores (N,) of the faces in N squares."""
        points, scores = [np.zeros((0, COUNT, 3))], [np.zeros(0)]
        device = next(self.landmarks.parameters()).device
        for start in range(0, len(squares), AT_ONCE):
            some = squares[start : start + AT_ONCE]
            with torch.inference_mode():
                mesh, score = self.locate(torch.stack([cut_square(image, s, SIZE) for s in some]).to(device))
            for square, one in zip(some, mesh.double().cpu().numpy() / SIZE, strict=True):
                xy = square.to_picture(one[:, :2])
                points.append(np.concatenate([xy, one[:, 2:] * square.side], axis=1)[None])
            scores.append(score.double().cpu().numpy())
        return np.concatenate(points), np.concatenate(scores)

    def locate(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Points (B,478,3) in pixels of level square crops (B,3,256,256) in [0,1], and scores (B,).

        Differentiable in the crops. The face should fill two thirds of its crop.
        """
        mesh, logit, *_ = self.landmarks(crops)
        return mesh.reshape(-1, COUNT, 3), logit.flatten().sigmoid()

    def blendshapes(self, points: Tensor) -> Tensor:
        """The 52 of `face_points.BLENDSHAPES` (B,52) in [0,1] of points (B,478,2 or 3), differentiable."""
        return self.mixer(points[:, list(BLENDSHAPE_POINTS), :2])[0]


def _square_of(points: np.ndarray) -> Square:
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    (x, y), (width, height) = (low + high) / 2, high - low
    return square_around(x, y, width, height, points[list(EYE_CORNERS), :2])


def _distinct(points: np.ndarray, scores: np.ndarray) -> list[FoundFace]:
    """The faces that are sure, largest first; what lies mostly within a larger face is none of its own."""
    kept = (scores > SMALLEST_SCORE) & np.isfinite(points).all(axis=(1, 2))
    points, scores = points[kept], scores[kept]
    boxes = np.concatenate([points[..., :2].min(axis=1), points[..., :2].max(axis=1)], axis=1)
    faces: list[FoundFace] = []
    taken = np.zeros((0, 4))
    for k in np.argsort(-areas(boxes), kind="stable"):
        if (shared_areas(boxes[k], taken) > SAME_FACE * areas(boxes[k])).any():
            continue
        taken = np.concatenate([taken, boxes[k : k + 1]])
        mesh = torch.from_numpy(points[k]).float()
        left, top, right, bottom = boxes[k].tolist()
        landmarks = to_landmarks(mesh[None])[0]
        faces.append(FoundFace(mesh, landmarks, float(scores[k]), (left, top, right, bottom)))
    return faces

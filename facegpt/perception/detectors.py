"""Detectors of faces: MediaPipe's, and for those who have them face-alignment's and insightface's.

A detector is a function: upright RGB picture -> its faces, an empty list when there is none. MediaPipe's is a
fetched part. The two packages fetch their weights when a detector is opened; those of insightface are for
non-commercial research only. What is tested of these two is the way from their networks' outputs to our
pixels, with networks made by the tests: no weights of theirs have been run by us.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facegpt.errors import MissingPartError
from facegpt.perception.face_landmarker import FaceLandmarker


@dataclass
class FoundFace:
    """A face in pixels of the picture, x right, y down, centres at half integers.

    landmarks (68,2): iBUG order. valid (68,) bool: those that were found, None for all. confidence in [0,1]:
    the detector's, of the face or its box; 1 for landmarks that somebody gave. blendshapes (52,) in [0,1], in
    the order of `facegpt.perception.face_points.BLENDSHAPES`, None where nothing tells them.
    """

    landmarks: Tensor
    valid: Tensor | None = None
    confidence: float = 1.0
    blendshapes: Tensor | None = None


Detector = Callable[[Image.Image], Sequence[FoundFace]]


def mediapipe_detector(every: bool = True) -> Detector:
    """The detector of the fetched part face_landmarker, with blendshapes.

    every: all faces are wanted, not just the largest. Raises MissingPartError until it was fetched.
    """
    landmarker = FaceLandmarker.open()

    def detect(image: Image.Image) -> list[FoundFace]:
        # Beside a face that the whole picture shows, parts of it only show smaller ones.
        faces = (not every and landmarker.find(image, tiles=False)) or landmarker.find(image)
        if not faces:
            return []
        with torch.inference_mode():
            shapes = landmarker.blendshapes(torch.stack([face.points for face in faces]))
        return [
            FoundFace(face.landmarks, None, face.score, blendshapes)
            for face, blendshapes in zip(faces, shapes, strict=True)
        ]

    return detect


def face_alignment_detector(device: str = "cpu") -> Detector:
    """The detector of the package face-alignment: S3FD boxes, 68 points along the visible contour by 2DFAN-4.

    device: "cpu", "cuda" or "mps". Raises MissingPartError when the package is absent or its weights cannot
    be had.
    """
    try:
        from face_alignment import FaceAlignment, LandmarksType
    except ImportError as error:
        raise _absent("face-alignment", error) from error
    try:
        network = FaceAlignment(LandmarksType.TWO_D, device=device, compile=False)  # compiling takes minutes
    except Exception as error:  # downloads fail in many ways
        raise _without_weights("face-alignment", error) from error

    def detect(image: Image.Image) -> list[FoundFace]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a picture without a face is no reason to warn
            found = network.get_landmarks_from_image(np.asarray(image.convert("RGB")), return_bboxes=True)
        points, _, boxes = found  # three times None without a face
        if points is None:
            return []
        # Whole numbers come: those of the pixel that the point is in, the first being 0.
        return [_face(one, box[4]) for one, box in zip(points, boxes, strict=True)]

    return detect


def insightface_detector(name: str = "buffalo_l", device: str = "cpu") -> Detector:
    """The detector of the package insightface: SCRFD boxes, 68 points by its 3D landmark network.

    name: one of its model packs, or a folder with one. device: "cpu" or "cuda". Raises MissingPartError when
    the package is absent or its models cannot be had or have no 68 points.
    """
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise _absent("insightface", error) from error
    providers = ["CPUExecutionProvider"]
    if device != "cpu":
        providers.insert(0, "CUDAExecutionProvider")
    wanted = ["detection", "landmark_3d_68"]
    try:
        network = FaceAnalysis(name, allowed_modules=wanted, providers=providers)
        network.prepare(-1 if device == "cpu" else 0)
    except Exception as error:
        raise _without_weights("insightface", error) from error
    if "landmark_3d_68" not in network.models:
        raise MissingPartError(f"insightface's {name} has no network of 68 landmarks; give buffalo_l")

    def detect(image: Image.Image) -> list[FoundFace]:
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])  # it reads BGR
        # OpenCV's coordinates: the first pixel's center is (0, 0).
        return [_face(face.landmark_3d_68, face.det_score) for face in network.get(pixels)]

    return detect


def _face(points: np.ndarray, confidence: float) -> FoundFace:
    """A face of points (68,2 or 3) in numbers of pixels, the first being 0."""
    landmarks = torch.from_numpy(np.asarray(points, dtype=np.float32)[:, :2] + np.float32(0.5))
    return FoundFace(landmarks, None, float(np.clip(confidence, 0, 1)))


def _absent(package: str, error: ImportError) -> MissingPartError:
    said = " ".join(str(error).split())[:200]
    return MissingPartError(f"the package {package} cannot be imported ({said}); pip install {package}")


def _without_weights(package: str, error: Exception) -> MissingPartError:
    said = " ".join(str(error).split())[:200]
    return MissingPartError(
        f"{package} cannot load its networks ({type(error).__name__}: {said}); it downloads them when it is "
        "first used"
    )

"""A photograph of anybody -> the crop that training data has."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from facegpt.perception.align import crop_face
from facegpt.perception.face_landmarker import FaceLandmarker, FoundFace
from facegpt.sample import REFERENCE_SIZE


def crop_largest_face(
    image: Image.Image, landmarker: FaceLandmarker | None = None, size: int = REFERENCE_SIZE
) -> tuple[Image.Image, Tensor, list[FoundFace]] | None:
    """The square around the largest face of a photograph, as `align.crop_face` cuts it; None without a face.

    image: upright, as `images.read_image` gives it. landmarker: None opens the fetched one for this call.
    Returns the RGB crop of side `size`, the 68 landmarks (68,2) in its pixels, and all faces, the largest
    first, in pixels of `image`.
    Raises MissingPartError when the landmarker was not fetched, LandmarkError where `crop_face` does.
    """
    landmarker = landmarker or FaceLandmarker.open()
    faces = landmarker.find(image)
    if not faces:
        return None
    crop, landmarks, _ = crop_face(image, faces[0].landmarks, size)
    return crop, landmarks, faces

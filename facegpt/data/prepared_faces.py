"""One photograph -> the rows of a shard: its faces found, judged, cut out twice and encoded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import torch
from PIL import Image
from torch import Tensor

from facegpt.config import at_least
from facegpt.data.face_finders import Finder, FoundFace, open_finder
from facegpt.data.records import FEATURES
from facegpt.data.targets import to_tensor
from facegpt.errors import FaceGPTError, ImageError, LandmarkError
from facegpt.files import file_size, printable
from facegpt.perception.align import CROP_SCALE, SMALLEST_SIZE, align_face, check_crop, crop_face
from facegpt.perception.head_pose import head_angles
from facegpt.perception.images import LARGEST_FILE, decode_image, encode_image
from facegpt.perception.quality import picture_hash, sharpness
from facegpt.perception.recognizer import Recognizer, load_recognizer
from facegpt.perception.skin import skin_probability

THUMBNAIL = 96  # pixels a side of what is kept of a refused face, to look at
PREPARED = datasets.Features(
    {
        **{name: kind for name, kind in FEATURES.items() if name != "parameters"},
        "view": datasets.Image(),
        "landmark_valid": datasets.List(datasets.Value("bool")),
        "confidence": datasets.Value("float32"),
        "blendshapes": datasets.List(datasets.Value("float32")),
        "embedding": datasets.List(datasets.Value("float32")),
        "person": datasets.Value("string"),
        "square": datasets.List(datasets.Value("float32")),
    }
)


@dataclass
class Cuts:
    """What is cut out of a photograph around each face.

    size: side in pixels of the face crop that renderings are compared with. view: side of the wider picture
    for the vision tower, what the tower reads; 0 leaves it out, and it is shown the crop. wide: side of the
    view in crops. quality: of the JPEG images, 0 for PNG. A face of fewer pixels is kept at its own size, so
    that nothing is scaled up before it is used.
    """

    size: int = 224
    view: int = 336
    wide: float = 2.0
    quality: int = 95

    def __post_init__(self) -> None:
        at_least(SMALLEST_SIZE, self, "size")
        at_least(0, self, "view", "quality")
        if not (1 <= self.wide <= 2.5 and self.quality <= 100 and max(self.size, self.view) <= 4096):
            raise ValueError("cuts.wide must be 1 to 2.5, quality 0 to 100, size and view at most 4096")


@dataclass
class Filters:
    """What a face must have to be taken.

    smallest: mean of width and height of its landmarks in pixels of the photograph. sharpness: least of the
    crop, see `facegpt.perception.quality`. confidence: least of the detector. yaw, pitch, roll: most degrees
    that the head may be turned to either side. inside: least share of the landmarks that lie on the
    photograph. duplicates: two faces that differ in at most so many of 256 bits are one, and the first is
    taken; -1 keeps all.
    """

    smallest: float = 48.0
    sharpness: float = 4.0
    confidence: float = 0.5
    yaw: float = 75.0
    pitch: float = 45.0
    roll: float = 60.0
    inside: float = 0.95
    duplicates: int = 24

    def __post_init__(self) -> None:
        at_least(SMALLEST_SIZE, self, "smallest")


@dataclass
class PreparedFace:
    """A face that was found. Refused ones have a kind and a reason, the others a row of `PREPARED`.

    measures: size, confidence, inside, pitch, yaw, roll, sharpness, as far as they were taken. hash: see
    `picture_hash`. thumbnail: a small JPEG of a refused face.
    """

    measures: dict[str, float] = field(default_factory=dict)
    kind: str = ""
    reason: str = ""
    row: dict[str, Any] | None = None
    hash: bytes = b""
    thumbnail: bytes = b""


@dataclass
class PreparedPhotograph:
    """The faces of a photograph; or none, and why. digest: SHA-256 of the file, "" when it was not read."""

    name: str
    person: str | None = None
    digest: str = ""
    faces: list[PreparedFace] = field(default_factory=list)
    kind: str = ""
    reason: str = ""


# A photograph's name, where it lies or its bytes (or why there are none), and who it shows.
Job = tuple[str, Path | bytes | ImageError, str | None]


@dataclass
class Preparation:
    """Makes rows of photographs; every process has its own, made by `open`."""

    finder: Finder
    recognizer: Recognizer | None
    faces: Literal["largest", "all"]
    cuts: Cuts
    filters: Filters

    @staticmethod
    def open(
        detector: str, recognizer: str | None, faces: Literal["largest", "all"], cuts: Cuts, filters: Filters
    ) -> Preparation:
        """Everything loaded; raises what `open_finder` and `load_recognizer` do."""
        network = None if recognizer is None else load_recognizer(recognizer)
        return Preparation(open_finder(detector, faces == "all"), network, faces, cuts, filters)

    def __call__(self, job: Job) -> PreparedPhotograph:
        """What a photograph gives; its faults are reasons and never exceptions."""
        name, source, person = job
        done = PreparedPhotograph(name, person)
        try:
            if isinstance(source, ImageError):
                raise source
            content = source if isinstance(source, bytes) else _read(source)
            done.digest = hashlib.sha256(content).hexdigest()
            image = decode_image(content, name, upright=True)
            path = source if isinstance(source, Path) else None
            found = sorted(self.finder(image, name, path), key=_extent, reverse=True)
            wanted = found[:1] if self.faces == "largest" else found
            done.faces = [self._face(image, face, name) for face in wanted]
            if not found:
                done.kind, done.reason = "no face", f"{name}: no face was found"
        except LandmarkError as error:
            done.kind, done.reason = "landmarks", str(error)
        except ImageError as error:
            done.kind, done.reason = "unreadable", str(error)
        except (FaceGPTError, MemoryError) as error:
            done.kind, done.reason = "failed", f"{name}: {error or 'there is not enough memory'}"
        except Exception as error:  # one of 100,000 must not end the work; it is logged as what it is
            done.kind, done.reason = "failed", f"{name}: {type(error).__name__}: {error}"
        return done

    def _face(self, image: Image.Image, found: FoundFace, name: str) -> PreparedFace:
        face = PreparedFace()
        given = found.landmarks if found.valid is None else found.landmarks[found.valid]
        try:
            cx, cy, side = check_crop(image.size, found.landmarks)
            pitch, yaw, roll = head_angles(found.landmarks, name)
        except LandmarkError as error:
            face.kind, face.reason = "landmarks", f"{name}: {error}"
            return face
        corner = given.new_tensor(image.size)
        face.measures = {
            "size": _extent(found),
            "confidence": found.confidence,
            "inside": float(((given >= 0) & (given <= corner)).all(dim=1).float().mean()),
            "pitch": pitch,
            "yaw": yaw,
            "roll": roll,
        }
        # Of a face that is much larger than its crop, blocks of pixels are enough, and far quicker to cut.
        block = max(1, side // (4 * max(self.cuts.size, int(self.cuts.view / self.cuts.wide))))
        image, landmarks = image.reduce(block), found.landmarks / block
        pixels = max(SMALLEST_SIZE, min(self.cuts.size, side))
        crop, points, _ = crop_face(image, landmarks, pixels)
        face.measures["sharpness"] = sharpness(crop)
        face.kind, face.reason = refusal(face.measures, self.filters, name)
        if face.kind:
            crop.thumbnail((THUMBNAIL, THUMBNAIL))
            face.thumbnail = encode_image(crop, 80)
            return face
        view = None
        if self.cuts.view:
            wide = max(SMALLEST_SIZE, min(self.cuts.view, int(side * self.cuts.wide)))
            view, _, _ = crop_face(image, landmarks, wide, CROP_SCALE * self.cuts.wide)
        face.hash = picture_hash(crop)
        face.row = self._row(found, crop, points, view) | {"square": [cx, cy, side]}
        return face

    def _row(
        self, found: FoundFace, crop: Image.Image, points: Tensor, view: Image.Image | None
    ) -> dict[str, Any]:
        pixels = to_tensor(crop)[None]
        with torch.inference_mode():
            skin = (255 * skin_probability(pixels)[0]).round().byte().numpy()
            network = self.recognizer
            features = None if network is None else network(align_face(pixels, points[None]))[0]
        valid, shapes, quality = found.valid, found.blendshapes, self.cuts.quality
        return {
            "image": _cell(encode_image(crop, quality)),
            "landmarks": points.flatten().tolist(),
            "skin_mask": _cell(encode_image(Image.fromarray(skin), 0)),
            "view": None if view is None else _cell(encode_image(view, quality)),
            "landmark_valid": None if valid is None or bool(valid.all()) else valid.tolist(),
            "confidence": found.confidence,
            "blendshapes": None if shapes is None else shapes.tolist(),
            "embedding": None if features is None else features.tolist(),
        }


def refusal(measures: dict[str, float], filters: Filters, name: str) -> tuple[str, str]:
    """Kind and sentence of the first filter that a face does not pass, or ("", "")."""
    for measure, kind, least in (
        ("confidence", "unsure", filters.confidence),
        ("size", "small", filters.smallest),
        ("inside", "cut off", filters.inside),
        ("sharpness", "blurred", filters.sharpness),
    ):
        if not measures[measure] >= least:
            return kind, f"{name}: {measure} {measures[measure]:.3g} is below {least:g}"
    for angle in ("yaw", "pitch", "roll"):
        if not abs(measures[angle]) <= (most := getattr(filters, angle)):
            return "turned", f"{name}: {angle} {measures[angle]:.0f} is beyond {most:g} degrees"
    return "", ""


def _extent(face: FoundFace) -> float:
    """Mean of width and height of the landmarks in pixels; 0 when they are no numbers."""
    extent = float((face.landmarks.amax(dim=0) - face.landmarks.amin(dim=0)).mean())
    return extent if extent > 0 else 0.0


def _read(path: Path) -> bytes:
    size = file_size(path)
    if size is None or size > LARGEST_FILE:
        fault = "no such image file" if size is None else f"{size} bytes are too many for an image"
        raise ImageError(f"{printable(path)}: {fault}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{printable(path)}: cannot be read ({error.strerror})") from None


def _cell(content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": None}

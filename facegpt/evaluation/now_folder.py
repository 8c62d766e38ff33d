"""The folders of the NoW benchmark (Sanyal et al. 2019): its images, scans and landmarks, and predictions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facegpt.errors import LandmarkError, SampleError
from facegpt.export.mesh_reading import SUFFIXES, read_mesh
from facegpt.files import atomic_path, file_size

LARGEST_TEXT = 1 << 24  # bytes of the list of images; it has 2,054 lines
LARGEST_LANDMARKS = 1 << 16
LANDMARKS = (
    36,
    39,
    42,
    45,
    33,
    48,
    54,
)  # iBUG: eyes' corners, below the nose, mouth's corners
POINT = re.compile(r"<point\s[^>]*>")


@dataclass(frozen=True)
class NowImage:
    """One photograph of the benchmark: SUBJECT/CHALLENGE/NAME."""

    subject: str
    challenge: str
    name: str

    def path(self, folder: Path, suffix: str) -> Path:
        """Where a file about it lies in a folder of photographs or predictions."""
        return folder / self.subject / self.challenge / f"{self.name}{suffix}"


@dataclass
class NowScan:
    """The neutral scan of a subject in mm: the points of its face (N,3), seven landmarks (7,3)."""

    points: np.ndarray
    landmarks: np.ndarray


@dataclass
class NowPrediction:
    """A predicted neutral head in any unit: vertices (V,3), triangles (F,3), seven landmarks (7,3)."""

    vertices: np.ndarray
    triangles: np.ndarray
    landmarks: np.ndarray


def read_images(path: Path) -> list[NowImage]:
    """The photographs of a list such as `imagepathsvalidation.txt`; the last three parts of a line count.

    Raises SampleError, naming file and line, for a missing file or a line of another form.
    """
    size = file_size(path)
    if size is None or size > LARGEST_TEXT:
        raise SampleError(f"{path} is no list of images; give the benchmark's imagepathsvalidation.txt")
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        parts = line.strip().split("/")[-3:]
        if not line.strip():
            continue
        if len(parts) < 3 or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise SampleError(f"{path}:{number} is not of the form SUBJECT/CHALLENGE/IMAGE.jpg")
        images.append(NowImage(parts[0], parts[1], Path(parts[2]).stem))
    if not images:
        raise SampleError(f"{path} names no image")
    return images


def read_scan(data: Path, subject: str) -> NowScan:
    """The scan scans/SUBJECT/*.obj, cut to its face by the landmarks scans_lmks_onlypp/SUBJECT/*.pp.

    The face is what lies within 1.4 times the mean of two distances (outer eye corners, nose bridge to below
    the nose) of a point 0.3 of the way up from below the nose to the bridge (between the inner eye corners).
    Raises SampleError or LandmarkError, naming the file, for what is missing or broken.
    """
    landmarks = read_picked_points(_only(data / "scans_lmks_onlypp" / subject, "*.pp"))
    vertices, _ = read_mesh(_only(data / "scans" / subject, "*.obj"))
    below_nose, bridge = landmarks[4], (landmarks[1] + landmarks[2]) / 2
    center = below_nose + 0.3 * (bridge - below_nose)
    eyes, nose = np.linalg.norm(landmarks[0] - landmarks[3]), np.linalg.norm(bridge - below_nose)
    points = vertices[np.linalg.norm(vertices - center, axis=1) <= 1.4 * (eyes + nose) / 2]
    if not len(points):
        raise SampleError(f"the scan of {subject} in {data} has no point near its landmarks")
    return NowScan(points, landmarks)


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise SampleError(f"{folder} has no {pattern}; give the folder of the benchmark, whole")
    return found[0]


def read_picked_points(path: Path) -> np.ndarray:
    """The seven points (7,3) of a MeshLab .pp file; LandmarkError for another count or broken numbers."""
    size = file_size(path)
    text = "" if size is None or size > LARGEST_LANDMARKS else path.read_text(errors="replace")
    points = []
    for tag in POINT.findall(text):
        found = dict(re.findall(r'\b([xyz])="([^"]*)"', tag))
        points.append([found.get(axis, "nan") for axis in "xyz"])
    return _seven(points, path)


def read_prediction(folder: Path, image: NowImage) -> NowPrediction | None:
    """The mesh .obj or .ply of an image and its landmarks .npy or .txt; None where either is missing.

    Raises SampleError or LandmarkError, naming the file, for one that is broken.
    """
    mesh = [path for suffix in SUFFIXES if (path := image.path(folder, suffix)).is_file()]
    points = [path for suffix in (".npy", ".txt") if (path := image.path(folder, suffix)).is_file()]
    if not mesh or not points:
        return None
    if points[0].stat().st_size > LARGEST_LANDMARKS:
        raise LandmarkError(f"{points[0]} is too large for seven landmarks")
    try:
        if points[0].suffix == ".npy":
            landmarks = np.load(points[0], allow_pickle=False).tolist()
        else:
            landmarks = [
                line.replace(",", " ").split() for line in points[0].read_text().splitlines() if line
            ]
    except (ValueError, EOFError, OSError) as error:
        raise LandmarkError(f"{points[0]} cannot be read as seven landmarks ({error})") from None
    return NowPrediction(*read_mesh(mesh[0]), _seven(landmarks, points[0]))


def write_prediction(folder: Path, image: NowImage, prediction: NowPrediction) -> None:
    """Write NAME.obj without colors and NAME.npy, as the benchmark's own tools want them."""
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in prediction.vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (prediction.triangles + 1).tolist()]
    with atomic_path(image.path(folder, ".obj")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with atomic_path(image.path(folder, ".npy")) as temporary:
        np.save(temporary, np.asarray(prediction.landmarks, dtype=np.float32), allow_pickle=False)


def _seven(points: object, path: Path) -> np.ndarray:
    try:
        found = np.array(points, dtype=np.float64)
        if found.shape == (7, 3) and np.isfinite(found).all():
            return found
    except (ValueError, TypeError):
        pass
    raise LandmarkError(f"{path} does not hold the seven landmarks of the benchmark, 7 x 3 finite numbers")

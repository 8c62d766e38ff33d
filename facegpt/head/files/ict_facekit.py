"""Reading ICT-FaceKit (Li et al. 2020, MIT licence, github.com/ICT-VGL/ICT-FaceKit) as a head of our format.

The toolkit is a folder of OBJ files of one topology in centimetres: a neutral mesh, 100 identity modes and 53
expression shapes, each the neutral plus a displacement, and vertex_indices.json with the names and the 68
landmarks. It has no joints, skinning weights or albedo: `ict_rig` measures the joints of jaw and eyes on the
meshes and authors the rest, `ict_texture` paints one plain texture.

Shape legend: V vertices, F triangles, P polygons, T texture vertices.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facegpt.errors import HeadFileError
from facegpt.head.files.contour import cast_contour, vertex_points
from facegpt.head.files.format import CONTOUR, LANDMARKS, HeadData
from facegpt.head.files.ict_rig import Rig, measure_rig, undo_jaw
from facegpt.head.files.ict_texture import paint, place_uv, vertex_uv

METERS = 0.01  # the files are in centimetres
MAX_BYTES = 64 << 20  # the files have 2.6 MB
NEUTRAL, INDICES = "generic_neutral_mesh.obj", "vertex_indices.json"
JAW_OPEN, MOUTH_CLOSE = "jawOpen", "mouthClose"  # the second closes the lips of the first

# Polygons [start, stop) of the parts that make a head, from the tables of the toolkit's README. Left out are
# the irises behind the cornea, tear fluid, occlusion sheets and lashes: they need transparency.
PARTS: dict[str, tuple[int, int]] = {
    "face": (0, 9230),
    "head": (9230, 11144),
    "mouth_socket": (11144, 13226),
    "left_eye_socket": (13226, 13630),
    "right_eye_socket": (13630, 14034),
    "gums": (14034, 17006),
    "upper_teeth": (17006, 19250),
    "lower_teeth": (19250, 21496),
    "left_eyeball": (21496, 22296),
    "right_eyeball": (23094, 23894),
}
OUTLINES = {"lips": range(48, 60), "right_brow": range(17, 22), "left_brow": range(22, 27)}  # landmarks
NARROW_FACE = 6560  # the first polygons of "face": without ears, temples and throat


@dataclass
class _Topology:
    """The wanted triangles of the neutral mesh.

    kept: the toolkit's vertex numbers, sorted (V,).  triangles, uv_triangles (F,3) into kept and uv (T,2).
    spans: part -> its rows of triangles; "narrow_face" too.  parts: part -> its vertices.
    """

    kept: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    uv_triangles: np.ndarray
    spans: dict[str, slice]
    parts: dict[str, np.ndarray]


def load_ict_facekit(folder: str | Path) -> HeadData:
    """Read the toolkit's folder, its root or the FaceXModel in it, as a head in metres.

    Identity modes have unit variance as they are in the files. Expression components are 0 to 1 with the
    toolkit's names. The jaw's rotation is taken out of jawOpen: the jaw joint turned about x by
    metadata["jaw_open_degrees"] together with jawOpen = 1 gives the toolkit's shape.
    Raises HeadFileError when a file is missing, broken or of another topology.
    """
    root = Path(folder)
    model = root / "FaceXModel" if (root / "FaceXModel").is_dir() else root
    if not (model / NEUTRAL).is_file():
        raise HeadFileError(f"{model} has no {NEUTRAL}; give the folder of ICT-FaceKit or its FaceXModel")
    neutral = read_vertices(model / NEUTRAL)
    topology = _read_topology(model / NEUTRAL, len(neutral))
    names, landmarks = _read_indices(model / INDICES, topology)
    identities = sorted(model.glob("identity[0-9][0-9][0-9].obj"))
    if not identities:
        raise HeadFileError(f"{model} has no identity000.obj; give the folder of ICT-FaceKit, whole")

    def basis(paths: list[Path]) -> np.ndarray:  # (V, 3, len(paths)), metres
        columns = [read_vertices(path, len(neutral))[topology.kept] for path in paths]
        return (np.stack(columns, 2) - neutral[topology.kept, :, None]) * METERS

    mean, triangles, parts = neutral[topology.kept] * METERS, topology.triangles, topology.parts
    expression = basis([model / f"{name}.obj" for name in names])
    opening = names.index(JAW_OPEN)
    rig = measure_rig(mean, parts, expression[..., opening], np.linalg.norm(expression, axis=1).max(1))
    opened = mean + expression[..., opening]
    expression[..., opening] = undo_jaw(rig, opened) - mean
    if MOUTH_CLOSE in names:
        closing = names.index(MOUTH_CLOSE)
        closed = undo_jaw(rig, opened + expression[..., closing]) - mean
        expression[..., closing] = closed - expression[..., opening]

    frontal = vertex_points(triangles, landmarks)
    contour = cast_contour(mean, triangles[topology.spans["narrow_face"]], landmarks[:CONTOUR], rig.joints[0])
    uv, uv_triangles = topology.uv, topology.uv_triangles
    corners = {part: (triangles[span], uv_triangles[span]) for part, span in topology.spans.items()}
    outline = {name: vertex_uv(uv, *corners["face"], landmarks[ids]) for name, ids in OUTLINES.items()}
    return HeadData(
        v_template=mean,
        triangles=triangles,
        shape_basis=basis(identities),
        expression_basis=expression,
        joint_regressor=rig.regressor,
        parents=rig.parents,
        skinning_weights=rig.weights,
        uv=uv,
        uv_triangles=uv_triangles,
        texture_mean=paint(mean, uv, corners, outline),
        landmark_triangles=frontal[0],
        landmark_barycentric=frontal[1],
        contour_triangles=contour[0],
        contour_barycentric=contour[1],
        regions=_regions(topology, rig),
        shape_names=[path.stem for path in identities],
        expression_names=names,
        metadata=_metadata(root, rig),
    )


def read_vertices(path: str | Path, count: int | None = None) -> np.ndarray:
    """The vertices (V,3) of an OBJ file, float64, in the file's unit; nothing else of it is looked at.

    Raises HeadFileError when the file is missing, broken or has another number of vertices than `count`.
    """
    try:
        rows = [line[2:] for line in _read(Path(path)).split(b"\n") if line.startswith(b"v ")]
        if not rows:
            raise ValueError("it has 0 vertices; is it a Git LFS pointer?")
        vertices = np.array(b" ".join(rows).split(), dtype=np.float64).reshape(len(rows), -1)[:, :3]
    except ValueError as error:
        raise HeadFileError(f"{path} is not an OBJ file of ICT-FaceKit ({error})") from error
    if vertices.shape != (len(vertices) if count is None else count, 3) or not np.isfinite(vertices).all():
        wanted = "finite vertices" if count is None else f"{count} finite vertices as the neutral mesh has"
        raise HeadFileError(f"{path} does not hold {wanted}; it has {len(vertices)}")
    return vertices


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise HeadFileError(f"the file {path} does not exist; give the folder of ICT-FaceKit, whole")
    if path.stat().st_size > MAX_BYTES:
        raise HeadFileError(f"{path} is larger than {MAX_BYTES} bytes, which no file of ICT-FaceKit is")
    return path.read_bytes()


def _read_topology(path: Path, vertices: int) -> _Topology:
    uv, polygons = [], []
    try:
        for line in _read(path).decode("latin1").splitlines():
            kind, *words = line.split() or [""]
            if kind == "vt":
                uv.append([float(words[0]), float(words[1])])
            elif kind == "f":
                polygons.append([[int(index) - 1 for index in word.split("/")[:2]] for word in words])
        corners = {name: _fans(polygons[start:stop]) for name, (start, stop) in PARTS.items()}
        count = max(stop for _, stop in PARTS.values())
        if len(polygons) < count:
            raise ValueError(f"{len(polygons)} polygons instead of {count} or more")
        every = np.concatenate(list(corners.values()))  # (F, 3, 2): vertex, texture vertex
        if every.min() < 0 or (every.max((0, 1)) >= (vertices, len(uv))).any():
            raise ValueError("a face points to a vertex that does not exist")
    except (ValueError, IndexError) as error:
        raise HeadFileError(f"{path} is not the neutral mesh of ICT-FaceKit ({error})") from error
    ends = np.cumsum([len(rows) for rows in corners.values()])
    spans = {name: slice(end - len(corners[name]), end) for name, end in zip(corners, ends, strict=True)}
    kept, triangles = np.unique(every[..., 0], return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    placed, uv_triangles = place_uv(np.array(uv), {n: rows[..., 1] for n, rows in corners.items()})
    spans["narrow_face"] = slice(0, len(_fans(polygons[:NARROW_FACE])))  # "face" comes first
    parts = {name: np.unique(triangles[span]) for name, span in spans.items()}
    return _Topology(kept, triangles, placed, uv_triangles, spans, parts)


def _fans(polygons: list[list[list[int]]]) -> np.ndarray:
    """Polygons as triangles around their first corners, (F,3,2)."""
    fans = [[p[0], p[k], p[k + 1]] for p in polygons for k in range(1, len(p) - 1)]
    return np.array(fans, dtype=np.int64).reshape(-1, 3, 2)


def _read_indices(path: Path, topology: _Topology) -> tuple[list[str], np.ndarray]:
    """Expression names, and the 68 landmarks as vertices of the head."""
    try:
        table = json.loads(_read(path))
        names, landmarks = list(table["expressions"]), np.array(table["idx_to_landmark_verts"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HeadFileError(f"{path} is not ICT-FaceKit's table of indices ({error!r})") from error
    if JAW_OPEN not in names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise HeadFileError(f"{path}: expressions must be plain names with {JAW_OPEN} among them")
    face = topology.kept[topology.parts["narrow_face"]]
    if landmarks.shape != (LANDMARKS,) or not np.isin(landmarks, face).all():
        raise HeadFileError(f"{path}: idx_to_landmark_verts must hold 68 vertices of the face")
    return names, np.searchsorted(topology.kept, landmarks)


def _regions(topology: _Topology, rig: Rig) -> dict[str, np.ndarray]:
    """Region masks (V,): "face" is the narrow face; where two parts meet, a vertex belongs to both."""
    members = {
        "face": ["narrow_face"],
        "left_eyeball": ["left_eyeball"],
        "right_eyeball": ["right_eyeball"],
        "eyes": ["left_eyeball", "right_eyeball"],
        "mouth_interior": ["mouth_socket", "gums", "upper_teeth", "lower_teeth"],
        "teeth": ["upper_teeth", "lower_teeth"],
    }
    regions = {}
    for name, parts in members.items():
        regions[name] = np.isin(
            np.arange(len(topology.kept)), np.concatenate([topology.parts[part] for part in parts])
        )
    # sockets begin at the rims of lips and lids, which are skin
    regions["mouth_interior"] &= ~regions["face"]
    regions["neck"] = rig.weights[:, 0] > 0.3
    return regions


def _metadata(root: Path, rig: Rig) -> dict[str, str]:
    license = "MIT, Copyright (c) 2020 USC Institute for Creative Technologies"
    for folder in (root, root.parent):
        if (folder / "LICENSE").is_file():  # its terms ask that it goes with every copy
            license = _read(folder / "LICENSE").decode("utf8", "replace")[:5000].strip()
            break
    return {
        "name": "ICT-FaceKit light",
        "source": "github.com/ICT-VGL/ICT-FaceKit, converted by `facegpt import-head`",
        "licence": license,
        "jaw_open_degrees": f"{np.degrees(rig.jaw_angle):.4f}",
        "authored": "root and neck joint, skinning weights, contour by yaw, texture",
    }

"""One face as a rigged .glb: expressions as morph targets, joints as a skin; for Blender, three.js, engines.

Shape legend: V vertices of the head, N of the file (texture seams repeat some), J joints, E expressions, M
morph targets, T key frames. Sections are those of the glTF 2.0 specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from facegpt.export.glb import add_surface, unit_normals
from facegpt.export.gltf import VERTICES, GlbWriter
from facegpt.head.lbs import rotation_matrices
from facegpt.head.mesh import Mesh
from facegpt.head.model import JAW, NECK, HeadModel
from facegpt.head.parameters import FaceParameters

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")
CORRECTIVE = "poseCorrective"
SMALLEST_MOVE = 1e-7  # metres: a displacement below this is stored as none
SMALLEST_TURN = 1e-3  # the same for the change of a unit normal
INFLUENCES = 4  # joints per vertex that every engine supports
FRAME_RATE, DURATION = 15, 6.0  # of the animation: frames per second, seconds
# The animation: (start, end) in seconds of what rises and falls smoothly in it.
BLINKS, SMILE, JAW_OPEN = ((0.5, 0.9), (4.9, 5.3)), (1.0, 2.8), (2.4, 3.8)
TURN_LEFT, TURN_RIGHT = (3.4, 4.8), (4.6, 6.0)
JAW_ANGLE, TURN_ANGLE = 0.25, 0.35  # radians


@dataclass
class FaceRig:
    """The head of one identity before expression and pose, and what moves it.

    surface: the neutral face with albedo. expressions (E,V,3): displacements at coefficient 1.
    corrective (V,3): the pose correctives of the face's own pose. joints (J,3): at rest.
    rotations (J,3,3): each relative to its parent. Metres.
    """

    surface: Mesh
    expressions: np.ndarray
    corrective: np.ndarray
    joints: np.ndarray
    rotations: np.ndarray


def export_rigged_head(
    head: HeadModel, parameters: FaceParameters, path: str | Path, animate: bool = True
) -> None:
    """Write one face as a rigged, morphable .glb: metres, y up, face towards +z.

    Identity and albedo are baked in. Every expression component is a morph target under its own name
    (`mesh.extras.targetNames`), the face's coefficients are the default weights. The joints root, neck, jaw,
    left_eye, right_eye are a skin, turned as the face's pose says. `animate` adds a clip of six seconds: a
    blink, a smile, the jaw opening and a turn of the neck, starting and ending at the face as it is; it knows
    components by their ARKit names, and only moves the joints of a head without them.

    As it opens, the file shows exactly what `head(parameters)` gives: pose correctives come as one more morph
    target, poseCorrective, whose weight 1 belongs to this pose. In another pose glTF's plain skinning lacks
    the difference in correctives, and the joints, placed for the face's own expression, do not follow another
    one. Vertices with more than four joints keep the four strongest.

    The file holds the head's expression components and weights: share it only as far as the head's licence
    goes, which is written into `asset.copyright`. Raises ValueError for a batch of other than one, for
    parameters that are not finite or of another head's sizes, and for another suffix than .glb.
    """
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise ValueError(
            f"cannot write a rigged head as {path.name}: only .glb holds morph targets and joints"
        )
    if len(parameters) != 1:
        raise ValueError(
            f"a rigged file holds one face, got a batch of {len(parameters)}: pass parameters[k]"
        )
    if not parameters.to_vector().isfinite().all():
        raise ValueError(f"{path.name} is not written: the face has parameters that are not finite")
    rig = face_rig(head, parameters)
    names, weights = list(head.expression_names), parameters.expression[0].tolist()
    glb = GlbWriter()
    metadata = head.data.metadata
    license_name = metadata.get("licence", "licence unknown")
    glb.json["asset"]["copyright"] = f"{metadata.get('name', 'head')}: {license_name}"
    primitive, source = add_surface(glb, rig.surface)
    moves = list(rig.expressions)
    if np.abs(rig.corrective).max() > SMALLEST_MOVE:
        moves.append(rig.corrective)
        names, weights = [*names, CORRECTIVE], [*weights, 1.0]
    primitive["attributes"] |= _influences(glb, head.data.skinning_weights.astype(np.float64)[source])
    mesh: dict[str, Any] = {"name": "head", "primitives": [primitive]}
    if moves:
        primitive["targets"] = [_target(glb, rig.surface, move, source) for move in moves]
        mesh |= {"weights": weights, "extras": {"targetNames": names}}
    inverse = np.tile(np.eye(4), (len(rig.joints), 1, 1))
    inverse[:, 3, :3] = -rig.joints  # column-major: the translation is the last row
    skin = {
        "inverseBindMatrices": glb.accessor(inverse.reshape(-1, 16).astype(np.float32)),
        "joints": [1 + joint for joint in range(len(rig.joints))],
        "skeleton": 1,
    }
    glb.json |= {
        "meshes": [mesh],
        "skins": [skin],
        # the skinned mesh stands beside the joints: skinning ignores the node above a mesh (section 3.7.3.3)
        "nodes": [
            {"name": "head", "mesh": 0, "skin": 0, "extras": {"head_id": head.id}},
            *_joint_nodes(head, rig),
        ],
        "scenes": [{"nodes": [0, 1]}],
        "scene": 0,
    }
    if animate:
        glb.json["animations"] = [_animation(glb, rig, names, np.array(weights))]
    glb.write(path)


@torch.no_grad()
def face_rig(head: HeadModel, parameters: FaceParameters) -> FaceRig:
    """Take one face apart into what a rig stores, in float64 from the arrays of the head file.

    Raises ValueError for parameters of another head's sizes.
    """
    surface = head.mesh(parameters)  # first, because it checks the parameters' sizes
    data = head.data
    face = parameters.to("cpu").to(torch.float64)
    shaped = data.v_template + data.shape_basis.astype(np.float64) @ face.shape[0].numpy()
    expressed = shaped + data.expression_basis.astype(np.float64) @ face.expression[0].numpy()
    joints = data.joint_regressor.astype(np.float64) @ expressed
    rotations = rotation_matrices(_axis_angles(face, len(joints))).numpy()
    corrective = np.zeros_like(shaped)
    if data.pose_basis is not None:
        corrective = data.pose_basis.astype(np.float64) @ (rotations[1:] - np.eye(3)).reshape(-1)
    cpu = {name: None if value is None else value.cpu() for name, value in vars(surface).items()}
    neutral = Mesh(**cpu | {"vertices": torch.tensor(shaped, dtype=torch.float32)[None]})  # type: ignore[arg-type]
    return FaceRig(neutral, np.moveaxis(data.expression_basis, 2, 0), corrective, joints, rotations)


def _axis_angles(face: FaceParameters, joints: int) -> torch.Tensor:
    """(J,3) in FLAME's joint order; joints beyond its five are at rest."""
    angles = torch.zeros(max(joints, len(JOINT_NAMES)), 3, dtype=torch.float64)
    angles[0], angles[JAW] = face.pose[0, :3], face.pose[0, 3:]
    if face.neck is not None:
        angles[NECK] = face.neck[0]
    if face.eyes is not None:
        angles[JAW + 1 : JAW + 3] = face.eyes[0].view(2, 3)
    return angles[:joints]


def _target(glb: GlbWriter, surface: Mesh, move: np.ndarray, source: np.ndarray) -> dict[str, int]:
    """A morph target: displacements (V,3) of the positions, and how the normals change with them."""
    moved = replace(surface, vertices=surface.vertices + torch.tensor(move, dtype=torch.float32))
    turn = unit_normals(moved) - unit_normals(surface)
    return {
        "POSITION": glb.displacement(move[source], SMALLEST_MOVE, bounds=True),
        "NORMAL": glb.displacement(turn[source], SMALLEST_TURN),
    }


def _influences(glb: GlbWriter, weights: np.ndarray) -> dict[str, int]:
    """JOINTS_0 and WEIGHTS_0 of skinning weights (N,J): the strongest joints of each vertex, summing to 1."""
    weights = np.pad(weights, ((0, 0), (0, max(0, INFLUENCES - weights.shape[1]))))
    order = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    strongest = np.take_along_axis(weights, order, 1).clip(0)
    shares = (strongest / strongest.sum(1, keepdims=True)).astype(np.float32)
    shares[:, 0] = 1 - shares[:, 1:].sum(1)  # the validator wants the sum to the last bit
    joints = np.where(shares > 0, order, 0).astype(np.uint8)
    return {"JOINTS_0": glb.accessor(joints, VERTICES), "WEIGHTS_0": glb.accessor(shares, VERTICES)}


def _joint_nodes(head: HeadModel, rig: FaceRig) -> list[dict[str, Any]]:
    """One node per joint, translated from its parent and turned as the face's pose says."""
    nodes: list[dict[str, Any]] = []
    for joint, parent in enumerate(head.parents):
        origin = rig.joints[parent] if joint else np.zeros(3)
        node: dict[str, Any] = {
            "name": JOINT_NAMES[joint] if joint < len(JOINT_NAMES) else f"joint_{joint}",
            "translation": (rig.joints[joint] - origin).tolist(),
            "rotation": Rotation.from_matrix(rig.rotations[joint]).as_quat().tolist(),
        }
        children = [1 + child for child, above in enumerate(head.parents) if above == joint]
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _animation(glb: GlbWriter, rig: FaceRig, names: list[str], weights: np.ndarray) -> dict[str, Any]:
    """A clip that shows the head alive, from the face as it is and back to it."""
    times = np.arange(round(FRAME_RATE * DURATION) + 1) / FRAME_RATE  # (T,)
    clock = glb.accessor(times.astype(np.float32), bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def add(node: int, path: str, values: np.ndarray) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append({"input": clock, "output": glb.accessor(values.astype(np.float32))})

    frames = np.tile(weights, (len(times), 1))  # (T, M)
    blink = np.maximum(*(_rise(times, *span) for span in BLINKS))
    for prefix, course in (("eyeBlink", blink), ("mouthSmile", _rise(times, *SMILE))):
        for index in (k for k, name in enumerate(names) if name.startswith(prefix)):
            # towards 1 from wherever the face has it
            frames[:, index] += course * max(0.0, 1 - weights[index])
    if (frames != frames[0]).any():
        add(0, "weights", frames.ravel())
    turn = _rise(times, *TURN_LEFT) - _rise(times, *TURN_RIGHT)
    opened = _rise(times, *JAW_OPEN)
    for joint, axis, angle in ((JAW, 0, JAW_ANGLE * opened), (NECK, 1, TURN_ANGLE * turn)):
        if joint < len(rig.joints):
            rest = Rotation.from_matrix(rig.rotations[joint])
            more = Rotation.from_rotvec(angle[:, None] * np.eye(3)[axis])
            add(1 + joint, "rotation", (more * rest).as_quat(canonical=True))
    return {"name": "alive", "samplers": samplers, "channels": channels}


def _rise(times: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 up to 1 in the middle of the span and back to 0, smoothly; 0 outside."""
    return np.sin(math.pi * np.clip((times - start) / (end - start), 0, 1)) ** 2

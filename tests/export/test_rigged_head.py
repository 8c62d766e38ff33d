"""The rigged GLB, played by an independent player and compared with the head model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from gltf_player import Player, rotation_matrix, to_quaternion
from small_head import small_head_data

from facegpt.export.rigged_head import CORRECTIVE, export_rigged_head
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters

JOINTS = ["root", "neck", "jaw", "left_eye", "right_eye"]  # FLAME's order
NAMED = ["eyeBlinkLeft", "mouthSmileRight", "open", "pout"]


def head_with(**changes: Any) -> HeadModel:
    return HeadModel(replace(small_head_data(), **changes))


def plain_head() -> HeadModel:
    """Without what glTF cannot hold: pose correctives, and joints that move with the expression."""
    data = small_head_data()
    regressor = data.joint_regressor.astype(np.float64)
    moved = np.einsum("jv,vce->jce", regressor, data.expression_basis)
    fixed = data.expression_basis - np.einsum("vj,jce->vce", np.linalg.pinv(regressor), moved)
    return head_with(pose_basis=None, expression_basis=fixed, expression_names=NAMED)


def some_face(head: HeadModel, seed: int = 0) -> FaceParameters:
    draw = torch.Generator().manual_seed(seed)
    mean = head.mean_parameters(neck=True, eyes=True)
    groups = {name: torch.randn(getattr(mean, name).shape, generator=draw) for name in mean.layout.sizes}
    turned = {name: 0.3 * groups[name] for name in ("pose", "neck", "eyes")}
    return mean.replace(**groups | turned)


def truth(head: HeadModel, face: FaceParameters) -> np.ndarray:
    vertices: np.ndarray = head.double()(face.to(torch.float64)).vertices[0].numpy()
    return vertices


def repeated(player: Player, count: int) -> list[int]:
    """The vertices behind the head's own that copy one of its first `count`."""
    base, head_count = player.attribute("POSITION"), len(small_head_data().v_template)
    return [k for k in range(head_count, len(base)) if (base[:count] == base[k]).all(1).any()]


def pose(player: Player, face: FaceParameters) -> None:
    """Give the player's joints the pose of `face`, and its targets the expression."""
    assert face.neck is not None and face.eyes is not None
    angles = [face.pose[0, :3], face.neck[0], face.pose[0, 3:], face.eyes[0, :3], face.eyes[0, 3:]]
    for name, angle in zip(JOINTS, angles, strict=True):
        player.rotations[player.number[name]] = to_quaternion(angle)
    player.weights[: face.expression.shape[1]] = face.expression[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_file_opens_as_the_face_that_was_said_with_pose_correctives(tmp_path: Path, seed: int) -> None:
    head = head_with()
    face = some_face(head, seed)
    export_rigged_head(head, face, tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    shown, count = player.show(), len(head.v_template)
    assert player.names == [*head.expression_names, CORRECTIVE]
    np.testing.assert_allclose(player.weights[:-1], face.expression[0], atol=1e-6)
    np.testing.assert_allclose(shown[:count], truth(head, face), atol=5e-7)
    player.weights[-1] = 0
    assert 1e-4 < np.abs(player.show()[:count] - truth(head, face)).max() < 0.01


def test_any_pose_and_expression_agrees_where_linear_blend_skinning_is_all(tmp_path: Path) -> None:
    head = plain_head()
    first = some_face(head)
    export_rigged_head(head, first, tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    for seed in (3, 4):
        other = some_face(head, seed).replace(shape=first.shape)
        pose(player, other)
        np.testing.assert_allclose(player.show()[: len(head.v_template)], truth(head, other), atol=5e-7)


def test_identity_is_baked_into_the_base_mesh_and_seams_repeat_vertices(tmp_path: Path) -> None:
    head = plain_head()
    face = some_face(head)
    export_rigged_head(head, face, tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    neutral = head.mean_parameters().replace(shape=face.shape)
    base, count = player.attribute("POSITION"), len(head.v_template)
    np.testing.assert_allclose(base[:count], truth(head, neutral), atol=1e-7)
    assert len(base) > count
    triangles = player.accessor(player.primitive["indices"]).reshape(-1, 3)
    np.testing.assert_array_equal(base[triangles], base[:count][head.data.triangles])
    shown = player.show()
    np.testing.assert_allclose(shown[triangles], shown[:count][head.data.triangles], atol=1e-12)


def test_the_joints_are_a_tree_of_flames_names_with_their_rest_in_the_bind_matrices(tmp_path: Path) -> None:
    head = plain_head()
    face = some_face(head)
    export_rigged_head(head, face, tmp_path / "face.glb", animate=False)
    player = Player(tmp_path / "face.glb")
    assert "animations" not in player.json
    nodes, skin = player.json["nodes"], player.json["skins"][0]
    assert [nodes[joint]["name"] for joint in skin["joints"]] == JOINTS
    above = {child: k for k, node in enumerate(nodes) for child in node.get("children", [])}
    assert [above.get(joint, -1) for joint in skin["joints"]] == [-1, *(1 + p for p in head.parents[1:])]
    rest = -player.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4)[:, 3, :3]
    neutral = head.mean_parameters().replace(shape=face.shape)
    np.testing.assert_allclose(rest, head(neutral.to(torch.float64)).joints[0], atol=1e-7)


def test_normals_follow_an_expression(tmp_path: Path) -> None:
    head = plain_head()
    export_rigged_head(head, head.mean_parameters(), tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    player.weights[1] = 1.0
    corners = player.show()[: len(head.v_template)][head.data.triangles]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    wanted = np.zeros((len(head.v_template), 3))
    for corner in head.data.triangles.T:
        np.add.at(wanted, corner, flat)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    # below `SMALLEST_TURN` a change is left out
    np.testing.assert_allclose(player.morphed("NORMAL")[: len(wanted)], wanted, atol=1.1e-3)
    assert np.abs(player.attribute("NORMAL")[: len(wanted)] - wanted).max() > 0.01


def test_a_target_is_sparse_exactly_where_that_is_smaller(tmp_path: Path) -> None:
    basis = small_head_data().expression_basis.copy()
    basis[10:, :, 0] = 0
    basis[:, :, 1] = 0
    basis[:, :, 2] += 0.001
    head = head_with(expression_basis=basis)
    export_rigged_head(head, head.mean_parameters(), tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    entries = [player.json["accessors"][t["POSITION"]] for t in player.primitive["targets"]]
    assert [("sparse" in e, "bufferView" in e) for e in entries[:3]] == [(True, False)] * 2 + [(False, True)]
    assert entries[0]["sparse"]["count"] == len(set(range(10)) | set(repeated(player, 10)))
    for k, target in enumerate(player.primitive["targets"]):
        moves = player.accessor(target["POSITION"])
        np.testing.assert_allclose(moves[: len(basis)], basis[:, :, k], atol=1.1e-7)
        entry = player.json["accessors"][target["POSITION"]]
        assert entry["min"] == moves.min(0).tolist() and entry["max"] == moves.max(0).tolist()


def test_the_animation_blinks_smiles_opens_the_jaw_and_turns_the_head(tmp_path: Path) -> None:
    head = plain_head()
    face = head.mean_parameters()
    face.expression[0] = torch.tensor([0.2, 0.1, 0.3, 0.0])
    face.pose[0] = torch.tensor([0.1, 0.2, 0.0, 0.05, 0.0, 0.0])
    export_rigged_head(head, face, tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    jaw, neck = player.number["jaw"], player.number["neck"]
    as_it_is = player.show()
    for time in (0.0, 6.0):
        player.play(time)
        np.testing.assert_allclose(player.show(), as_it_is, atol=1e-6)
    player.play(2.0 / 3)
    assert player.weights[0] > 0.8 and player.weights[1] == pytest.approx(0.1)
    player.play(1.9)
    assert player.weights[0] == pytest.approx(0.2) and player.weights[1] > 0.98
    player.play(3.1)
    opened = face.replace(pose=face.pose + torch.tensor([0, 0, 0, 0.25, 0, 0]))
    np.testing.assert_allclose(
        rotation_matrix(player.rotations[jaw]), rotation_matrix(to_quaternion([0.3, 0, 0])), atol=0.01
    )
    np.testing.assert_allclose(player.show()[: len(head.v_template)], truth(head, opened), atol=2e-4)
    angles = []
    for time in np.linspace(3.4, 6, 27):
        player.play(float(time))
        angles.append(2 * player.rotations[neck][1])  # half the sine of the angle, nearly
    assert max(angles) > 0.33 and min(angles) < -0.33  # to both sides
    assert {c["target"]["path"] for c in player.json["animations"][0]["channels"]} == {"weights", "rotation"}


def test_components_without_arkit_names_keep_still_while_the_joints_move(tmp_path: Path) -> None:
    head = head_with()
    export_rigged_head(head, some_face(head), tmp_path / "face.glb")
    channels = Player(tmp_path / "face.glb").json["animations"][0]["channels"]
    assert [channel["target"]["path"] for channel in channels] == ["rotation", "rotation"]


def test_vertices_keep_their_four_strongest_joints_and_weights_sum_to_one(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(5), len(small_head_data().v_template))
    head = head_with(skinning_weights=weights)
    export_rigged_head(head, head.mean_parameters(), tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    joints, shares = player.attribute("JOINTS_0"), player.attribute("WEIGHTS_0")
    assert np.abs(shares.astype(np.float64).sum(1) - 1).max() < 2e-7
    for vertex in range(len(weights)):
        dropped = ({0, 1, 2, 3, 4} - set(joints[vertex].tolist())).pop()
        assert dropped == weights[vertex].argmin()
        kept = weights[vertex][joints[vertex]]
        np.testing.assert_allclose(shares[vertex], kept / kept.sum(), atol=1e-6)


def test_a_head_without_texture_has_vertex_colors_in_linear_light(tmp_path: Path) -> None:
    head = head_with(texture_mean=None, texture_basis=None, albedo_names=[])
    export_rigged_head(head, head.mean_parameters(), tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    assert "images" not in player.json
    plain_skin = np.array([0.76, 0.60, 0.52])
    wanted = ((plain_skin + 0.055) / 1.055) ** 2.4  # sRGB, IEC 61966-2-1
    np.testing.assert_allclose(
        player.attribute("COLOR_0"), np.tile(wanted, (len(head.v_template), 1)), atol=1e-6
    )


def test_a_head_with_two_joints_and_no_expression_is_rigged_too(tmp_path: Path) -> None:
    data = small_head_data()
    weights = np.stack([data.skinning_weights[:, 0], data.skinning_weights[:, 1:].sum(1)], 1)
    head = head_with(
        parents=np.array([-1, 0]),
        joint_regressor=data.joint_regressor[:2],
        skinning_weights=weights,
        pose_basis=None,
        expression_basis=np.zeros((len(weights), 3, 0)),
        expression_names=[],
    )
    face = some_face(head)
    export_rigged_head(head, face, tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    assert "targets" not in player.primitive and player.names == []
    np.testing.assert_allclose(player.show()[: len(weights)], truth(head, face), atol=5e-7)


def test_the_license_of_the_head_is_written_into_the_file(tmp_path: Path) -> None:
    head = head_with(metadata={"name": "my scans", "licence": "CC-BY-NC 4.0"})
    export_rigged_head(head, head.mean_parameters(), tmp_path / "face.glb")
    player = Player(tmp_path / "face.glb")
    assert player.json["asset"]["copyright"] == "my scans: CC-BY-NC 4.0"
    assert player.json["nodes"][0]["extras"]["head_id"] == head.id


def test_another_program_reads_the_texture_of_the_head(tmp_path: Path) -> None:
    head = head_with()
    face = some_face(head)
    export_rigged_head(head, face, tmp_path / "face.glb")
    solid: Any = trimesh.load_mesh(tmp_path / "face.glb", process=False)
    texture = head.mesh(face).texture
    assert texture is not None
    picture = np.asarray(solid.visual.material.baseColorTexture) / 255
    np.testing.assert_allclose(picture, texture[0], atol=0.5 / 255 + 1e-6)


def test_what_cannot_be_rigged_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    head = head_with()
    with pytest.raises(ValueError, match=r"face\.obj: only \.glb"):
        export_rigged_head(head, head.mean_parameters(), tmp_path / "face.obj")
    with pytest.raises(ValueError, match="batch of 2"):
        export_rigged_head(head, head.mean_parameters(2), tmp_path / "face.glb")
    other = HeadModel(small_head_data()).mean_parameters().replace(shape=torch.zeros(1, 9))
    with pytest.raises(ValueError, match="got 9"):
        export_rigged_head(head, other, tmp_path / "face.glb")
    broken = head.mean_parameters().replace(pose=torch.full((1, 6), torch.nan))
    with pytest.raises(ValueError, match=r"face\.glb is not written: .* not finite"):
        export_rigged_head(head, broken, tmp_path / "face.glb")
    assert not list(tmp_path.iterdir())

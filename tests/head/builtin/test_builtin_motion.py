"""How the built-in head moves: expressions against the table, pose correctives, dense landmarks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from intersections import crossing_pairs
from scipy.spatial import cKDTree

from facegpt.errors import HeadFileError
from facegpt.head.builtin.anatomy import EYE_CENTER, EYE_RADIUS
from facegpt.head.builtin.cache import builtin_head_data
from facegpt.head.files.format import HeadData, load_head_data, save_head
from facegpt.head.model import HeadModel

# anatomy table: name -> (largest displacement, where, direction), the subject's left
TABLE = {
    "browDownLeft": (6.5, (40, 26, 97), (-4.6, -3.5, 2.9)),
    "browInnerUp": (6.1, (20, 17, 105), (0.6, 6.1, 0.1)),
    "browOuterUpLeft": (8.6, (46, 20, 95), (1.9, 8.0, -2.7)),
    "cheekPuff": (14.1, (26, -73, 101), (-2.4, 1.3, 13.8)),
    "cheekSquintLeft": (6.3, (53, -33, 88), (-0.8, 5.8, 2.2)),
    "eyeBlinkLeft": (9.6, (34, 4, 96), (-0.7, -9.6, 0.2)),
    "eyeSquintLeft": (3.7, (28, -16, 95), (-2.7, 2.6, 0.3)),
    "eyeWideLeft": (3.5, (34, 4, 97), (0.4, 3.3, -1.1)),
    "jawForward": (11.2, (0, -105, 109), (0, -1.7, 11.0)),
    "jawLeft": (8.9, (9, -100, 109), (8.9, 0.3, -0.1)),
    "mouthDimpleLeft": (8.9, (25, -76, 102), (1.3, 5.8, -6.5)),
    "mouthFrownLeft": (6.1, (29, -70, 102), (1.9, -5.1, -2.7)),
    "mouthFunnel": (11.7, (8, -72, 114), (-0.5, -8.4, 8.1)),
    "mouthLeft": (18.8, (-22, -74, 104), (17.2, -0.4, 7.7)),
    "mouthLowerDownLeft": (4.6, (12, -81, 111), (1.0, -4.2, -1.6)),
    "mouthPressLeft": (4.3, (17, -104, 104), (-0.3, 4.1, 1.4)),
    "mouthPucker": (12.4, (21, -70, 101), (-5.1, 2.3, 11.0)),
    "mouthRollLower": (14.2, (0, -71, 109), (0, 0.5, -14.2)),
    "mouthRollUpper": (11.6, (0, -68, 116), (0, -0.9, -11.6)),
    "mouthShrugLower": (11.3, (0, -101, 110), (0, 11.1, 2.1)),
    "mouthShrugUpper": (6.2, (0, -65, 118), (0, 6.1, 1.0)),
    "mouthSmileLeft": (15.8, (24, -71, 102), (7.3, 10.5, -9.2)),
    "mouthStretchLeft": (10.3, (22, -70, 100), (7.5, -2.3, -6.7)),
    "mouthUpperUpLeft": (8.8, (24, -52, 104), (2.2, 8.1, -2.8)),
    "noseSneerLeft": (10.3, (26, -50, 102), (-1.5, 10.2, -0.1)),
}  # fmt: skip


@pytest.fixture(scope="module")
def head() -> HeadData:
    return builtin_head_data()


@pytest.fixture(scope="module")
def models(head: HeadData) -> dict[bool, HeadModel]:
    """The head with and without pose correctives."""
    return {True: HeadModel(head), False: HeadModel(dataclasses.replace(head, pose_basis=None))}


def _component(head: HeadData, name: str) -> np.ndarray:
    return head.expression_basis[:, :, head.expression_names.index(name)].astype(float) * 1000


@pytest.mark.parametrize("name", sorted(TABLE))
def test_expressions_are_as_large_and_point_as_the_table_says(head: HeadData, name: str) -> None:
    largest, place, direction = TABLE[name]
    field = _component(head, name)
    length = np.linalg.norm(field, axis=1)
    peak = int(length.argmax())
    assert 0.82 * largest < length[peak] < 1.18 * largest
    expected = np.array(direction)
    cosine = field[peak] @ expected / length[peak] / np.linalg.norm(expected)
    at = head.v_template[peak] * 1000
    if place[0] == 0:
        assert abs(at[0]) < 21
    assert np.linalg.norm((at - place)[1 if place[0] == 0 else 0 :]) < 33
    assert cosine > 0.85


def test_every_right_expression_is_the_mirror_image_of_the_left_one(head: HeadData) -> None:
    distance, mirror = cKDTree(head.v_template).query(head.v_template * [-1, 1, 1])
    assert distance.max() < 1e-6
    sided = [name for name in head.expression_names if name.endswith("Left")]
    assert len(sided) == 20
    for name in sided:
        ours, theirs = _component(head, name), _component(head, name.removesuffix("Left") + "Right")
        assert np.abs(theirs[mirror] * [-1, 1, 1] - ours).max() < 1e-3
        assert (np.linalg.norm(ours, axis=1) * head.v_template[:, 0]).sum() * (
            -1 if name == "mouthLeft" else 1
        ) > -1e-2


def test_lids_slide_over_the_eyeballs_all_the_way(head: HeadData) -> None:
    """Neither eyeball nor lid cuts the other, and no lid lies inside the eyeball, from open to shut."""
    blink = _component(head, "eyeBlinkLeft") + _component(head, "eyeBlinkRight")
    lids, balls = (head.regions[name][head.triangles].all(1) for name in ("eye_region", "eyes"))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        vertices = head.v_template * 1000 + share * blink
        assert len(crossing_pairs(vertices, head.triangles[lids | balls])) == 0
        middle = vertices[head.triangles[lids]].mean(1)
        away = np.linalg.norm(
            middle * np.where(middle[:, :1] < 0, [[-1, 1, 1]], [[1, 1, 1]]) - EYE_CENTER, axis=1
        )
        assert away.min() > EYE_RADIUS - 0.2  # the eyeball's own triangles lie that deep


def _turned(model: HeadModel, neck: float = 0.0, jaw: float = 0.0) -> np.ndarray:
    parameters = model.mean_parameters(neck=True)
    assert parameters.neck is not None
    parameters.neck[:, 1] = neck
    parameters.pose[:, 3] = jaw
    with torch.no_grad():
        vertices: np.ndarray = model(parameters).vertices[0].numpy().astype(float)
    return vertices


@pytest.mark.parametrize("degrees", [40, 50, 60])
def test_correctives_keep_a_turned_neck_round(models: dict[bool, HeadModel], degrees: float) -> None:
    model = models[True]
    rest = model.v_template.numpy()
    blend = np.abs(model.skinning_weights[0].numpy() - 0.5) < 0.2
    axis = model.joint_template.view(-1, 3)[1].numpy()

    def kept(correct: bool) -> float:
        turned = _turned(models[correct], neck=np.radians(degrees))
        radius = [np.linalg.norm((p - axis)[blend][:, [0, 2]], axis=1) for p in (turned, rest)]
        return float((radius[0] / radius[1]).mean())

    assert kept(False) < 0.955
    assert abs(kept(True) - 1) < 0.012


@pytest.mark.parametrize("degrees", [25, 30])
def test_correctives_keep_the_cheeks_of_an_open_jaw(models: dict[bool, HeadModel], degrees: float) -> None:
    model = models[True]
    rest = model.v_template.numpy()
    weight = model.skinning_weights[2].numpy()
    blend = (np.abs(weight - 0.5) < 0.2) & (model.skinning_weights[0].numpy() < 0.01)
    pivot = model.joint_template.view(-1, 3)[2].numpy()

    def lost(correct: bool) -> float:
        turned = _turned(models[correct], jaw=np.radians(degrees))
        radius = [np.linalg.norm((p - pivot)[blend][:, 1:], axis=1) for p in (turned, rest)]
        return float(1000 * (radius[1] - radius[0]).mean())

    assert lost(False) > 1.0  # mm
    assert abs(lost(True)) < 0.15 * lost(False)


def test_correctives_vanish_at_rest_and_on_stiff_parts(head: HeadData) -> None:
    assert head.pose_basis is not None
    size = np.abs(head.pose_basis).max((1, 2))
    assert size.max() > 0.001
    assert size[head.regions["eyes"]].max() == 0
    assert np.abs(head.pose_basis[..., 18:]).max() == 0


def test_dense_landmarks_lie_where_their_names_say(head: HeadData) -> None:
    assert head.dense_triangles is not None and head.dense_barycentric is not None
    assert len(head.dense_triangles) == len(set(head.dense_names)) >= 105
    assert np.allclose(head.dense_barycentric.sum(1), 1, atol=1e-5) and head.dense_barycentric.min() >= -1e-6
    corners = head.v_template[head.triangles[head.dense_triangles]] * 1000
    points = dict(zip(head.dense_names, (corners * head.dense_barycentric[..., None]).sum(1), strict=True))
    groups = {name.rsplit("_", 1)[0] for name in points}
    assert {
        "left_lids", "right_lids", "left_iris", "right_iris", "left_brow_upper", "lips_outer",
        "lips_inner", "nose_bridge",
        "left_cheek", "face_oval_lower", "face_oval_upper",
    } <= groups  # fmt: skip
    for name, point in points.items():
        if name.startswith("left_"):
            assert point[0] > 0
            assert np.linalg.norm(points["right_" + name[5:]] * [-1, 1, 1] - point) < 1.5
        if "iris" in name or "pupil" in name:
            center = EYE_CENTER * [np.sign(point[0]), 1, 1]
            assert abs(np.linalg.norm(point - center) - EYE_RADIUS) < 0.1
        if "iris" in name:
            assert 5 < np.hypot(*(point - center)[:2]) < 7
        if name.startswith("lips"):
            assert abs(point[0]) < 27 and -81 < point[1] < -59


def test_mouth_close_shuts_the_lips_of_an_open_jaw(models: dict[bool, HeadModel]) -> None:
    model = models[True]
    parameters = model.mean_parameters()

    def gap() -> float:
        with torch.no_grad():
            points = model(parameters).landmarks[0].numpy() * 1000
        return float(np.linalg.norm(points[62] - points[66]))

    parameters.pose[:, 3] = 0.15
    assert gap() > 10
    parameters.expression[:, model.expression_names.index("mouthClose")] = 1
    assert gap() < 1.5


def test_dense_landmarks_survive_a_file_and_may_be_missing(head: HeadData, tmp_path: Path) -> None:
    for suffix in (".npz", ".safetensors"):
        save_head(head, tmp_path / f"head{suffix}")
        again = load_head_data(tmp_path / f"head{suffix}")
        assert again.dense_names == head.dense_names
        assert np.array_equal(again.dense_triangles, head.dense_triangles)
    without = dataclasses.replace(head, dense_triangles=None, dense_barycentric=None, dense_names=[])
    save_head(without, tmp_path / "without.npz")
    assert load_head_data(tmp_path / "without.npz").dense_triangles is None
    with pytest.raises(HeadFileError, match="dense"):
        dataclasses.replace(head, dense_barycentric=None)

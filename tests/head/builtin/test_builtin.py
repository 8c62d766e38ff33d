"""The built-in head against the anatomical table and against what a head has to be able to do."""

import numpy as np
import pytest

from facegpt.head.builtin import build_head
from facegpt.head.builtin.anatomy import EYE_CENTER, EYE_RADIUS, JAW_PIVOT, landmark_table
from facegpt.head.files.format import HeadData


@pytest.fixture(scope="module")
def head() -> HeadData:
    return build_head()


def _landmarks(head: HeadData, vertices: np.ndarray) -> np.ndarray:
    corners = vertices[head.triangles[head.landmark_triangles]]
    return (corners * head.landmark_barycentric[:, :, None]).sum(1)


def _expression(head: HeadData, *names: str) -> np.ndarray:
    columns = [head.expression_names.index(name) for name in names]
    return head.v_template + head.expression_basis[:, :, columns].sum(-1)


def _open_jaw(head: HeadData, angle: float) -> np.ndarray:
    """The jaw joint's own rotation, written out independently of the head model."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    pivot = JAW_PIVOT / 1000
    turned = (head.v_template - pivot) @ turn.T + pivot
    weight = head.skinning_weights[:, 2:3]
    return (1 - weight) * head.v_template + weight * turned


def _connected(head: HeadData) -> np.ndarray:
    """Triangles of the skin with inner lids and mouth cavity: everything joined to the first triangle."""
    label = np.arange(len(head.v_template))
    for _ in range(200):
        low = label[head.triangles].min(1)
        before = label.copy()
        np.minimum.at(label, head.triangles.ravel(), np.repeat(low, 3))
        if (label == before).all():
            break
    return head.triangles[label[head.triangles[:, 0]] == label[head.triangles[0, 0]]]


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    return (s * np.diag(sign)).sum() / (a * a).sum() * a @ u @ sign @ vt + target.mean(0)


def test_landmarks_lie_within_three_millimeters_of_the_table(head: HeadData) -> None:
    table = landmark_table()
    error = np.linalg.norm(_similarity(_landmarks(head, head.v_template) * 1000, table) - table, axis=1)
    assert error.max() < 3.0
    assert np.sqrt((error**2).mean()) < 1.5


def test_sizes_and_names_are_those_of_the_layout(head: HeadData) -> None:
    assert 4500 < len(head.v_template) < 6000
    assert head.shape_basis.shape[2] == len(set(head.shape_names)) == 100
    assert head.expression_basis.shape[2] == len(set(head.expression_names)) == 50
    assert head.texture_basis is not None and head.texture_basis.shape == (256, 256, 3, 50)
    assert len(set(head.albedo_names)) == 50
    assert np.abs(head.v_template).max() < 0.2  # metres
    assert set(head.regions) == {
        "face", "eyes", "eye_region", "nose", "lips", "ears", "scalp", "neck", "mouth_interior",
        "left_eyeball",
        "right_eyeball",
    }  # fmt: skip
    assert all(mask.any() for mask in head.regions.values())


def test_every_edge_joins_at_most_two_triangles_that_agree_on_the_outside(head: HeadData) -> None:
    directed = head.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    assert len(np.unique(directed, axis=0)) == len(directed)
    # The skin with inner lids and cavity is open at the neck and behind the two pairs of lids only.
    edges = np.sort(_connected(head)[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    rim = head.v_template[unique[count == 1]].mean(1) * 1000
    at_eye = np.linalg.norm(np.abs(rim) * [1, 0, 1] + rim * [0, 1, 0] - EYE_CENTER, axis=1) < 17
    at_neck = rim[:, 1] < -155
    assert (at_eye | at_neck).all() and at_eye.any() and at_neck.any()


def test_triangles_have_area_and_face_outwards(head: HeadData) -> None:
    corners = head.v_template[head.triangles].astype(float) * 1000
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.linalg.norm(normal, axis=1).min() > 1e-5  # mm^2, twice the area

    skin = (
        head.regions["face"] & ~head.regions["lips"] & ~head.regions["eye_region"] & ~head.regions["nose"]
    )[head.triangles].all(1)
    away = corners.mean(1) * [1, 0, 1]
    assert ((normal * away).sum(1)[skin] > 0).all()
    for side, sign in (("left_eyeball", 1), ("right_eyeball", -1)):
        ball = head.regions[side][head.triangles].all(1)
        assert ((normal * (corners.mean(1) - EYE_CENTER * [sign, 1, 1])).sum(1)[ball] > 0).all()


def test_the_mean_is_symmetric(head: HeadData) -> None:
    ours = np.round(head.v_template * 1e6).astype(int)
    theirs = np.round(head.v_template * [-1e6, 1e6, 1e6]).astype(int)
    order = lambda p: p[np.lexsort(p.T)]  # noqa: E731
    assert np.abs(order(ours) - order(theirs)).max() <= 1


def test_weights_sum_to_one_and_joints_come_from_the_regressor(head: HeadData) -> None:
    assert np.allclose(head.skinning_weights.sum(1), 1, atol=1e-5) and head.skinning_weights.min() >= 0
    joints = head.joint_regressor.astype(float) @ head.v_template * 1000
    assert np.allclose(joints[2], JAW_PIVOT, atol=0.01)
    assert np.allclose(joints[3], EYE_CENTER, atol=0.01)
    assert np.allclose(joints[4], EYE_CENTER * [-1, 1, 1], atol=0.01)
    assert np.allclose(head.joint_regressor.sum(1), 1, atol=1e-5)


def test_opening_the_jaw_parts_the_lips(head: HeadData) -> None:
    closed, opened = (
        _landmarks(head, v) * 1000 for v in (head.v_template, _open_jaw(head, np.radians(25.3)))
    )
    gap = lambda p: p[62, 1] - p[66, 1]  # noqa: E731
    assert gap(closed) < 1.0
    assert gap(opened) > 25.0
    assert np.linalg.norm(opened[27:48] - closed[27:48], axis=1).max() < 0.5  # nose and eyes stay


@pytest.mark.parametrize("side, upper, lower", [("Left", (43, 44), (47, 46)), ("Right", (37, 38), (41, 40))])
def test_a_blink_closes_the_lids_without_cutting_the_eyeball(
    head: HeadData, side: str, upper: tuple[int, int], lower: tuple[int, int]
) -> None:
    shut = _landmarks(head, _expression(head, f"eyeBlink{side}")) * 1000
    rest = _landmarks(head, head.v_template) * 1000
    for top, bottom in zip(upper, lower, strict=True):
        assert rest[top, 1] - rest[bottom, 1] > 6.0
        assert abs(shut[top, 1] - shut[bottom, 1]) < 1.7
    center = EYE_CENTER * [1 if side == "Left" else -1, 1, 1]
    half = 0.5 * (rest + shut)
    lids = [*upper, *lower]
    assert (np.linalg.norm(half[lids] - center, axis=1) > EYE_RADIUS).all()


def test_identity_components_are_orthogonal_and_do_not_bend_the_eyeballs(head: HeadData) -> None:
    flat = head.shape_basis.reshape(-1, 100).astype(float)
    size = np.linalg.norm(flat, axis=0)
    cosine = (flat / size).T @ (flat / size)
    assert np.abs(cosine - np.eye(100)).max() < 1e-3
    assert (np.diff(size) <= 1e-6).all()
    rms = size / np.sqrt(len(head.v_template)) * 1000
    assert np.allclose(rms[:2], [4.7, 3.2], atol=0.05)
    generator = np.random.default_rng(0)
    person = head.v_template + head.shape_basis @ generator.normal(size=100).astype(np.float32)
    for side in ("left_eyeball", "right_eyeball"):
        ball = person[head.regions[side]]
        center = (head.joint_regressor @ person)[3 if side == "left_eyeball" else 4]
        radius = np.linalg.norm(ball - center, axis=1)
        assert radius.std() / radius.mean() < 1e-3


def test_expressions_peak_where_the_table_says(head: HeadData) -> None:
    smile = head.expression_basis[:, :, head.expression_names.index("mouthSmileLeft")] * 1000
    peak = int(np.argmax(np.linalg.norm(smile, axis=1)))
    assert np.linalg.norm(head.v_template[peak] * 1000 - [24, -71, 102]) < 12
    direction = np.array([7.3, 10.5, -9.2])
    cosine = smile[peak] @ direction / np.linalg.norm(smile[peak]) / np.linalg.norm(direction)
    assert cosine > 0.9
    brow = head.expression_basis[:, :, head.expression_names.index("browOuterUpRight")] * 1000
    assert head.v_template[int(np.argmax(brow[:, 1])), 0] < -0.03


def test_albedo_runs_from_light_to_dark_through_melanin(head: HeadData) -> None:
    assert head.texture_mean is not None and head.texture_basis is not None
    assert head.texture_mean.min() >= 0 and head.texture_mean.max() <= 1
    power = (head.texture_basis.astype(float) ** 2).sum((0, 1, 2))
    assert head.albedo_names[int(np.argmax(power))] == "melanin"
    assert power.max() > 0.5 * power.sum()
    melanin = head.texture_basis[100, 128, :, head.albedo_names.index("melanin")]  # the forehead
    forehead = head.texture_mean[60, 128]
    assert (forehead - 1.5 * melanin).min() > 0.55 and (forehead + 1.5 * melanin).max() < 0.52


def test_identity_is_as_large_as_the_table_says(head: HeadData) -> None:
    table = [4.7, 3.2, 1.9, 2.4, 1.7, 1.4, 1.3, 1.0, 0.9, 1.0, 0.7, 0.8, 0.7, 0.6, 0.7, 0.6, *[0.5] * 4]
    rms = np.sqrt((head.shape_basis.astype(float) ** 2).sum(1).mean(0)) * 1000
    assert np.abs(rms[:20] - np.sort(table)[::-1]).max() < 0.45
    assert abs(np.linalg.norm(rms) - 7.6) < 0.5
    assert head.shape_names[:2] == ["overall_size", "head_height_vs_width"]


def test_regions_lie_where_their_names_say(head: HeadData) -> None:
    millimeters = head.v_template * 1000
    middle = {name: millimeters[mask].mean(0) for name, mask in head.regions.items()}
    assert middle["scalp"][1] > 20 > middle["face"][1] > middle["lips"][1] > middle["neck"][1]
    assert np.abs(millimeters[head.regions["ears"], 0]).min() > 60
    assert np.linalg.norm(middle["left_eyeball"] * [1, 1, 0] - EYE_CENTER * [1, 1, 0]) < 0.1
    assert middle["nose"][2] > 110 and middle["mouth_interior"][2] < middle["lips"][2]
    apart = ["eyes", "ears", "scalp", "neck", "mouth_interior", "lips", "nose", "eye_region"]
    assert sum(head.regions[name].astype(int) for name in apart).max() == 1  # type: ignore[union-attr]
    covered = np.any([head.regions[name] for name in [*apart, "face"]], axis=0)
    assert covered.mean() > 0.97
    for name in apart:
        assert abs(middle[name][0]) < 0.01  # both sides alike


def test_contour_points_of_the_far_side_stand_on_the_silhouette(head: HeadData) -> None:
    assert head.contour_triangles is not None and head.contour_barycentric is not None
    assert head.contour_triangles.shape == (79, 17)
    assert np.allclose(head.contour_barycentric.sum(-1), 1, atol=1e-5)
    corners = head.v_template[head.triangles[head.contour_triangles]]  # (79, 17, 3, 3)
    points = (corners * head.contour_barycentric[..., None]).sum(2) * 1000
    frontal = _landmarks(head, head.v_template)[:17] * 1000
    assert np.linalg.norm(points[0] - frontal, axis=1).max() < 0.5
    for row, yaw in ((30, 30), (69, -30)):
        angle = np.radians(yaw)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        face = (
            np.cross(corners[row, :, 1] - corners[row, :, 0], corners[row, :, 2] - corners[row, :, 0])
            @ turn.T
        )
        face /= np.linalg.norm(face, axis=1, keepdims=True)
        # No point of the upper contour looks clearly away from the camera.
        far = range(12, 17) if yaw > 0 else range(0, 5)
        assert (face[list(far), 2] > -0.25).all()
        outer = points[row] @ turn.T
        assert (np.abs(outer[list(far), 0]) >= np.abs((frontal @ turn.T)[list(far), 0]) - 0.5).all()


def test_building_twice_gives_the_same_head(head: HeadData) -> None:
    again = build_head()
    assert np.array_equal(head.triangles, again.triangles)
    assert np.array_equal(head.v_template, again.v_template)
    assert np.array_equal(head.shape_basis, again.shape_basis)
    assert np.array_equal(head.texture_basis, again.texture_basis)

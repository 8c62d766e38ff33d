"""The surface of the built-in head: closed where it should be, nowhere through itself, unwrapped once."""

import numpy as np
import pytest
from intersections import crossing_pairs, crossing_triangles

from facegpt.head.builtin.cache import builtin_head_data
from facegpt.head.files.format import HeadData

CLOSED_ANGLE = 0.15  # of the jaw, which mouthClose is meant for


@pytest.fixture(scope="module")
def head() -> HeadData:
    return builtin_head_data()


def _posed(head: HeadData, **coefficients: float) -> np.ndarray:
    columns = [head.expression_names.index(name) for name in coefficients]
    return head.v_template + head.expression_basis[:, :, columns] @ np.array(list(coefficients.values()))


def _open_jaw(head: HeadData, vertices: np.ndarray, angle: float) -> np.ndarray:
    """Linear blend skinning of the jaw alone, written out."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    pivot = head.joint_regressor[2] @ head.v_template
    assert head.pose_basis is not None
    vertices = vertices + head.pose_basis[:, :, 9:18] @ (turn - np.eye(3)).ravel()
    weight = head.skinning_weights[:, 2:3]
    return (1 - weight) * vertices + weight * ((vertices - pivot) @ turn.T + pivot)


def test_the_intersection_test_finds_what_was_made_to_cross() -> None:
    apart = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.2, -1], [0.2, 0.2, 1], [3, 3, 0]], float)
    triangles = np.array([[0, 1, 2], [3, 4, 5]])
    assert crossing_pairs(apart, triangles).tolist() == [[0, 1]]
    beside = apart.copy()
    beside[3:, 0] += 2
    assert len(crossing_pairs(beside, triangles)) == 0
    # neighbours on an edge never count, those on a corner do when the opposite edge passes through
    assert len(crossing_pairs(apart, np.array([[0, 1, 2], [1, 0, 4]]))) == 0
    through = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.4, 0.3, -0.5], [0.4, 0.3, 0.5]])
    assert crossing_pairs(through, np.array([[0, 1, 2], [0, 3, 4]])).tolist() == [[0, 1]]


def test_random_triangles_cross_where_sampled_points_say_so() -> None:
    """Against dense samples of one triangle changing sides inside the other's prism."""
    generator = np.random.default_rng(0)
    for _ in range(40):
        corners = generator.normal(size=(2, 3, 3))
        found = len(crossing_pairs(corners.reshape(6, 3), np.arange(6).reshape(2, 3))) == 1
        steps = np.linspace(0, 1, 160)
        deepest = 0.0
        for one, other in ((corners[0], corners[1]), (corners[1], corners[0])):
            for k in range(3):
                line = one[k] + steps[:, None] * (one[(k + 1) % 3] - one[k])
                u, v = other[1] - other[0], other[2] - other[0]
                solved = np.linalg.solve(np.stack([u, v, np.cross(u, v)], 1), (line - other[0]).T)
                inside = np.minimum(np.minimum(solved[0], solved[1]), 1 - solved[0] - solved[1])
                change = solved[2, 1:] * solved[2, :-1] < 0
                if change.any():
                    deepest = max(deepest, float(np.minimum(inside[1:], inside[:-1])[change].max() + 1e-9))
        if found != (deepest > 0):
            assert abs(deepest) < 0.05  # only at a border, within the samples' step


def test_the_mean_does_not_cross_itself(head: HeadData) -> None:
    assert len(crossing_pairs(head.v_template * 1000, head.triangles)) == 0


def test_a_crowd_does_not_cross_itself(head: HeadData) -> None:
    generator = np.random.default_rng(1)
    for _ in range(12):
        weights = np.clip(generator.normal(size=100), -2, 2)
        person = head.v_template + head.shape_basis @ weights
        assert len(crossing_pairs(person * 1000, head.triangles)) == 0


def test_single_components_at_two_sigma_do_not_cross(head: HeadData) -> None:
    for component in range(0, 100, 3):
        for sigma in (-2, 2):
            person = head.v_template + sigma * head.shape_basis[:, :, component]
            assert len(crossing_pairs(person * 1000, head.triangles)) == 0, head.shape_names[component]


def test_full_expressions_do_not_cross(head: HeadData) -> None:
    for name in head.expression_names:
        face = _posed(head, **{name: 1.0})
        if name == "mouthClose":
            face = _open_jaw(head, face, CLOSED_ANGLE)
        assert len(crossing_pairs(face * 1000, head.triangles)) == 0, name


def test_lips_closed_over_a_shut_jaw_cross_nowhere_else(head: HeadData) -> None:
    """What closes an open mouth pushes the lips of a shut one through each other: they have no room."""
    crossed = crossing_triangles(_posed(head, mouthClose=1.0) * 1000, head.triangles)
    assert len(crossed) <= 200
    middle = head.v_template[head.triangles[crossed]].mean(1) * 1000
    assert (np.linalg.norm((middle - [0, -70, 105]) / [30, 20, 20], axis=1) < 1).all()


@pytest.mark.parametrize("combination", [
    {"eyeBlinkLeft": 1, "eyeBlinkRight": 1, "mouthSmileLeft": 1, "mouthSmileRight": 1},
    {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5, "browDownLeft": 1, "browDownRight": 1},
    {"eyeBlinkLeft": 1, "eyeBlinkRight": 1, "cheekSquintLeft": 1, "cheekSquintRight": 1},
    {"mouthPressLeft": 1, "mouthPressRight": 1, "mouthRollUpper": 0.5, "mouthRollLower": 0.5},
    {"mouthFunnel": 1, "browInnerUp": 1}, {"mouthPucker": 1, "cheekPuff": 1},
])  # fmt: skip
def test_common_combinations_do_not_cross(head: HeadData, combination: dict[str, float]) -> None:
    assert len(crossing_pairs(_posed(head, **combination) * 1000, head.triangles)) == 0


def test_an_open_mouth_does_not_cross(head: HeadData) -> None:
    for angle in (0.1, 0.25, 0.44):
        opened = _open_jaw(head, head.v_template, angle)
        assert len(crossing_pairs(opened * 1000, head.triangles)) == 0, angle


def test_no_triangle_is_a_sliver_and_neighbors_never_fold_back(head: HeadData) -> None:
    corners = head.v_template[head.triangles].astype(float) * 1000
    edges = np.roll(corners, -1, 1) - corners
    normal = np.cross(edges[:, 0], edges[:, 1])
    area = 0.5 * np.linalg.norm(normal, axis=1)
    longest = np.linalg.norm(edges, axis=2).max(1)
    assert (2 * area / longest).min() > 0.02  # mm of height
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    sides = {
        tuple(e): f for f, t in enumerate(head.triangles.tolist()) for e in zip(t, t[1:] + t[:1], strict=True)
    }
    pairs = np.array([(f, sides[b, a]) for (a, b), f in sides.items() if a < b and (b, a) in sides])
    cosine = (normal[pairs[:, 0]] * normal[pairs[:, 1]]).sum(1)
    # sharp only where it has to be: at the rims of lids and lips, the edges of teeth, the tongue and the ears
    plain = head.regions["face"].copy()
    for name in ("lips", "eye_region", "nose"):
        plain &= ~head.regions[name]
    smooth = plain[head.triangles].all(1)
    assert cosine[smooth[pairs].all(1)].min() > 0.7
    assert np.quantile(cosine, 0.02) > 0.3


def test_texture_triangles_cover_every_texel_once(head: HeadData) -> None:
    assert head.uv is not None and head.uv_triangles is not None
    size = 512
    corners = head.uv[head.uv_triangles].astype(float) * size
    low = np.ceil(corners.min(1) - 0.5).astype(int)
    span = np.maximum(np.floor(corners.max(1) - 0.5).astype(int) + 1 - low, 0)
    owner = np.repeat(np.arange(len(corners)), span.prod(1))
    rank = np.concatenate([np.arange(n) for n in span.prod(1)])
    cell = low[owner] + np.stack([rank % span[owner, 0], rank // span[owner, 0]], 1)
    place = cell + np.array([0.5137, 0.4871])
    a, b, c = (corners[owner, k] for k in range(3))

    def turn(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    inside = (turn(a, b, place) > 1e-7) & (turn(b, c, place) > 1e-7) & (turn(c, a, place) > 1e-7)
    covered = cell[inside]
    assert len(np.unique(covered, axis=0)) == len(covered)
    assert len(covered) > 0.8 * size * size
    assert (turn(corners[:, 0], corners[:, 1], corners[:, 2]) > 0).all()  # none is turned over

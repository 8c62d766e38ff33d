"""ICT-FaceKit becomes a head of ours: its files' meshes come back, and what it lacks is measured right."""

import json
import math

import numpy as np
import pytest
import torch
from ict_files import ANGLE, EYE, NAMES, NOTICE, PIVOT, write_ict_facekit

from facegpt.commands.import_head import main as import_head
from facegpt.config import run
from facegpt.errors import HeadFileError
from facegpt.head.files import ict_facekit
from facegpt.head.files.contour import cast_rays
from facegpt.head.files.ict_facekit import load_ict_facekit
from facegpt.head.files.ict_rig import affine_weights, rigid_motion, sphere_center
from facegpt.head.files.ict_texture import CELLS, PUPIL, TOOTH
from facegpt.head.model import HeadModel
from facegpt.render.surface import vertex_normals


@pytest.fixture
def mini(tmp_path, monkeypatch):
    written = write_ict_facekit(tmp_path / "kit")
    monkeypatch.setattr(ict_facekit, "PARTS", written.parts)
    monkeypatch.setattr(ict_facekit, "NARROW_FACE", written.narrow)
    return written


@pytest.fixture
def head(mini, tmp_path):
    return HeadModel(load_ict_facekit(tmp_path / "kit"))


def kept(mini):
    """The files' vertices that the head keeps, in order."""
    return np.unique(np.concatenate([mini.part_vertices[name] for name in mini.parts]))


def posed(head, jaw=0.0, **expression):
    parameters = head.mean_parameters()
    parameters.pose[:, 3] = jaw
    for name, value in expression.items():
        parameters.expression[:, head.expression_names.index(name)] = value
    return head(parameters).vertices[0].numpy()


def test_the_neutral_mesh_is_the_files_in_meters_without_the_irises(mini, head):
    assert len(kept(mini)) == len(mini.neutral) - 16
    np.testing.assert_allclose(head.v_template, mini.neutral[kept(mini)] / 100, atol=1e-6)
    polygons = [p for start, stop in mini.parts.values() for p in mini.polygons[start:stop]]
    assert len(head.triangles) == sum(len(polygon) - 2 for polygon in polygons)
    files = kept(mini)[head.triangles.numpy()]
    assert files[0].tolist() == mini.polygons[0]
    quad = mini.polygons[mini.parts["gums"][0]]
    row = sum(len(p) - 2 for p in mini.polygons[: mini.parts["gums"][0]])
    assert files[row].tolist() == [quad[0], quad[1], quad[2]]
    assert files[row + 1].tolist() == [quad[0], quad[2], quad[3]]


@pytest.mark.parametrize("name", ["identity000", "identity001"])
def test_an_identity_coefficient_of_one_is_the_identitys_file(mini, head, name):
    parameters = head.mean_parameters()
    parameters.shape[:, head.shape_names.index(name)] = 1
    np.testing.assert_allclose(head(parameters).vertices[0], mini.shapes[name][kept(mini)] / 100, atol=1e-6)


def test_an_expression_of_one_is_its_file(mini, head):
    assert head.expression_names == NAMES  # and not the shape that vertex_indices.json does not list
    for name in ("browDown_L", "mouthSmile_L"):
        np.testing.assert_allclose(posed(head, **{name: 1.0}), mini.shapes[name][kept(mini)] / 100, atol=1e-6)


def test_jaw_joint_and_jaw_open_together_are_the_file(mini, head):
    angle = math.radians(float(head.data.metadata["jaw_open_degrees"]))
    assert angle == pytest.approx(ANGLE, abs=1e-4)
    opened = mini.shapes["jawOpen"][kept(mini)] / 100
    np.testing.assert_allclose(posed(head, angle, jawOpen=1.0), opened, atol=1e-4)
    # what is left for the expression is much smaller than the opening
    left = np.abs(posed(head, angle) - opened).max()
    assert 1e-3 < left < 0.5 * np.abs(opened - head.v_template.numpy()).max()
    closing = (mini.shapes["mouthClose"] - mini.neutral)[kept(mini)] / 100
    np.testing.assert_allclose(posed(head, angle, jawOpen=1.0, mouthClose=1.0), opened + closing, atol=1e-4)


def test_joints_of_jaw_and_eyes_are_those_of_the_meshes(mini, head):
    joints = head().joints[0].numpy() * 100
    np.testing.assert_allclose(joints[2], PIVOT, atol=1e-3)
    np.testing.assert_allclose(joints[3], EYE, atol=1e-4)
    np.testing.assert_allclose(joints[4], EYE * (-1, 1, 1), atol=1e-4)
    bigger = head.mean_parameters()
    bigger.shape[:, 0] = 1  # everything times 1.03: the joints too
    np.testing.assert_allclose(head(bigger).joints[0], joints * 0.0103, atol=1e-6)


def test_eyeballs_turn_about_their_centers_and_lower_teeth_with_the_jaw(mini, head):
    parameters = head.mean_parameters(eyes=True)
    parameters.eyes[:] = 0.3
    parameters.pose[:, 3] = 0.2
    vertices = head(parameters).vertices[0].numpy() * 100
    number = {name: np.searchsorted(kept(mini), ids) for name, ids in mini.part_vertices.items()}
    radius = np.linalg.norm(vertices[number["left_eyeball"]] - EYE, axis=1)
    np.testing.assert_allclose(radius, 1.5, atol=1e-3)
    upper, lower = (mini.neutral[mini.part_vertices[f"{row}_teeth"]] for row in ("upper", "lower"))
    np.testing.assert_allclose(vertices[number["upper_teeth"]], upper, atol=1e-4)
    sine, cosine = math.sin(0.2), math.cos(0.2)
    turned = (lower - PIVOT) @ np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]]) + PIVOT
    np.testing.assert_allclose(vertices[number["lower_teeth"]], turned, atol=2e-3)


def test_landmarks_are_the_toolkits_vertices(mini, head):
    np.testing.assert_allclose(head().landmarks[0], mini.neutral[mini.landmarks] / 100, atol=1e-6)


@pytest.mark.parametrize("degrees", [-35, 35])
def test_the_contour_of_a_turned_head_faces_the_camera(head, degrees):
    parameters = head.mean_parameters()
    parameters.pose[:, 1] = math.radians(degrees)
    output = head(parameters)
    away = slice(9, 17) if degrees > 0 else slice(0, 8)
    nearest = torch.cdist(output.landmarks[:, away], output.vertices).argmin(-1)[0]
    normals = vertex_normals(output.vertices, head.triangles)[0]
    fixed = nearest_of_frontal(head, away)
    assert (normals[fixed, 2] < -0.2).any()  # the frontal contour is hidden there
    assert (normals[nearest, 2] > -0.2).all()


def nearest_of_frontal(head, away):
    return torch.cdist(head().landmarks[:, away], head().vertices).argmin(-1)[0]


def test_a_ray_leaves_a_sphere_at_its_radius():
    from ict_files import _sphere

    points, faces = _sphere(np.zeros(3), rings=60, columns=60)
    corners = points[[[f[0], f[k], f[k + 1]] for f in faces for k in range(1, len(f) - 1)]]
    rays = np.random.default_rng(0).normal(size=(50, 3))
    index, weights = cast_rays(corners, np.array([0.2, 0.1, 0]), rays)
    found = (corners[index] * weights[..., None]).sum(1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.5, atol=0.01)
    np.testing.assert_allclose(np.cross(found - (0.2, 0.1, 0), rays), 0, atol=1e-9)
    outside, _ = cast_rays(corners, np.array([9.0, 0, 0]), np.array([[1.0, 0, 0]]))
    assert outside.tolist() == [-1]


def test_measures_of_the_rig():
    random = np.random.default_rng(0)
    points = random.normal(size=(20, 3))
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    found, shift = rigid_motion(points, points @ rotation.T + (1, 2, 3))
    np.testing.assert_allclose(found, rotation, atol=1e-12)
    np.testing.assert_allclose(shift, (1, 2, 3), atol=1e-12)
    on_sphere = points / np.linalg.norm(points, axis=1, keepdims=True) * 2 + (4, 5, 6)
    np.testing.assert_allclose(sphere_center(on_sphere), (4, 5, 6), atol=1e-12)
    weights = affine_weights(points, np.array([0.1, 0.2, 5.0]))
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights @ points, (0.1, 0.2, 5.0), atol=1e-12)


def test_every_part_has_its_own_cell_of_the_texture(mini, head):
    data, first = head.data, 0
    for name, (start, stop) in mini.parts.items():
        rows = slice(first, first + sum(len(p) - 2 for p in mini.polygons[start:stop]))
        first = rows.stop
        left, bottom, side = CELLS[name][1]
        corners = data.uv[data.uv_triangles[rows]]
        assert (corners >= (left, bottom)).all() and (corners <= (left + side, bottom + side)).all(), name
    boxes = sorted({cell for _, cell in CELLS.values()})
    for k, (x, y, s) in enumerate(boxes):
        assert 0 <= x <= 1 - s and 0 <= y <= 1 - s
        assert all(
            x + s <= x2 or x2 + s2 <= x or y + s <= y2 or y2 + s2 <= y for x2, y2, s2 in boxes[k + 1 :]
        )


def test_the_texture_shows_pupils_and_teeth(mini, head):
    def color(vertex):
        row, corner = np.argwhere(kept(mini)[head.triangles.numpy()] == vertex)[0]
        u, v = head.data.uv[head.data.uv_triangles[row, corner]]
        size = len(head.data.texture_mean)
        return head.data.texture_mean[int((1 - v) * size), int(u * size)] * 255

    for side in ("left", "right"):
        np.testing.assert_allclose(color(mini.part_vertices[f"{side}_eyeball"].max()), PUPIL, atol=2)
    np.testing.assert_allclose(color(mini.part_vertices["lower_teeth"][0]), TOOTH, atol=2)


def test_regions_name_face_eyes_and_mouth(mini, head):
    number = {name: np.searchsorted(kept(mini), ids) for name, ids in mini.part_vertices.items()}
    regions = {name: set(np.flatnonzero(mask)) for name, mask in head.data.regions.items()}
    assert regions["left_eyeball"] == set(number["left_eyeball"])
    assert regions["teeth"] == {*number["upper_teeth"], *number["lower_teeth"]}
    assert regions["face"] < set(number["face"]) and not regions["face"] & regions["eyes"]
    assert 20 < head.skin_triangles.sum() < mini.parts["face"][1]


def test_the_recipe_writes_a_file_with_license_and_says_what_it_made(mini, tmp_path, capsys):
    out = tmp_path / "head.safetensors"
    assert run(import_head, ["ict-facekit", str(tmp_path / "kit"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{len(kept(mini))} vertices" in said and "2 identity and 4 expression" in said
    assert "USC Institute for Creative Technologies" in said
    metadata = HeadModel.load(out).data.metadata
    assert metadata["licence"] == NOTICE and "ICT-FaceKit" in metadata["source"]
    assert str(tmp_path) not in str(metadata)


def test_the_inner_folder_does_as_well(mini, tmp_path):
    assert load_ict_facekit(tmp_path / "kit" / "FaceXModel").metadata["licence"] == NOTICE


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "generic_neutral_mesh.obj").unlink(), "has no generic_neutral_mesh.obj"),
        (lambda m: (m / "jawOpen.obj").unlink(), "jawOpen.obj does not exist"),
        (lambda m: [p.unlink() for p in m.glob("identity*")], "no identity000.obj"),
        (lambda m: (m / "jawOpen.obj").write_text("v 1 2 3\n"), "jawOpen.obj does not hold .* it has 1"),
        (lambda m: (m / "identity001.obj").write_text("v 1 x 3\n"), "identity001.obj is not an OBJ"),
        (lambda m: (m / "vertex_indices.json").write_text("{}"), "not ICT-FaceKit's table"),
        (lambda m: edit(m, expressions=["../../etc/passwd", "jawOpen"]), "plain names"),
        (lambda m: edit(m, expressions=["browDown_L"]), "plain names with jawOpen"),
        (lambda m: edit(m, idx_to_landmark_verts=[10**9] * 68), "must hold 68 vertices"),
        (lambda m: edit(m, idx_to_landmark_verts=[600] * 68), "68 vertices of the face"),  # in the mouth
        (lambda m: shorten(m / "generic_neutral_mesh.obj"), "not the neutral mesh .* polygons instead"),
        (lambda m: (m / "identity000.obj").write_text("version https://git-lfs.github.com"), "it has 0"),
    ],
)
def test_damaged_folders_are_named_and_leave_no_file(mini, tmp_path, capsys, damage, message):
    damage(tmp_path / "kit" / "FaceXModel")
    with pytest.raises(HeadFileError, match=message):
        load_ict_facekit(tmp_path / "kit")
    out = tmp_path / "out" / "head.npz"
    assert run(import_head, ["ict-facekit", str(tmp_path / "kit"), "--out", str(out)]) == 1
    assert "error: " in capsys.readouterr().err
    assert not out.parent.exists()


def edit(model, **changes):
    path = model / "vertex_indices.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shorten(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-60]))


def test_huge_files_are_refused_unread(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(ict_facekit, "MAX_BYTES", 100)
    with pytest.raises(HeadFileError, match="larger than 100 bytes"):
        load_ict_facekit(tmp_path / "kit")

"""The head model against FLAME's formula in plain numpy, its invariances, its gradients and its albedo."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from small_head import small_head, small_head_data

from facegpt.head.files.format import HeadData, save_head
from facegpt.head.model import PLAIN_SKIN, HeadModel
from facegpt.head.parameters import FaceParameters


def random_parameters(head, batch, seed=0, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def normal(size, factor):
        return (torch.randn(batch, size, generator=generator) * factor * scale).to(dtype)

    layout = head.layout
    camera, lighting = head.mean_parameters(batch).camera.to(dtype), normal(27, 1.0)
    return FaceParameters(
        shape=normal(layout.shape, 1.0),
        expression=normal(layout.expression, 1.0),
        pose=normal(6, 0.4),
        albedo=normal(layout.albedo, 1.0),
        lighting=lighting,
        camera=camera,
        neck=normal(3, 0.3),
        eyes=normal(6, 0.2),
    )


def reference(data, parameters, b):
    """Vertices and joints of face b by Li et al. 2017, equations 1-4: one vertex and one joint at a time."""
    part = {name: getattr(parameters, name)[b].double().numpy() for name in parameters.layout.sizes}
    shaped = data.v_template.astype(float)
    for k, value in enumerate(part["shape"]):
        shaped = shaped + value * data.shape_basis[:, :, k].astype(float)
    for k, value in enumerate(part["expression"]):
        shaped = shaped + value * data.expression_basis[:, :, k].astype(float)
    joints = data.joint_regressor.astype(float) @ shaped
    angles = [part["pose"][:3], part["neck"], part["pose"][3:], part["eyes"][:3], part["eyes"][3:]]
    rotations = [scipy.linalg.expm(np.cross(np.eye(3), angle)) for angle in angles]
    posed = shaped
    if data.pose_basis is not None:
        feature = np.concatenate([(rotation - np.eye(3)).reshape(9) for rotation in rotations[1:]])
        posed = shaped + data.pose_basis.astype(float) @ feature
    world = []
    for j, parent in enumerate(data.parents):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        local[:3, 3] = joints[j] - (joints[parent] if j else 0)
        world.append(world[parent] @ local if j else local)
    vertices = np.zeros_like(posed)
    for v, vertex in enumerate(posed):
        for j in range(len(world)):
            turned = world[j][:3, :3] @ (vertex - joints[j]) + world[j][:3, 3]
            vertices[v] += data.skinning_weights[v, j] * turned
    return vertices, np.array([matrix[:3, 3] for matrix in world])


@pytest.mark.parametrize("correctives", [True, False])
def test_vertices_and_joints_follow_the_formula(correctives):
    data = small_head_data()
    data = data if correctives else replace(data, pose_basis=None)
    head = HeadModel(data)
    parameters = random_parameters(head, 2)
    output = head(parameters)
    for b in range(2):
        vertices, joints = reference(data, parameters, b)
        np.testing.assert_allclose(output.vertices[b], vertices, atol=1e-6)  # a micrometre
        np.testing.assert_allclose(output.joints[b], joints, atol=1e-6)


def test_the_head_called_with_nothing_is_its_mean():
    data, output = small_head_data(), small_head()()
    np.testing.assert_allclose(output.vertices[0], data.v_template, atol=1e-7)
    assert output.landmarks.shape == (1, 68, 3) and output.joints.shape == (1, 5, 3)


def test_missing_neck_and_eyes_are_zero():
    head = small_head()
    parameters = random_parameters(head, 2).replace(neck=None, eyes=None)
    zero = parameters.replace(neck=torch.zeros(2, 3), eyes=torch.zeros(2, 6))
    torch.testing.assert_close(head(parameters).vertices, head(zero).vertices, atol=0, rtol=0)


def test_each_joint_moves_only_what_it_carries():
    data = replace(small_head_data(), pose_basis=None)
    head = HeadModel(data)
    for name, columns, joint in (("pose", [3, 4, 5], 2), ("eyes", [0, 1, 2], 3), ("eyes", [3, 4, 5], 4)):
        parameters = head.mean_parameters(neck=True, eyes=True)
        getattr(parameters, name)[:, columns] = 0.3
        moved = (head(parameters).vertices[0] - head.v_template).norm(dim=1).numpy()
        carried = data.skinning_weights[:, joint]
        assert moved[carried > 0.5].max() > 1e-3
        assert moved[carried < 1e-6].max() < 1e-7


def test_a_face_does_not_depend_on_the_batch_it_is_in():
    head = small_head()
    parameters = random_parameters(head, 9)
    together = head(parameters)
    for b in (0, 4, 8):
        alone = head(parameters[b])
        for name in ("vertices", "landmarks", "joints"):
            torch.testing.assert_close(getattr(together, name)[b], getattr(alone, name)[0], atol=1e-6, rtol=0)


def test_the_root_rotation_is_rigid_about_the_root_joint():
    head = small_head().double()
    parameters = random_parameters(head, 1, dtype=torch.float64)
    before = head(parameters.replace(pose=parameters.pose * torch.tensor([0.0, 0, 0, 1, 1, 1])))
    after = head(parameters)
    rotation = torch.from_numpy(scipy.linalg.expm(np.cross(np.eye(3), parameters.pose[0, :3].numpy())))
    root = before.joints[:, :1]
    turned = (before.vertices - root) @ rotation.T + root
    # 1e-8: the skinning weights of the file are float32, their sums 1 within 6e-8
    torch.testing.assert_close(after.vertices, turned, atol=1e-8, rtol=0)
    torch.testing.assert_close(after.joints, (before.joints - root) @ rotation.T + root, atol=1e-8, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])  # 5: rotations beyond pi
def test_gradients_agree_with_finite_differences(scale):
    head = small_head().double()
    parameters = random_parameters(head, 1, scale=scale, dtype=torch.float64)
    layout = parameters.layout
    vector = parameters.to_vector().requires_grad_()
    projection = torch.randn(68 * 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def some_numbers(vector):
        output = head(FaceParameters.from_vector(vector, layout))
        return (output.landmarks.flatten(1) @ projection) + output.vertices[:, ::60].sum((1, 2))[:, None]

    assert torch.autograd.gradcheck(some_numbers, vector)


def test_every_pose_number_has_a_gradient_at_zero_pose():
    head = small_head()
    parameters = head.mean_parameters(neck=True, eyes=True)
    for group in (parameters.pose, parameters.neck, parameters.eyes):
        group.requires_grad_()
    weights = torch.randn(1, 306, 3, generator=torch.Generator().manual_seed(0))
    (head(parameters).vertices * weights).sum().backward()
    for group in (parameters.pose, parameters.neck, parameters.eyes):
        assert group.grad.isfinite().all() and (group.grad.abs() > 1e-6).all()


@pytest.mark.parametrize("joints", [1, 3, 7])
def test_joint_count_is_free(joints):
    data = small_head_data()
    weights = np.zeros((306, joints))
    weights[:, min(1, joints - 1)] = 1
    data = replace(
        data,
        joint_regressor=np.full((joints, 306), 1 / 306),
        parents=np.array([-1, 0, 1, 1, 1, 4, 5])[:joints],
        skinning_weights=weights,
        pose_basis=None,
    )
    head = HeadModel(data)
    output = head(random_parameters(head, 2))
    assert output.joints.shape == (2, joints, 3)
    assert output.vertices.isfinite().all()


def test_zero_correctives_are_skipped():
    data = small_head_data()
    with_them, zero = HeadModel(data), HeadModel(replace(data, pose_basis=np.zeros_like(data.pose_basis)))
    assert with_them.basis.shape == (3 * 306, 6 + 4 + 36)  # 9 numbers for each of the four turning joints
    assert zero.basis.shape == (3 * 306, 6 + 4)


def test_coefficients_of_another_head_are_refused_in_a_sentence():
    head = small_head()
    with pytest.raises(ValueError, match="takes 6 shape, 4 expression and 3 albedo"):
        head(head.mean_parameters().replace(shape=torch.zeros(1, 5)))


def test_nothing_of_the_head_enters_a_checkpoint():
    assert small_head().state_dict() == {}
    assert list(small_head().parameters()) == []


def test_autocast_does_not_reduce_the_precision_of_geometry():
    head = small_head()
    parameters = random_parameters(head, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, texture = head(parameters), head.albedo(parameters.albedo)
    torch.testing.assert_close(output.vertices, head(parameters).vertices, atol=0, rtol=0)
    torch.testing.assert_close(texture, head.albedo(parameters.albedo), atol=0, rtol=0)


def test_the_default_camera_lets_the_landmarks_span_60_percent_of_the_height_around_the_center():
    head = small_head()
    scale, tx, ty = head.default_camera
    points = head().landmarks[0, :, :2]
    image = scale * (points + torch.tensor([tx, ty]))  # DECA's camera, image from -1 to 1
    low, high = image.amin(0), image.amax(0)
    torch.testing.assert_close(low + high, torch.zeros(2), atol=1e-5, rtol=0)
    assert (high - low)[1].item() == pytest.approx(0.6 * 2, abs=1e-5)
    torch.testing.assert_close(head.mean_parameters(3).camera, torch.tensor([[scale, tx, ty]] * 3))


def test_mean_parameters_have_the_asked_groups():
    head = small_head()
    assert head.mean_parameters(2).layout == head.layout
    parameters = head.mean_parameters(2, neck=True, eyes=True)
    assert parameters.neck.shape == (2, 3) and parameters.eyes.shape == (2, 6)
    assert small_head().double().mean_parameters().shape.dtype == torch.float64


def test_texture_is_mean_plus_basis_times_coefficients():
    data, head = small_head_data(), small_head()
    coefficients = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.0, 0.0]])
    expected = data.texture_mean + data.texture_basis @ coefficients[0].numpy()
    mesh = head.mesh(head.mean_parameters(2).replace(albedo=coefficients))
    np.testing.assert_allclose(mesh.texture[0], expected, atol=1e-6)
    np.testing.assert_allclose(mesh.texture[1], data.texture_mean, atol=1e-6)
    assert mesh.colors is None and mesh.uv.shape[1] == 2 and len(mesh.uv_triangles) == len(mesh.triangles)
    torch.testing.assert_close(mesh.vertices, head(head.mean_parameters(2)).vertices)


def test_clamped_texels_can_come_back_but_not_run_away():
    head = small_head()
    coefficients = torch.tensor([[20.0, 0.0, 0.0]], requires_grad=True)  # component 1 brightens everything
    texture = head.albedo(coefficients)
    assert texture.min() >= 0 and texture.max() == 1 and (texture == 1).float().mean() > 0.9
    (darker,) = torch.autograd.grad(texture.sum(), coefficients, retain_graph=True)
    assert darker[0, 0] > 1  # descending on the sum makes the saturated face darker
    (brighter,) = torch.autograd.grad(-texture[texture == 1].sum(), coefficients)
    assert (brighter == 0).all()  # and nothing pushes it further out


def test_albedo_gradient_is_exact_inside_the_range():
    head = small_head().double()
    coefficients = torch.tensor([[0.2, -0.3, 0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: head.albedo(c)[:, ::7, ::7], coefficients)


def test_a_head_without_texture_is_plain():
    head = HeadModel(replace(small_head_data(), texture_mean=None, texture_basis=None, albedo_names=[]))
    assert head.layout.albedo == 0
    mesh = head.mesh(head.mean_parameters(2))
    assert mesh.texture is None
    torch.testing.assert_close(mesh.colors[1, 7], torch.tensor(PLAIN_SKIN))


def test_a_texture_without_basis_is_constant():
    head = HeadModel(replace(small_head_data(), texture_basis=None, albedo_names=[]))
    mesh = head.mesh(head.mean_parameters(2))
    assert mesh.texture.shape == (2, 32, 32, 3)


def test_a_head_without_landmark_embedding_has_none():
    nothing = dict.fromkeys(
        ["landmark_triangles", "landmark_barycentric", "contour_triangles", "contour_barycentric"]
    )
    head = HeadModel(replace(small_head_data(), **nothing))
    assert head().landmarks.shape == (1, 0, 3)
    assert np.isfinite(head.default_camera).all()


def test_skin_triangles_lie_in_the_face_and_outside_eyes():
    data, head = small_head_data(), small_head()
    skin = data.triangles[head.skin_triangles.numpy()]
    assert 50 < len(skin) < len(data.triangles) / 2
    assert data.regions["face"][skin].all() and not data.regions["eyes"][skin].any()
    touching = data.regions["eyes"][data.triangles].any(1)
    assert not head.skin_triangles.numpy()[touching].any()


def test_every_triangle_is_skin_where_regions_are_unknown():
    assert HeadModel(replace(small_head_data(), regions={})).skin_triangles.all()


def test_regions_and_names_are_those_of_the_file():
    data, head = small_head_data(), small_head()
    assert list(head.regions) == list(data.regions)
    np.testing.assert_array_equal(head.regions["nose"], data.regions["nose"])
    assert head.expression_names == ["smile", "frown", "open", "pout"]


def tiny_head(**changes):
    """A head of one triangle and one joint, with nothing that is optional."""
    arrays = {
        "v_template": np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0.0]]),
        "triangles": np.array([[0, 1, 2]]),
        "shape_basis": np.full((3, 3, 2), 0.01),
        "expression_basis": np.zeros((3, 3, 1)),
        "joint_regressor": np.full((1, 3), 1 / 3),
        "parents": np.array([-1]),
        "skinning_weights": np.ones((3, 1)),
    }
    return HeadData(**(arrays | changes))


ONE = {
    "v_template": np.zeros((1, 3)),
    "triangles": np.zeros((0, 3)),
    "shape_basis": np.zeros((1, 3, 2)),
    "expression_basis": np.zeros((1, 3, 1)),
    "joint_regressor": np.ones((1, 1)),
    "skinning_weights": np.ones((1, 1)),
}
ODD_HEADS = {
    "one vertex": ONE,
    "flat": {"v_template": np.array([[0, 0.02, 0], [0.1, 0.02, 0], [0.05, 0.02, 0.1]])},
    "coincident vertices": {"v_template": np.full((3, 3), 0.03)},
    "no triangles": {"triangles": np.zeros((0, 3))},
    "no components": {"shape_basis": np.zeros((3, 3, 0)), "expression_basis": np.zeros((3, 3, 0))},
}


@pytest.mark.parametrize("name", ODD_HEADS)
def test_a_head_with_hardly_anything_in_it_works(name, tmp_path):
    data = tiny_head(**ODD_HEADS[name])
    save_head(data, tmp_path / "odd.npz")
    head = HeadModel.load(tmp_path / "odd.npz")
    output = head()
    torch.testing.assert_close(output.vertices[0], head.v_template)
    assert output.landmarks.shape == (1, 0, 3)
    assert all(np.isfinite(head.default_camera)) and 0 < head.default_camera[0] < 1e7


@pytest.mark.parametrize("data", [small_head_data(), tiny_head()])
def test_no_faces_give_no_vertices(data):
    head = HeadModel(data)
    none = head.mean_parameters(0)
    none.shape.requires_grad_()
    output = head(none)
    assert output.vertices.shape == (0, len(data.v_template), 3)
    assert output.landmarks.shape == (0, 68 if head.has_landmarks else 0, 3)
    assert output.joints.shape == (0, len(data.parents), 3)
    output.vertices.sum().backward()
    assert none.shape.grad.shape == none.shape.shape
    assert len(head.mesh(none, output)) == 0


def test_a_head_says_what_its_file_lacks():
    head = small_head()
    assert head.has_landmarks and head.has_skin_mask and head.has_texture
    bare = HeadModel(tiny_head())
    assert not (bare.has_landmarks or bare.has_skin_mask or bare.has_texture)

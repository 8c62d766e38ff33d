"""Faces of one head as faces of another: exact where the heads can say the same, near where they cannot."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_head import small_head, small_head_data

from facegpt.errors import HeadMismatchError
from facegpt.fitting.transfer import correspond, same_topology, transfer
from facegpt.head.model import HeadModel
from facegpt.head.nearest import nearest_points
from facegpt.render.camera import project


def mixed_head():
    """The small head with its components rotated into each other and another mean: another version of it."""
    data = small_head_data()
    random = np.random.default_rng(0)
    turn = np.linalg.qr(random.normal(size=(6, 6)))[0]
    moved = data.v_template + data.shape_basis @ random.normal(size=6)
    return HeadModel(replace(data, v_template=moved, shape_basis=data.shape_basis @ turn))


def finer_head():
    """The small head with every triangle cut into four: another topology of nearly the same surface."""
    data = small_head_data()
    edges = np.sort(data.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, index = np.unique(edges, axis=0, return_inverse=True)
    middle = index.reshape(-1, 3) + len(data.v_template)
    a, b, c = data.triangles.T
    ab, bc, ca = middle.T
    rows = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    triangles = np.concatenate([np.stack(row, 1) for row in rows])

    def refine(array):
        return np.concatenate([array, (array[unique[:, 0]] + array[unique[:, 1]]) / 2])

    # a landmark lies in one of the four: the one whose corners give it with weights of 0 or more
    def place(index, weights):
        points = (data.v_template[data.triangles[index]] * weights[..., None]).sum(-2).reshape(-1, 3)
        row, bary, _ = nearest_points(refine(data.v_template)[triangles].astype(float), points)
        return row.reshape(index.shape), bary.reshape(weights.shape)

    landmarks = place(data.landmark_triangles, data.landmark_barycentric)
    contour = place(data.contour_triangles, data.contour_barycentric)
    regressor = np.concatenate([data.joint_regressor, np.zeros((5, len(unique)))], 1)
    return HeadModel(
        replace(
            data,
            v_template=refine(data.v_template) + np.array([0, 0.03, 0.01]),  # in a frame of its own
            triangles=triangles,
            shape_basis=refine(data.shape_basis),
            expression_basis=refine(data.expression_basis),
            pose_basis=refine(data.pose_basis),
            skinning_weights=refine(data.skinning_weights),
            joint_regressor=regressor,
            uv=None,
            uv_triangles=None,
            texture_mean=None,
            texture_basis=None,
            albedo_names=[],
            landmark_triangles=landmarks[0],
            landmark_barycentric=landmarks[1],
            contour_triangles=contour[0],
            contour_barycentric=contour[1],
            regions={name: refine(mask.astype(float)) == 1 for name, mask in data.regions.items()},
        )
    )


def some_faces(head, batch=2, **groups):
    generator = torch.Generator().manual_seed(0)
    mean = head.mean_parameters(batch, **dict.fromkeys(groups.get("extra", ()), True))
    scales = {"shape": 1.0, "expression": 0.7, "albedo": 1.0, "pose": 0.2, "neck": 0.2, "eyes": 0.2}
    return mean.replace(
        **{
            name: torch.randn(batch, size, generator=generator) * scales[name]
            for name, size in mean.layout.sizes.items()
            if name in scales
        }
    )


def test_another_version_of_a_head_takes_every_vertex_over():
    source, target = small_head(), mixed_head()
    faces = some_faces(source, extra=("neck", "eyes"))
    solution = transfer(faces, source, target)
    assert same_topology(source, target) and solution.residual.max() < 1e-3
    moved = target(solution.parameters).vertices + solution.translation[:, None].float()
    torch.testing.assert_close(moved, source(faces).vertices, atol=2e-6, rtol=0)
    for name in ("albedo", "lighting"):  # one albedo model
        torch.testing.assert_close(getattr(solution.parameters, name), getattr(faces, name))
    assert (solution.parameters.shape - faces.shape).abs().max() > 0.1  # the numbers are others


def test_another_topology_lands_on_the_same_face_and_in_the_same_place_of_the_picture():
    source, target = small_head(), finer_head()
    faces = some_faces(source)
    assert not same_topology(source, target)
    solution = transfer(faces, source, target, prior=0.001)
    assert solution.residual.max() < 0.5  # mm
    # skinning the middle of an edge is not the middle of its skinned ends, hence not zero
    before = project(source(faces).landmarks, faces.camera, 224, 224)[..., :2]
    after = project(target(solution.parameters).landmarks, solution.parameters.camera, 224, 224)[..., :2]
    gap = (before - after).norm(dim=-1)  # pixels, here of about a millimetre
    assert gap[:, 27:36].max() < 0.6 and gap.median() < 0.3  # eyes and contour are outside what is compared
    assert solution.parameters.albedo.shape == (2, 0)


def test_correspondences_are_the_same_points_of_the_skin():
    source, target = small_head(), finer_head()
    match = correspond(source, target)
    skin = np.unique(target.triangles[target.skin_triangles].numpy())
    assert set(np.flatnonzero(match.weight)) <= set(skin) and (match.weight[skin] > 0).float().mean() > 0.95
    corners = source.v_template[source.triangles[match.triangle]]
    points = (corners * match.barycentric[..., None]).sum(1)
    gap = (points + torch.tensor([0, 0.03, 0.01]) - target.v_template).norm(dim=1)[match.weight > 0]
    assert gap.max() < 5e-4


def test_the_neck_becomes_part_of_the_heads_rotation_and_eyes_stay():
    source, target = small_head(), finer_head()
    faces = some_faces(source, 1, extra=("neck", "eyes"))
    faces.shape[:], faces.expression[:], faces.pose[:], faces.neck[:] = 0, 0, 0, torch.tensor([0, 0.2, 0])
    solution = transfer(faces, source, target)
    torch.testing.assert_close(solution.parameters.eyes, faces.eyes)
    assert (solution.parameters.neck == 0).all()
    assert solution.parameters.pose[0, 1].item() == pytest.approx(0.2, abs=0.02)


def test_heads_without_landmarks_cannot_be_compared():
    names = [f"{part}_{kind}" for part in ("landmark", "contour") for kind in ("triangles", "barycentric")]
    blind = HeadModel(replace(finer_head().data, **dict.fromkeys(names)))
    with pytest.raises(HeadMismatchError, match="one of them has none"):
        transfer(some_faces(small_head()), small_head(), blind)

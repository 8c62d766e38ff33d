"""Rotations against the matrix exponential, skinning against plain loops, gradients in float64."""

import numpy as np
import pytest
import torch

from facegpt.head.lbs import joint_transforms, linear_blend_skinning, rotation_matrices

PARENTS = [-1, 0, 1, 1, 1]


def skew(vector):
    x, y, z = vector.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=vector.dtype)


@pytest.mark.parametrize(
    "angle", [0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.4999, 0.5, 0.5001, 1.0, 3.0, np.pi, 4.0, 6.5]
)
def test_rotation_is_the_matrix_exponential_of_the_cross_product(angle):
    axis = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
    expected = torch.linalg.matrix_exp(skew(axis * angle))
    torch.testing.assert_close(rotation_matrices(axis * angle), expected, atol=1e-14, rtol=0)


def test_rotations_are_orthonormal_in_float32():
    vectors = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 2
    rotations = rotation_matrices(vectors)
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand(500, 3, 3), atol=2e-6, rtol=0)
    assert (torch.linalg.det(rotations) > 0).all()


def test_gradient_at_zero_pose_is_the_generators():
    jacobian = torch.autograd.functional.jacobian(rotation_matrices, torch.zeros(3))  # (3, 3, 3)
    for k in range(3):
        torch.testing.assert_close(jacobian[..., k], skew(torch.eye(3)[k]), atol=0, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.2, 0.49, 0.51, 3.1415, 5.0])
def test_rotation_passes_gradcheck_to_second_order(angle):
    direction = torch.tensor([[0.6, 0.0, -0.8], [0.0, 1.0, 0.0]], dtype=torch.float64)
    vectors = (direction * angle).requires_grad_()
    assert torch.autograd.gradcheck(rotation_matrices, vectors)
    assert torch.autograd.gradgradcheck(rotation_matrices, vectors)


def random_pose(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angles = torch.randn(batch, 5, 3, generator=generator, dtype=torch.float64)
    joints = torch.randn(batch, 5, 3, generator=generator, dtype=torch.float64)
    vertices = torch.randn(batch, 12, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(12, 5, generator=generator, dtype=torch.float64)
    return angles, joints, vertices, weights / weights.sum(1, keepdim=True)


def test_skinning_equals_homogeneous_matrices_multiplied_joint_by_joint():
    angles, joints, vertices, weights = random_pose(batch=3)
    rotations, translations, posed = joint_transforms(rotation_matrices(angles), joints, PARENTS)
    skinned = linear_blend_skinning(vertices.mT, weights.mT, rotations, translations)
    for b in range(3):
        world = []
        for j, parent in enumerate(PARENTS):
            around = np.eye(4)  # a turn about the joint's rest position, as 4x4
            around[:3, :3] = torch.linalg.matrix_exp(skew(angles[b, j]))
            there, back = np.eye(4), np.eye(4)
            there[:3, 3], back[:3, 3] = joints[b, j], -joints[b, j]
            local = there @ around @ back
            world.append(local if parent < 0 else world[parent] @ local)
        for j in range(5):
            np.testing.assert_allclose((world[j] @ [*joints[b, j], 1])[:3], posed[b, j], atol=1e-12)
        for v in range(12):
            point = np.zeros(4)
            for j in range(5):
                point += float(weights[v, j]) * (world[j] @ [*vertices[b, v], 1])
            np.testing.assert_allclose(skinned[b, v], point[:3], atol=1e-12)


def test_no_rotation_moves_nothing():
    _, joints, vertices, weights = random_pose(batch=2)
    rotations, translations, posed = joint_transforms(
        rotation_matrices(torch.zeros_like(joints)), joints, PARENTS
    )
    torch.testing.assert_close(
        linear_blend_skinning(vertices.mT, weights.mT, rotations, translations), vertices
    )
    torch.testing.assert_close(posed, joints)

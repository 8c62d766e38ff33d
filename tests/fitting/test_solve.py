"""Solving for parameters undoes the head model."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_head import small_head, small_head_data

from facegpt.fitting.solve import axis_angle, solve
from facegpt.head.model import HeadModel


def random_face(head, batch, seed=0, neck=False, eyes=False, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    mean = head.mean_parameters(batch, neck, eyes)
    scale = {"shape": spread, "expression": spread, "pose": 0.3, "neck": 0.2, "eyes": 0.2}
    groups = {
        name: torch.randn(batch, size, generator=generator).to(mean.shape.dtype) * scale[name]
        for name, size in mean.layout.sizes.items()
        if name in scale
    }
    return mean.replace(**groups)


@pytest.mark.parametrize("full", [False, True])
def test_the_small_head_gives_its_parameters_back(full):
    head = small_head().double()
    face = random_face(head, 3, neck=full, eyes=full)
    solution = solve(head, head(face).vertices, neck=full, eyes=full)
    assert solution.residual.shape == (3,) and solution.residual.max() < 1e-3  # mm
    assert solution.distances.shape == (3, 306) and solution.distances.max() < 1e-3
    for name in ("shape", "expression", "pose", *(["neck", "eyes"] if full else [])):
        torch.testing.assert_close(
            getattr(solution.parameters, name), getattr(face, name), atol=1e-4, rtol=0, msg=name
        )
    assert (solution.translation == 0).all()


def test_float32_vertices_of_a_float32_head_come_back_within_a_micrometer():
    head = small_head()
    solution = solve(head, head(random_face(head, 2)).vertices)
    assert solution.parameters.shape.dtype == torch.float32 and solution.residual.max() < 1e-3
    again = head(solution.parameters).vertices - head(random_face(head, 2)).vertices
    assert again.abs().max() < 2e-6
    assert head.v_template.dtype == torch.float32  # the head stays as it was


def test_the_built_in_head_gives_its_vertices_back():
    head = HeadModel.builtin()
    face = random_face(head, 1, spread=0.7)
    solution = solve(head, head(face).vertices)
    assert solution.residual.item() < 1e-3
    torch.testing.assert_close(solution.parameters.pose, face.pose, atol=1e-3, rtol=0)


@pytest.mark.parametrize("degrees", [90, 179])
def test_a_head_turned_away_is_found(degrees):
    head = small_head().double()
    face = random_face(head, 1)
    face.pose[:, :3] = torch.tensor([0.1, math.radians(degrees), 0.05])
    assert solve(head, head(face).vertices).residual.item() < 1e-3


def test_a_moved_head_needs_a_translation():
    head = small_head().double()
    face = random_face(head, 2)
    shift = torch.tensor([[0.3, -0.2, 1.0], [0.0, 0.1, 0.0]], dtype=torch.float64)
    moved = head(face).vertices + shift[:, None]
    solution = solve(head, moved, translation=True)
    assert solution.residual.max() < 1e-3
    torch.testing.assert_close(solution.translation, shift, atol=1e-5, rtol=0)
    assert solve(head, moved[1:]).residual.item() > 1


def test_the_residual_is_the_root_mean_square_distance_in_millimeters():
    # a head without components cannot follow an outward shift of every vertex by 2 mm
    data = small_head_data()
    nothing = np.zeros((306, 3, 1))
    names = {"shape_names": ["none"], "expression_names": ["none"]}
    head = HeadModel(
        replace(data, shape_basis=nothing, expression_basis=nothing, pose_basis=None, **names)
    ).double()
    normals = torch.nn.functional.normalize(head.v_template, dim=1)
    solution = solve(head, head.v_template + 0.002 * normals)
    assert solution.residual.item() == pytest.approx(2, rel=0.02)
    found = (head(solution.parameters).vertices[0] - head.v_template - 0.002 * normals).norm(dim=1) * 1000
    torch.testing.assert_close(solution.distances[0], found)
    assert solution.residual.item() == pytest.approx(found.square().mean().sqrt().item())


def test_vertices_without_weight_do_not_matter():
    head = small_head().double()
    face = random_face(head, 1)
    vertices = head(face).vertices
    vertices[:, ::3] += 0.05
    weights = torch.ones(306)
    weights[::3] = 0
    solution = solve(head, vertices, weights=weights)
    assert solution.residual.item() < 1e-3
    torch.testing.assert_close(solution.parameters.shape, face.shape, atol=1e-4, rtol=0)


def test_a_prior_trades_distance_for_small_coefficients():
    head = small_head().double()
    noisy = head(random_face(head, 1)).vertices
    free, bound = solve(head, noisy), solve(head, noisy, prior=1.0)
    assert bound.parameters.shape.norm() < 0.9 * free.parameters.shape.norm()
    assert bound.residual.item() > 10 * free.residual.item()

    def objective(parameters):
        distance = (head(parameters).vertices - noisy).square().sum(-1).mean() * 1e6
        return distance + parameters.shape.square().sum() + parameters.expression.square().sum()

    parameters = bound.parameters
    groups = [parameters.shape, parameters.expression, parameters.pose]
    for group in groups:
        group.requires_grad_()
    for slope in torch.autograd.grad(objective(parameters), groups):  # a minimum of what it says it minimises
        assert slope.abs().max() < 1e-2


def test_a_component_that_moves_nothing_stays_zero():
    data = small_head_data()
    basis = data.shape_basis.copy()
    basis[..., 2] = 0
    head = HeadModel(replace(data, shape_basis=basis)).double()
    solution = solve(head, head(random_face(head, 1)).vertices)
    assert solution.residual.item() < 1e-3 and abs(solution.parameters.shape[0, 2]) < 1e-6


def test_each_face_is_solved_alone():
    head = small_head().double()
    vertices = head(random_face(head, 3)).vertices + 0.001 * torch.randn(
        3, 306, 3, generator=torch.Generator().manual_seed(0)
    )
    together, alone = solve(head, vertices), solve(head, vertices[1])
    torch.testing.assert_close(together.parameters.to_vector()[1:2], alone.parameters.to_vector())
    assert len(solve(head, vertices[:0]).parameters) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:100], "this head has 306 vertices"),
        (lambda v: v[..., :2], "this head has 306 vertices"),
        (lambda v: v * math.nan, "not finite"),
    ],
)
def test_other_vertices_are_refused(change, message):
    head = small_head()
    with pytest.raises(ValueError, match=message):
        solve(head, change(head.v_template.clone()))


@pytest.mark.parametrize("weights", [torch.zeros(306), -torch.ones(306), torch.ones(5)])
def test_weights_that_say_nothing_are_refused(weights):
    head = small_head()
    with pytest.raises(ValueError, match="weights"):
        solve(head, head.v_template, weights=weights)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, 2.0, 3.1, math.pi])
def testaxis_angle_of_a_rotation(angle):
    for axis in ([1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.48, -0.6, 0.64]):
        rotation = Rotation.from_rotvec(np.array(axis) * angle).as_matrix()
        found = axis_angle(torch.from_numpy(rotation)).numpy()
        np.testing.assert_allclose(Rotation.from_rotvec(found).as_matrix(), rotation, atol=1e-12)
        assert np.linalg.norm(found) == pytest.approx(angle, abs=1e-12)

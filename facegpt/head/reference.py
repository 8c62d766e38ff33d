"""A head as it is usually written in PyTorch, to compare values, gradients and speed with.

One einsum per basis, the joints regressed from all vertices, 4x4 matrices chained joint by joint, and
homogeneous vertices. It shares no code with `facegpt.head` beyond the arrays of the head file.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facegpt.head.files.format import HeadData
from facegpt.head.parameters import FaceParameters


class ReferenceHead:
    """Vertices (B,V,3) and joints (B,J,3) of face parameters."""

    def __init__(self, data: HeadData, dtype: torch.dtype = torch.float32) -> None:
        def tensor(array):
            return torch.tensor(array).to(dtype)

        self.template = tensor(data.v_template)
        self.shape_basis, self.expression_basis = tensor(data.shape_basis), tensor(data.expression_basis)
        self.pose_basis = None
        if data.pose_basis is not None and data.pose_basis.any():
            self.pose_basis = tensor(data.pose_basis)
        self.regressor, self.weights = tensor(data.joint_regressor), tensor(data.skinning_weights)
        self.parents = data.parents.tolist()
        self.mean = None if data.texture_mean is None else tensor(data.texture_mean)
        self.texture_basis = None if data.texture_basis is None else tensor(data.texture_basis)

    def __call__(self, parameters: FaceParameters) -> tuple[Tensor, Tensor]:
        batch = len(parameters)
        shaped = self.template + torch.einsum("bs,vcs->bvc", parameters.shape, self.shape_basis)
        shaped = shaped + torch.einsum("be,vce->bvc", parameters.expression, self.expression_basis)
        joints = torch.einsum("jv,bvc->bjc", self.regressor, shaped)

        zero = torch.zeros_like(parameters.pose)
        neck = zero[:, :3] if parameters.neck is None else parameters.neck
        eyes = zero if parameters.eyes is None else parameters.eyes
        angles = torch.cat([parameters.pose[:, :3], neck, parameters.pose[:, 3:], eyes], 1).view(batch, -1, 3)
        angles = angles[:, : len(self.parents)]
        rotations = rodrigues(angles.reshape(-1, 3)).view(batch, -1, 3, 3)
        posed = shaped
        if self.pose_basis is not None:
            feature = (rotations[:, 1:] - torch.eye(3, dtype=shaped.dtype)).reshape(batch, -1)
            posed = shaped + torch.einsum("bp,vcp->bvc", feature, self.pose_basis)

        chain: list[Tensor] = []
        for j, parent in enumerate(self.parents):
            offset = joints[:, j] if parent < 0 else joints[:, j] - joints[:, parent]
            local = homogeneous(rotations[:, j], offset)
            chain.append(local if parent < 0 else torch.matmul(chain[parent], local))
        world = torch.stack(chain, 1)  # (B, J, 4, 4)
        # what carries a rest point: the joint's matrix after moving the joint to the origin
        origin = torch.matmul(world[..., :3, :3], joints[..., None])[..., 0]
        carry = torch.cat([world[..., :3, :3], (world[..., :3, 3] - origin)[..., None]], -1)
        carry = torch.cat([carry, world[..., 3:, :]], -2)
        blended = torch.matmul(self.weights, carry.view(batch, -1, 16)).view(batch, -1, 4, 4)
        ones = torch.ones_like(posed[..., :1])
        vertices = torch.matmul(blended, torch.cat([posed, ones], -1)[..., None])[..., :3, 0]
        return vertices, world[..., :3, 3]

    def albedo(self, coefficients: Tensor) -> Tensor:
        """Texture (B,H,W,3) in [0,1]."""
        assert self.mean is not None
        return (self.mean + torch.einsum("ba,hwca->bhwc", coefficients, self.texture_basis)).clamp(0, 1)


def rodrigues(vectors: Tensor) -> Tensor:
    """Rotation matrices (N,3,3) of axis-angle (N,3) with the usual guard against division by zero."""
    angle = torch.norm(vectors + 1e-12, dim=1, keepdim=True)
    x, y, z = (vectors / angle).split(1, 1)
    zero = torch.zeros_like(x)
    cross = torch.cat([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    sine, cosine = torch.sin(angle)[..., None], torch.cos(angle)[..., None]
    return torch.eye(3, dtype=vectors.dtype) + sine * cross + (1 - cosine) * torch.bmm(cross, cross)


def homogeneous(rotation: Tensor, translation: Tensor) -> Tensor:
    """4x4 matrices (B,4,4)."""
    upper = torch.cat([rotation, translation[..., None]], 2)
    lower = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=rotation.dtype).expand(len(rotation), 1, 4)
    return torch.cat([upper, lower], 1)

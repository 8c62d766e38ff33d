"""The head model: face parameters -> vertices, landmarks and albedo.

Shape legend: B faces, V vertices, F triangles, J joints, S shape, E expression, A albedo components.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facegpt.errors import HeadFileError
from facegpt.head.builtin.cache import builtin_head_data
from facegpt.head.files.flame import FlameOptions, load_flame
from facegpt.head.files.format import CONTOUR, HeadData, load_head_data
from facegpt.head.head_id import BUILTIN_ID, head_id, is_builtin_id, rounded_hash
from facegpt.head.landmarks import contour_row, head_yaw, surface_points
from facegpt.head.lbs import blend, joint_rotations, joint_transforms, linear_blend_skinning
from facegpt.head.mesh import Mesh
from facegpt.head.parameters import DEFAULT_SCALE, FaceParameters, ParameterLayout

ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = range(5)
PLAIN_SKIN = (0.76, 0.60, 0.52)  # colour of a head without texture
NEGLIGIBLE = 1e-20  # taken as 0: with the denormal tails of smooth bases products take four times as long
FRAMING_FILL = 0.6  # share of the crop's height that the mean's landmarks span
FLAT = 1e-6  # metres: what is less high than this is not framed but seen as a head of usual size would be
NOT_SKIN = ("eyes", "left_eyeball", "right_eyeball", "mouth_interior")


@dataclass
class HeadOutput:
    """World positions in metres: vertices (B,V,3), landmarks (B,68,3), joints (B,J,3).

    landmarks is (B,0,3) for a head file without landmark embedding.
    """

    vertices: Tensor
    landmarks: Tensor
    joints: Tensor


class HeadModel(nn.Module):
    """A parametric head after FLAME (Li et al. 2017): blend shapes, pose correctives, linear blend skinning.

    All tensors are buffers outside the state dict, float32 (`.double()` works), so a checkpoint never holds
    head data. `layout` has the head's sizes; `id` names it (`facegpt.head.head_id`); `default_camera` is the
    camera (scale, tx, ty) that centres the mean's landmarks and lets them span 60 % of a square crop's
    height; `skin_triangles` (F,) marks the triangles of the face's skin, all where `has_skin_mask` is false.

    id: of a head that code makes; a head from a file is named by its arrays.
    """

    def __init__(self, data: HeadData, id: str | None = None) -> None:
        super().__init__()
        self.data = data
        self.id = head_id(data) if id is None else id
        self.shape_names, self.expression_names = data.shape_names, data.expression_names
        self.albedo_names = data.albedo_names
        self.layout = ParameterLayout(
            len(data.shape_names), len(data.expression_names), len(data.albedo_names)
        )
        self.parents: list[int] = data.parents.tolist()

        def keep(name: str, array: np.ndarray | None) -> None:
            # a copy: the data stay as they are
            tensor = None if array is None else torch.tensor(np.ascontiguousarray(array))
            if tensor is not None and tensor.is_floating_point():
                tensor = tensor.float()
                tensor[tensor.abs() < NEGLIGIBLE] = 0
            self.register_buffer(name, tensor, persistent=False)

        basis = np.concatenate([data.shape_basis, data.expression_basis], 2)  # (V, 3, S+E)
        regressor = data.joint_regressor.astype(np.float64)
        keep("triangles", data.triangles)
        keep("v_template", data.v_template)
        # Planar (x of all vertices, then y, then z) and one row per number, as both directions of the product
        # are fastest; the pose correctives' columns follow the coefficients'.
        correctives = data.pose_basis if data.pose_basis is not None and data.pose_basis.any() else None
        self.has_correctives = correctives is not None
        stacked = basis if correctives is None else np.concatenate([basis, correctives], 2)
        keep("template", data.v_template.T.reshape(-1))  # (3V,)
        planar = stacked.transpose(1, 0, 2)
        keep("basis", planar.reshape(data.v_template.size, -1))  # (3V, S+E[+9(J-1)])
        # the joints are linear in the coefficients too, so they need no product over all vertices
        keep("joint_template", (regressor @ data.v_template).reshape(-1))  # (3J,)
        joint_basis = np.einsum("jv,vck->jck", regressor, basis, optimize=True)
        keep("joint_basis", joint_basis.reshape(3 * len(regressor), basis.shape[2]))  # (3J, S+E)
        keep("skinning_weights", data.skinning_weights.T)  # (J, V)
        keep("uv", data.uv)
        keep("uv_triangles", data.uv_triangles)
        keep("texture_mean", data.texture_mean)
        keep("texture_basis", data.texture_basis)  # (H, W, 3, A)
        for part in ("landmark", "contour"):
            keep(f"{part}_triangles", getattr(data, f"{part}_triangles"))
            keep(f"{part}_barycentric", getattr(data, f"{part}_barycentric"))
        keep("region_masks", np.stack([np.zeros(len(data.v_template), bool), *data.regions.values()]))
        keep("skin_triangles", _skin_triangles(data))
        self.default_camera = _framing(self)

    # buffers, declared for the type checker
    triangles: Tensor
    v_template: Tensor
    template: Tensor
    basis: Tensor
    joint_template: Tensor
    joint_basis: Tensor
    skinning_weights: Tensor
    uv: Tensor | None
    uv_triangles: Tensor | None
    texture_mean: Tensor | None
    texture_basis: Tensor | None
    landmark_triangles: Tensor | None
    landmark_barycentric: Tensor | None
    contour_triangles: Tensor | None
    contour_barycentric: Tensor | None
    region_masks: Tensor
    skin_triangles: Tensor

    @staticmethod
    def load(path: str | Path, flame: FlameOptions | None = None) -> HeadModel:
        """Read a head file: FLAME's pickle (.pkl, its companions beside it), or our .npz or .safetensors.

        `flame` selects components, texture size and companions of a pickle; our files are taken whole.
        Raises HeadFileError when the file is missing, broken, hostile or of another format.

        Example:
            head = HeadModel.load("FLAME2020/generic_model.pkl", FlameOptions(expression=100))
        """
        if Path(path).suffix == ".pkl":
            return HeadModel(load_flame(path, flame))
        if flame is not None:
            raise HeadFileError(f"{path}: options for FLAME only apply to its .pkl file")
        return HeadModel(load_head_data(path))

    @staticmethod
    def open(name: str | Path) -> HeadModel:
        """The head that settings name: "builtin", or a head file for `load`."""
        return HeadModel.builtin() if str(name) == "builtin" else HeadModel.load(name)

    @staticmethod
    def builtin() -> HeadModel:
        """The built-in head: no file needed; code makes it once, then it is read from the user's cache."""
        return HeadModel(builtin_head_data(), BUILTIN_ID)

    def has_id(self, id: str | None) -> bool:
        """Whether `id`, of a checkpoint or data set, names this head; facegpt 0.1's names count too."""
        if id == self.id:
            return True
        return is_builtin_id(id) if self.id == BUILTIN_ID else id == rounded_hash(self.data)

    @property
    def has_landmarks(self) -> bool:
        """Whether `forward` gives 68 landmarks; otherwise it gives none."""
        return self.landmark_triangles is not None

    @property
    def has_skin_mask(self) -> bool:
        """Whether the file says which vertices are the face; otherwise the whole head counts as skin."""
        return "face" in self.data.regions

    @property
    def has_texture(self) -> bool:
        """Whether the head has an albedo texture; otherwise it is plain skin and no colour can be learnt."""
        return self.texture_mean is not None

    @property
    def regions(self) -> dict[str, Tensor]:
        """Region name -> bool (V,)."""
        return dict(zip(self.data.regions, self.region_masks[1:], strict=True))

    def mean_parameters(
        self, batch: int = 1, neck: bool = False, eyes: bool = False, device: torch.device | str | None = None
    ) -> FaceParameters:
        """The mean face in frontal pose, white light, and the camera that frames it; on the head's device."""
        layout = ParameterLayout(self.layout.shape, self.layout.expression, self.layout.albedo, neck, eyes)
        device = self.v_template.device if device is None else device
        return FaceParameters.mean(layout, batch, self.default_camera, device, self.v_template.dtype)

    def forward(self, parameters: FaceParameters | None = None) -> HeadOutput:
        """Shape and pose the head; without parameters, the mean face.

        Differentiable in shape, expression, pose, neck and eyes. A head with fewer joints than FLAME's five
        does not move what it has no joint for. Raises ValueError for coefficients of another head's sizes.
        """
        parameters = self.mean_parameters() if parameters is None else parameters
        self._check(parameters)
        with self._full_precision():
            return self._pose_head(parameters.to(self.v_template.dtype))

    def _full_precision(self) -> torch.autocast:
        """Geometry stays in the head's own precision: bfloat16 has only 0.5 mm at the size of a head."""
        return torch.autocast(self.v_template.device.type, enabled=False)

    def _pose_head(self, parameters: FaceParameters) -> HeadOutput:
        batch = len(parameters)
        coefficients = torch.cat([parameters.shape, parameters.expression], 1)  # (B, S+E)
        joints = blend(coefficients, self.joint_template, self.joint_basis).view(batch, len(self.parents), 3)
        rotations = joint_rotations(self._axis_angles(parameters))  # (B, J, 3, 3)
        if self.has_correctives:
            feature = rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)
            coefficients = torch.cat([coefficients, feature.flatten(1)], 1)
        rest = blend(coefficients, self.template, self.basis).view(batch, 3, len(self.v_template))
        rotations, translations, joints = joint_transforms(rotations, joints, self.parents)
        vertices = linear_blend_skinning(rest, self.skinning_weights, rotations, translations)
        head = rotations[:, min(NECK, len(self.parents) - 1)]
        return HeadOutput(vertices, self._landmarks(vertices, head), joints)

    def mesh(self, parameters: FaceParameters, output: HeadOutput | None = None) -> Mesh:
        """The textured surface of these parameters; give `output` if forward was called with them before."""
        output = self(parameters) if output is None else output
        texture = self.albedo(parameters.albedo)
        if texture is None:
            colors = output.vertices.new_tensor(PLAIN_SKIN).expand_as(output.vertices)
            return Mesh(output.vertices, self.triangles, colors=colors)
        return Mesh(
            output.vertices, self.triangles, texture=texture, uv=self.uv, uv_triangles=self.uv_triangles
        )

    def albedo(self, coefficients: Tensor) -> Tensor | None:
        """Albedo texture (B,H,W,3) in [0,1] for coefficients (B,A), or None when the head has no texture."""
        if self.texture_mean is None:
            return None
        texture = self.texture_mean.expand(len(coefficients), -1, -1, -1)
        if self.texture_basis is not None:
            with self._full_precision():
                coefficients = coefficients.to(texture.dtype)
                rows = self.texture_basis.flatten(0, 2)  # (3HW, A): both directions of the product are fast
                texture = blend(coefficients, self.texture_mean.flatten(), rows).view_as(texture)
        clamped: Tensor = _ClampToUnit.apply(texture)
        return clamped

    def _check(self, parameters: FaceParameters) -> None:
        given, wanted = parameters.layout, self.layout
        if (given.shape, given.expression, given.albedo) != (wanted.shape, wanted.expression, wanted.albedo):
            raise ValueError(
                f"this head takes {wanted.shape} shape, {wanted.expression} expression and {wanted.albedo} "
                f"albedo coefficients, got {given.shape}, {given.expression} and {given.albedo}"
            )

    def _axis_angles(self, parameters: FaceParameters) -> Tensor:
        """Axis-angle (B,J,3) of every joint; joints beyond FLAME's five stay at rest."""
        root, jaw = parameters.pose.split(3, 1)
        neck = torch.zeros_like(root) if parameters.neck is None else parameters.neck
        eyes = torch.zeros_like(parameters.pose) if parameters.eyes is None else parameters.eyes
        joints = len(self.parents)
        angles = torch.cat([root, neck, jaw, eyes], 1).unflatten(1, (5, 3))[:, :joints]
        return nn.functional.pad(angles, (0, 0, 0, joints - angles.shape[1]))

    def _landmarks(self, vertices: Tensor, rotation: Tensor) -> Tensor:
        if self.landmark_triangles is None or self.landmark_barycentric is None:
            return vertices[:, :0]
        index, weights = self.landmark_triangles, self.landmark_barycentric
        if self.contour_triangles is not None and self.contour_barycentric is not None:
            row = contour_row(head_yaw(rotation))
            index = torch.cat(
                [self.contour_triangles[row].view(-1, CONTOUR), index[CONTOUR:].expand(len(row), -1)], 1
            )
            fixed = weights[CONTOUR:].expand(len(row), -1, 3)
            weights = torch.cat([self.contour_barycentric[row], fixed], 1)
        return surface_points(vertices, self.triangles, index, weights)


class _ClampToUnit(torch.autograd.Function):
    """Clamp to [0,1] whose gradient stops only what would push a value further out.

    A plain clamp has no gradient outside, so texels that left the range could not come back.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(value)
        return value.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (value,) = ctx.saved_tensors
        outward = ((value > 1) & (gradient < 0)) | ((value < 0) & (gradient > 0))
        return gradient.masked_fill(outward, 0)


def _skin_triangles(data: HeadData) -> np.ndarray:
    """Triangles with all corners in region "face" (everywhere if unknown) and none in eyes or mouth."""
    skin_vertices = data.regions.get("face", np.ones(len(data.v_template), bool)).copy()
    for name in NOT_SKIN:
        if name in data.regions:
            skin_vertices &= ~data.regions[name]
    inside: np.ndarray = skin_vertices[data.triangles].all(1)
    return inside


@torch.no_grad()
def _framing(head: HeadModel) -> tuple[float, float, float]:
    """`default_camera`: of the mean's landmarks, or of all vertices where the head has none."""
    points = HeadModel.forward(head, FaceParameters.mean(head.layout)).landmarks[0, :, :2]
    points = points if len(points) else head.v_template[:, :2]
    low, high = points.amin(0), points.amax(0)
    center, height = (low + high) / 2, (high[1] - low[1]).item()
    scale = 2 * FRAMING_FILL / height if height > FLAT else DEFAULT_SCALE
    return scale, 0.0 - center[0].item(), 0.0 - center[1].item()

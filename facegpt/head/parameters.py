"""Face parameters: the named numbers a face token stands for.

Shape legend: B faces, S shape, E expression, A albedo coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

UNIT_AMBIENT = 3.5449077  # sqrt(4 pi): the band-0 coefficient that gives a shading of 1 (DECA's constants)
DEFAULT_SCALE = 7.0  # of the camera, image half-widths per metre: a head of usual size fills most of a crop
POSE_SIZE, LIGHTING_SIZE, CAMERA_SIZE, NECK_SIZE, EYES_SIZE = 6, 27, 3, 3, 6


@dataclass(frozen=True)
class ParameterLayout:
    """Sizes and order of the groups in a parameter vector.

    The order is DECA's (shape, albedo, expression, pose, camera, lighting), 236 numbers with the default
    sizes, so DECA's codes can be read as they are; neck and eyes follow when they are asked for.
    """

    shape: int = 100
    expression: int = 50
    albedo: int = 50
    neck: bool = False
    eyes: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """Group name -> length, in vector order."""
        sizes = {
            "shape": self.shape,
            "albedo": self.albedo,
            "expression": self.expression,
            "pose": POSE_SIZE,
            "camera": CAMERA_SIZE,
            "lighting": LIGHTING_SIZE,
        }
        if self.neck:
            sizes["neck"] = NECK_SIZE
        if self.eyes:
            sizes["eyes"] = EYES_SIZE
        return sizes

    @property
    def total(self) -> int:
        """Length of the vector."""
        return sum(self.sizes.values())


@dataclass
class FaceParameters:
    """Parameters of B faces.

    shape (B,S), expression (B,E), albedo (B,A): coefficients in standard deviations, prior N(0,1);
        expression may be any real number, its named components mean 0 = absent and 1 = full.
    pose (B,6): axis-angle in radians, head rotation then jaw rotation.
    camera (B,3): scale (image half-widths per metre), tx, ty (metres); see `facegpt.render.camera`.
    lighting (B,27): spherical harmonics, 9 bands x RGB, band-major; see `facegpt.render.lighting`.
    neck (B,3), eyes (B,6, left before right): optional axis-angle in radians; None means zero.
    """

    shape: Tensor
    expression: Tensor
    pose: Tensor
    albedo: Tensor
    lighting: Tensor
    camera: Tensor
    neck: Tensor | None = None
    eyes: Tensor | None = None

    @staticmethod
    def mean(
        layout: ParameterLayout,
        batch: int = 1,
        camera: Sequence[float] = (DEFAULT_SCALE, 0.0, 0.0),
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> FaceParameters:
        """The mean face in frontal pose under white ambient light of strength 1."""
        groups = {
            name: torch.zeros(batch, size, device=device, dtype=dtype) for name, size in layout.sizes.items()
        }
        groups["lighting"][:, :3] = UNIT_AMBIENT
        groups["camera"][:] = torch.tensor(camera, device=device, dtype=dtype)
        return FaceParameters(**groups)

    @staticmethod
    def from_vector(vector: Tensor, layout: ParameterLayout) -> FaceParameters:
        """Split a (B, layout.total) vector into its groups.

        Raises ValueError when the last dimension is not `layout.total`.
        """
        if vector.ndim != 2 or vector.shape[1] != layout.total:
            raise ValueError(
                f"a parameter vector of shape (B, {layout.total}) is needed, got {tuple(vector.shape)}"
            )
        return FaceParameters(
            **dict(zip(layout.sizes, vector.split(list(layout.sizes.values()), dim=1), strict=True))
        )

    def to_vector(self) -> Tensor:
        """All groups as one (B, layout.total) tensor in the order of `ParameterLayout.sizes`."""
        return torch.cat([getattr(self, name) for name in self.layout.sizes], dim=1)

    @property
    def layout(self) -> ParameterLayout:
        """The sizes of these groups."""
        return ParameterLayout(
            shape=self.shape.shape[1],
            expression=self.expression.shape[1],
            albedo=self.albedo.shape[1],
            neck=self.neck is not None,
            eyes=self.eyes is not None,
        )

    @staticmethod
    def cat(parts: Sequence[FaceParameters]) -> FaceParameters:
        """Concatenate along the batch; all parts must have the same layout."""
        layout = parts[0].layout
        return FaceParameters.from_vector(torch.cat([part.to_vector() for part in parts]), layout)

    def replace(self, **groups: Tensor) -> FaceParameters:
        """A copy with some groups exchanged."""
        return replace(self, **groups)

    def to(self, *args: Any, **kwargs: Any) -> FaceParameters:
        """`torch.Tensor.to` on every group."""
        return self._map(lambda group: group.to(*args, **kwargs))

    def detach(self) -> FaceParameters:
        """`torch.Tensor.detach` on every group."""
        return self._map(torch.Tensor.detach)

    def __len__(self) -> int:
        return self.shape.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> FaceParameters:
        """Faces by index; the result keeps its batch dimension, for a single integer too."""
        if isinstance(index, int):
            index = slice(index, index + 1) if index != -1 else slice(index, None)
        return self._map(lambda group: group[index])

    def _map(self, function: Callable[[Tensor], Tensor]) -> FaceParameters:
        return FaceParameters(**{name: function(getattr(self, name)) for name in self.layout.sizes})

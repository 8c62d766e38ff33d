"""What a straight line reads from the model's own frozen image tokens: ridge to the true parameters.

It is given labels, which the model's training never sees; a model that does worse than this line does not use
what its image tokens hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from facegpt.data.collate import pixel_values
from facegpt.evaluation.evaluated_model import EvaluatedModel
from facegpt.evaluation.parameter_agreement import group_columns
from facegpt.evaluation.ridge import Ridge, fit_ridge
from facegpt.head.parameters import FaceParameters, ParameterLayout
from facegpt.model.backbone import image_features
from facegpt.sample import FaceRecord


@torch.no_grad()
def image_tokens(evaluated: EvaluatedModel, records: Sequence[FaceRecord], batch: int = 16) -> Tensor:
    """The projected image tokens of N photographs, flattened: (N, tokens * hidden) float32 on the CPU."""
    model = evaluated.model
    parts = []
    for start in tqdm(range(0, len(records), batch), desc="image tokens", unit="batch"):
        images = [records[index].shown for index in range(start, min(start + batch, len(records)))]
        values = pixel_values(images, model.processor).to(model.device, model.vlm.dtype)
        parts.append(image_features(model.vlm, values).reshape(len(images), -1).float().cpu())
    return torch.cat(parts)


def fit_parameters(features: Tensor, truth: FaceParameters, seed: int) -> Ridge:
    """Ridge from features (N,D) to the parameters of N faces, with a penalty per parameter group."""
    return fit_ridge(features, truth.to_vector().cpu(), penalty_groups(truth.layout), seed)


def penalty_groups(layout: ParameterLayout) -> dict[str, slice]:
    """Name -> columns of the parameter vector that share a penalty: the groups, pose and camera in parts.

    What can be read well must not be shrunk for what cannot: in a head's pose the jaw's sideways motion would
    pull the penalty of the rotation up.
    """
    columns = group_columns(layout)
    parts = {
        "pose": (("rotation", 3), ("jaw", 1), ("jaw_sideways", 2)),
        "camera": (("scale", 1), ("shift", 2)),
    }
    found = {}
    for group, whole in columns.items():
        start = whole.start
        for name, size in parts.get(group, ((group, whole.stop - whole.start),)):
            found[name] = slice(start, start + size)
            start += size
    return found


def predict_parameters(ridge: Ridge, features: Tensor, like: FaceParameters) -> FaceParameters:
    """The faces that a ridge of `fit_parameters` reads from features (M,D); like: any face of that layout."""
    return FaceParameters.from_vector(ridge.predict(features).to(like.shape), like.layout)

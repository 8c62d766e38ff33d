"""What is measured of spoken faces with a known truth, and the yardsticks that need training faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from facegpt.data.held_out import true_parameters
from facegpt.data.records import FaceRecords
from facegpt.errors import SampleError
from facegpt.evaluation.evaluated_model import EvaluatedModel, mean_and_error
from facegpt.evaluation.identity_matching import identity_features, identity_rank_1
from facegpt.evaluation.linear_readout import fit_parameters, image_tokens, predict_parameters
from facegpt.evaluation.parameter_agreement import agreement, component_agreement
from facegpt.evaluation.placed_mean import placed_mean_face
from facegpt.evaluation.ridge import FOLDS
from facegpt.evaluation.vertex_errors import vertex_errors, vertex_table
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.metrics.agreement import bootstrap
from facegpt.metrics.image_errors import ImageErrors
from facegpt.perception.recognizer import Recognizer
from facegpt.sample import FaceRecord

MOST_MEAN_FACES = 500  # of training, for their mean
METRICS = (("landmark_error_px", "landmark"), ("photometric_error", "photometric"))


def summarize(errors: Mapping[str, ImageErrors], members: Tensor, seed: int) -> dict[str, Any]:
    """Means over some faces, members (N,) bool, by name: with standard errors and 95 % intervals."""
    table: dict[str, Any] = {}
    for metric, values in METRICS:
        rows = torch.stack([getattr(found, values)[members] for found in errors.values()]).double()
        means = [mean_and_error(row) for row in rows]
        ends = bootstrap(lambda faces, rows=rows: rows[:, faces].mean(dim=1), rows.shape[1], seed)  # type: ignore[misc]
        table[metric] = {
            **{name: mean for name, (mean, _) in zip(errors, means, strict=True)},
            "standard_error": {name: error for name, (_, error) in zip(errors, means, strict=True)},
            "interval_95": {name: [end.low, end.high] for name, end in zip(errors, ends, strict=True)},
        }
    return table


def shares_of_mean_face(errors: Mapping[str, ImageErrors], seed: int) -> dict[str, Any]:
    """Metric -> name -> share of the mean face's mean error, with its 95 % interval."""
    table: dict[str, Any] = {}
    for metric, values in METRICS:
        mean = getattr(errors["mean_face"], values).double()
        table[metric] = {}
        for name, found in errors.items():
            own = getattr(found, values).double()
            estimate = bootstrap(
                lambda faces, own=own, mean=mean: (own[faces].mean() / mean[faces].mean())[None],  # type: ignore[misc]
                len(mean),
                seed,
            )[0]
            table[metric][name] = {"share": estimate.value, "interval_95": [estimate.low, estimate.high]}
    return table


def mean_face_in_place(records: Sequence[FaceRecord], head: HeadModel, size: int) -> FaceParameters:
    """The mean face at its best place and size for each record, at side `size`."""
    points = torch.stack([record.landmarks * (size / record.image.width) for record in records])
    every = torch.ones(68, dtype=torch.bool)
    valid = [every if record.landmark_valid is None else record.landmark_valid for record in records]
    return placed_mean_face(head, points, size, torch.stack(valid))


def training_yardsticks(
    training: FaceRecords,
    records: Sequence[FaceRecord],
    evaluated: EvaluatedModel,
    readout_faces: int,
    seed: int,
) -> dict[str, FaceParameters]:
    """What training faces, whose labels the model never saw, give without it, for each of N records.

    mean_face_training: the mean of the parameters of up to `MOST_MEAN_FACES` of them, one face.
    linear_readout (N): ridge from the model's image tokens, fitted to up to `readout_faces` (0: left out).
    nearest_training_face (N): of the same faces the one with the most similar image tokens.
    Raises SampleError when their parameters are not known or they are too few.
    """
    few, truth = known_faces(training, MOST_MEAN_FACES, evaluated.head)
    mean = truth.to_vector().mean(0, keepdim=True)
    found = {"mean_face_training": FaceParameters.from_vector(mean, truth.layout)}
    if readout_faces:
        few, truth = known_faces(training, readout_faces, evaluated.head)
        if len(few) < FOLDS:
            raise SampleError(
                f"{training.path} has {len(few)} faces, the linear read-out needs {FOLDS} or more; "
                "synthesize more, or set readout_faces=0"
            )
        known, asked = image_tokens(evaluated, few), image_tokens(evaluated, records)
        found["linear_readout"] = predict_parameters(fit_parameters(known, truth, seed), asked, truth)
        found["nearest_training_face"] = truth[most_similar(asked, known).to(truth.shape.device)]
    return found


def most_similar(features: Tensor, known: Tensor) -> Tensor:
    """Row (N,) of known (M,D) with the largest cosine to each of features (N,D), about the mean of known."""
    mean = known.mean(dim=0)
    ours, theirs = (torch.nn.functional.normalize(rows - mean, dim=1) for rows in (features, known))
    return (ours @ theirs.T).argmax(dim=1)


def known_faces(
    data: FaceRecords, limit: int, head: HeadModel
) -> tuple[Sequence[FaceRecord], FaceParameters]:
    """Up to `limit` records of the data, spread over all of them, and their true parameters."""
    step = -(-len(data) // limit)
    few: Sequence[FaceRecord] = data[::step]
    truth = true_parameters(few, data, head)
    if truth is None:
        raise SampleError(
            f"{data.path} has faces without parameters, so they have no mean; leave training_data empty"
        )
    return few, truth


def truth_measures(
    faces: Mapping[str, FaceParameters],
    truth: FaceParameters,
    head: HeadModel,
    recognizer: Recognizer,
    seed: int,
) -> dict[str, Any]:
    """Of each set of faces by its name, N or one for all: how far are the vertices off, do the parameters
    follow the true ones, is it the same person?
    """
    own = identity_features(head, truth, recognizer)
    several = {name: found for name, found in faces.items() if len(found) == len(truth)}
    return {
        "vertex_error_mm": vertex_table(
            {name: vertex_errors(head, found, truth) for name, found in faces.items()}, seed
        ),
        "agreement": {name: agreement(found, truth, seed) for name, found in several.items()},
        "agreement_by_component": {
            name: component_agreement(head, found, truth, seed) for name, found in several.items()
        },
        "identity_rank_1": {
            name: identity_rank_1(
                identity_features(head, found, recognizer).expand_as(own).contiguous(), own, seed
            )
            for name, found in faces.items()
        },
    }


def group_measures(
    groups: Mapping[str, Mapping[str, Tensor]], errors: Mapping[str, ImageErrors], seed: int
) -> dict[str, Any]:
    """Kind of group -> label -> n and the errors of its members, groups as of `face_groups`."""
    return {
        kind: {
            label: {"n": int(members.sum()), **summarize(errors, members, seed)}
            for label, members in labels.items()
        }
        for kind, labels in groups.items()
    }

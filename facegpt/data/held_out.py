"""What answers about held-out face records are compared with: face targets, and known parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from facegpt.data.collate import stack_targets
from facegpt.data.records import FaceRecords
from facegpt.data.targets import face_target
from facegpt.errors import HeadMismatchError, SampleError
from facegpt.head.model import HeadModel
from facegpt.head.parameters import FaceParameters
from facegpt.sample import FaceRecord, FaceTargets

AT_ONCE = 16


def target_groups(records: Sequence[FaceRecord], size: int) -> Iterator[FaceTargets]:
    """The face targets of the records at side `size`, in their order and in groups of `AT_ONCE`."""
    for start in range(0, len(records), AT_ONCE):
        group = stack_targets([face_target(record, size) for record in records[start : start + AT_ONCE]])
        assert group is not None  # a group has at least one record
        yield group


def true_parameters(
    records: Sequence[FaceRecord], data: FaceRecords, head: HeadModel
) -> FaceParameters | None:
    """The known parameters of synthetic faces, None when some record has none.

    Raises HeadMismatchError when they are of another head model, SampleError when they are of another length.
    """
    vectors = [record.parameters for record in records]
    known = [vector for vector in vectors if vector is not None]
    if len(known) < len(vectors):
        return None
    made_with = data.metadata.get("head_id", head.id)
    if not head.has_id(made_with):
        raise HeadMismatchError(
            f"{data.path} was made with head model {made_with}, but {head.id} is loaded; "
            "make the faces again with data_gen/synthesize.py"
        )
    for record, vector in zip(records, known, strict=True):
        if len(vector) != head.layout.total:
            raise SampleError(
                f"{record.id} in {data.path} has {len(vector)} face parameters, "
                f"the head has {head.layout.total}"
            )
    return FaceParameters.from_vector(torch.stack(known).to(head.v_template), head.layout)

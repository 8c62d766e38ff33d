"""Face records come back from shards and photographs as they were written, or an error names them."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from data_files import (
    encode,
    face_image,
    face_landmarks,
    face_row,
    write_annotations,
    write_photographs,
    write_shards,
)

from facegpt.data.collate import stack_targets
from facegpt.data.records import FEATURES, read_annotations, read_records
from facegpt.data.targets import face_target, to_tensor
from facegpt.data.validate import validate_records
from facegpt.errors import ImageError, LandmarkError, SampleError
from facegpt.perception.skin import skin_probability
from facegpt.sample import FaceRecord


def test_shards_give_back_every_column_in_order(tmp_path):
    path = write_shards(tmp_path / "train", [face_row(number) for number in range(5)])
    write_annotations(path, [1, 4])
    records = read_records(path)
    assert records.ids == [f"face-{number}" for number in range(5)] and len(records) == 5
    record = records[4]
    assert record.id == "face-4" and record.image.mode == "RGB"
    assert (np.asarray(record.image) == np.asarray(face_image(64, 4))).all()
    assert torch.equal(record.landmarks, torch.from_numpy(face_landmarks(64, 4)))
    assert record.skin_mask.shape == (64, 64) and record.skin_mask[0, :2].tolist() == [0, 1]
    assert torch.equal(record.parameters, torch.linspace(-1, 1, 236))
    assert record.description == {"shape": "A long face 4.", "pose": "It looks up."}
    assert record.conversation[0] == ("Hair?", "Dark 4.")
    assert records[0].description == {} and records[-1].id == "face-4"
    assert [r.id for r in records] == records.ids == [r.id for r in records[:]]
    with pytest.raises(IndexError):
        records[5]


def test_masks_and_parameters_may_be_missing(tmp_path):
    row = face_row(0) | {"skin_mask": None, "parameters": None}
    record = read_records(write_shards(tmp_path, [row]))[0]
    assert record.skin_mask is None and record.parameters is None


def test_a_wider_view_and_which_landmarks_count_may_be_there(tmp_path):
    features = datasets.Features(
        {**FEATURES, "view": datasets.Image(), "landmark_valid": datasets.List(datasets.Value("bool"))}
    )
    given = [number % 2 == 0 for number in range(68)]
    rows = [
        face_row(0) | {"view": encode(face_image(96, 7)), "landmark_valid": given},
        face_row(1) | {"view": None, "landmark_valid": None},
        face_row(2) | {"view": None, "landmark_valid": given[1:]},
    ]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "faces.parquet"))
    records = read_records(tmp_path)
    assert records[0].shown.size == (96, 96) and records[0].image.size == (64, 64)
    assert records[0].landmark_valid.tolist() == given
    assert records[1].shown.size == (64, 64) and records[1].view is None and records[1].landmark_valid is None
    with pytest.raises(LandmarkError, match="67 values instead of 68"):
        records[2]


def test_photographs_are_cropped_around_their_landmarks(tmp_path):
    records = read_records(write_photographs(tmp_path, 3), size=48)
    assert records.ids == ["more/photo1", "photo0", "photo2"]
    for record in records:
        assert record.image.size == (48, 48)
        box = record.landmarks.amax(0) - record.landmarks.amin(0)
        assert box.mean().item() == pytest.approx(48 / (1.25 * 1.1), rel=0.05)  # DECA's margin
        middle = (record.landmarks.amax(0) + record.landmarks.amin(0)) / 2
        assert middle.tolist() == pytest.approx([24, 24], abs=0.6)


def test_51_landmarks_are_taken_wherever_68_are(tmp_path):
    """In a photograph's file and in shards: the contour is estimated, and nothing is compared with it."""
    photographs, shards = write_photographs(tmp_path / "photographs", 1), tmp_path / "shards"
    inner = np.load(photographs / "photo0.npy")[17:]
    np.save(photographs / "photo0.npy", inner)
    write_shards(shards, [face_row(0) | {"landmarks": face_row(0)["landmarks"][34:]}, face_row(1)])
    records = [read_records(photographs)[0], *read_records(shards)]
    assert torch.equal(records[1].landmarks[17:], torch.from_numpy(face_landmarks(64, 0))[17:])
    for record in records[:2]:
        assert record.landmarks.shape == (68, 2) and bool(torch.isfinite(record.landmarks).all())
        assert record.landmark_valid.tolist() == [False] * 17 + [True] * 51
        assert face_target(record, 32).landmark_valid is record.landmark_valid
    assert records[2].landmark_valid is None
    assert len(validate_records(photographs)) == 1 and len(validate_records(shards)) == 2
    targets = stack_targets([face_target(record, 32) for record in records])
    assert targets.landmark_valid.shape == (3, 68) and targets.landmark_valid.sum(1).tolist() == [51, 51, 68]
    assert targets.to("cpu").landmark_valid is not None
    assert stack_targets([face_target(records[2], 32)]).landmark_valid is None


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SampleError, match="absent is not a folder"):
        read_records(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SampleError, match="empty has no parquet shards and no"):
        read_records(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(SampleError, match="broken cannot be read"):
        read_records(tmp_path / "broken")
    face_image().save(tmp_path / "alone.jpg")
    with pytest.raises(LandmarkError, match=r"alone\.jpg has no landmarks"):
        read_records(tmp_path)


def test_an_id_may_occur_once_only(tmp_path):
    path = write_shards(tmp_path / "a", [face_row(0), face_row(1), face_row(0)], shard=2)
    with pytest.raises(SampleError, match="id face-0 2 times"):
        read_records(path)


def test_a_broken_row_is_named_when_it_is_read(tmp_path):
    image = encode(face_image())["bytes"]
    rows = [
        face_row(0) | {"landmarks": [1.0] * 135},
        face_row(1) | {"image": {"bytes": image[: len(image) // 2], "path": None}},
        face_row(2) | {"image": None},
    ]
    records = read_records(write_shards(tmp_path, rows))
    for index, kind in enumerate((LandmarkError, ImageError, ImageError)):
        with pytest.raises(kind, match=f"face-{index}"):
            records[index]


@pytest.mark.parametrize(
    "row",
    [
        '{"id": 3}',
        '{"id": "a", "description": []}',
        '{"id": "a", "conversation": [["only a question"]]}',
        '{"id": "a", "texts": "one"}',
        '{"id": "a", "texts": [" "]}',
        '{"id": "a", "looks": [3]}',
        '{"id": "a", "looks": [""]}',
        '{"id": "a", "texts": ["' + "x" * 10_001 + '"]}',
    ],
)
def test_an_annotation_of_another_form_is_named(tmp_path, row):
    path = tmp_path / "descriptions.jsonl"
    path.write_text('{"id": "b"}\n' + row + "\n")
    with pytest.raises(SampleError, match=r"row 2 of .*descriptions\.jsonl"):
        read_annotations(path)


def test_a_target_is_the_record_at_another_size():
    image = face_image(64)
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1
    record = FaceRecord("a", image, torch.from_numpy(face_landmarks(64)), mask, torch.ones(3))
    same = face_target(record, 64)
    assert torch.equal(same.image, to_tensor(image)) and torch.equal(same.skin_mask, mask)
    half = face_target(record, 32)
    assert half.image.shape == (3, 32, 32) and half.skin_mask.shape == (32, 32)
    assert torch.equal(half.landmarks, record.landmarks / 2)
    averaged = torch.nn.functional.avg_pool2d(to_tensor(image)[None], 2)[0]
    assert (half.image - averaged)[:, 2:-2, 2:-2].abs().max() < 0.02  # half-integer centres: no shift
    assert half.skin_mask[:, :15].max() == 0 and half.skin_mask[:, 17:].min() == 1
    assert half.parameters is record.parameters


def test_a_missing_mask_is_made_from_the_full_resolution():
    record = FaceRecord("a", face_image(64), torch.from_numpy(face_landmarks(64)))
    expected = skin_probability(to_tensor(record.image)[None])[0]
    assert torch.equal(face_target(record, 64).skin_mask, expected)
    small = torch.nn.functional.interpolate(expected[None, None], (32, 32), mode="bilinear", antialias=True)
    assert torch.allclose(face_target(record, 32).skin_mask, small[0, 0])


def test_a_record_without_a_usable_target_is_named():
    good, points = face_image(64), torch.from_numpy(face_landmarks(64))
    broken = points.clone()
    broken[3, 1] = float("nan")
    cases = [
        (FaceRecord("p7", good, broken), LandmarkError, "p7 is not a finite number"),
        (FaceRecord("p7", good, points[:67]), LandmarkError, r"p7 has landmarks of shape \(67, 2\)"),
        (FaceRecord("p7", good, points / 64), LandmarkError, "p7 span"),
        (FaceRecord("p7", good, points + 100), LandmarkError, "p7 lie outside"),
        (FaceRecord("p7", good.resize((64, 32)), points), SampleError, "p7 is 64 x 32 pixels"),
        (FaceRecord("p7", good, points, torch.ones(32, 32)), SampleError, r"p7 is \(32, 32\)"),
        (FaceRecord("p7", good, points, torch.full((64, 64), torch.inf)), SampleError, "p7 has values"),
        (
            FaceRecord("p7", good, points, None, torch.tensor([torch.nan])),
            SampleError,
            "p7 are not all finite",
        ),
    ]
    for record, kind, message in cases:
        with pytest.raises(kind, match=message):
            face_target(record, 32)

"""The checker finds every kind of broken file before training, and says which one it is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data_files import encode, face_image, face_row, write_annotations, write_photographs, write_shards

from facegpt.data.validate import validate_instructions, validate_records
from facegpt.errors import ImageError, LandmarkError, SampleError


def test_good_data_passes_and_is_returned(tmp_path):
    shards = write_shards(tmp_path / "shards", [face_row(number) for number in range(4)])
    write_annotations(shards, [0, 1])
    (shards / "dataset.json").write_text('{"count": 4}')
    assert validate_records(shards).ids == [f"face-{number}" for number in range(4)]
    assert len(validate_records(write_photographs(tmp_path / "photographs", 3))) == 3


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def broken_rows():
    landmarks = face_row(1)["landmarks"]
    jpeg = encode(face_image(), "JPEG")["bytes"]
    png = encode(face_image())["bytes"]
    return {
        "truncated JPEG": ({"image": {"bytes": half(jpeg), "path": None}}, ImageError),
        "truncated PNG": ({"image": {"bytes": half(png), "path": None}}, ImageError),
        "not an image": ({"image": {"bytes": b"hello", "path": None}}, ImageError),
        "no image": ({"image": None}, ImageError),
        "truncated mask": ({"skin_mask": {"bytes": half(png), "path": None}}, ImageError),
        "too few landmarks": ({"landmarks": landmarks[:134]}, LandmarkError),
        "no landmarks": ({"landmarks": None}, LandmarkError),
        "a landmark is NaN": ({"landmarks": [float("nan"), *landmarks[1:]]}, LandmarkError),
        "normalised landmarks": ({"landmarks": (np.array(landmarks) / 32 - 1).tolist()}, LandmarkError),
        "infinite parameter": ({"parameters": [float("inf")] * 236}, SampleError),
        "mask of another size": ({"skin_mask": encode(face_image(32).convert("L"))}, SampleError),
        "not square": ({"image": encode(face_image().resize((64, 32)))}, SampleError),
    }


@pytest.mark.parametrize("name", broken_rows())
def test_a_broken_record_is_named(tmp_path, name):
    change, kind = broken_rows()[name]
    path = write_shards(tmp_path, [face_row(0), face_row(1) | change, face_row(2)])
    with pytest.raises(kind, match="face-1") as caught:
        validate_records(path)
    assert "\n" not in str(caught.value) and "more of" not in str(caught.value)


def test_further_broken_records_are_counted(tmp_path):
    rows = [face_row(number) | {"image": None} for number in range(3)]
    with pytest.raises(ImageError, match=r"face-0 .*; 2 more of .* are bad too"):
        validate_records(write_shards(tmp_path, rows))


def test_an_interrupted_synthesis_is_noticed(tmp_path):
    write_shards(tmp_path, [face_row(0)])
    (tmp_path / "dataset.json").write_text('{"count": 200}')
    with pytest.raises(SampleError, match="announces 200 records and the shards hold 1"):
        validate_records(tmp_path)


@pytest.mark.parametrize("text", ["a <FACE> here", "an <image>"])
def test_tokens_in_annotations_are_found(tmp_path, text):
    write_shards(tmp_path, [face_row(0)])
    for row in ({"description": {"shape": text}}, {"conversation": [["Hair?", text]]}):
        (tmp_path / "descriptions.jsonl").write_text(json.dumps({"id": "face-0", **row}) + "\n")
        with pytest.raises(SampleError, match="annotation of face-0"):
            validate_records(tmp_path)


def test_broken_photographs_are_named(tmp_path):
    path = write_photographs(tmp_path, 1)
    photo, points = path / "photo0.jpg", path / "photo0.npy"
    content = photo.read_bytes()
    photo.write_bytes(half(content))
    with pytest.raises(ImageError, match=r"photo0\.jpg cannot be decoded"):
        validate_records(path)
    photo.write_bytes(content)
    for change, message in (
        (lambda p: p * np.nan, "finite"),
        (lambda p: p[:67], "68"),
        (lambda p: p + 1000, "outside"),
        (lambda p: p * 0, "span"),
    ):
        original = np.load(points)
        np.save(points, change(original))
        with pytest.raises(LandmarkError, match=message) as caught:
            validate_records(path)
        assert "photo0.npy" in str(caught.value)
        np.save(points, original)
    assert len(validate_records(path)) == 1


def turns(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_instruction_lists_are_checked_row_by_row(tmp_path):
    face_image().save(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").write_bytes(b"no image")
    path = tmp_path / "mix.json"
    good = {"id": "good", "image": "1.jpg", "conversations": turns("Hi", "Ho")}
    path.write_text(json.dumps([good, {"id": "text", "conversations": turns("Hi", "Ho")}]))
    assert validate_instructions(path) == 2
    for bad in (
        good | {"image": "absent.jpg"},
        good | {"image": "2.jpg"},
        {"conversations": turns("<image>\nHi", "Ho")},
        {"conversations": turns("Hi", "a <FACE>")},
        {"conversations": turns("Hi", " ")},
        {"conversations": turns("Hi", "Ho")[:1]},
        {"conversations": turns("Hi", 3)},
    ):
        path.write_text(json.dumps([good, {"id": "bad", **bad} | {"id": "the bad one"}, good]))
        with pytest.raises(SampleError, match="the bad one"):
            validate_instructions(path)

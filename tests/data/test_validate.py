"""The checker finds every kind of broken file before training, and says which one it is."""

from __future__ import annotations

import json
import os

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_files import (
    encode,
    face_image,
    face_landmarks,
    face_row,
    write_annotations,
    write_photographs,
    write_shards,
)
from PIL import Image

from facegpt.data.records import Shards, read_records
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
        "a gap in the landmarks": ({"landmarks": [None, *landmarks[1:]]}, LandmarkError),
        "wild landmarks": ({"landmarks": [1e20, -1e20] * 34 + [-1e20, 1e20] * 34}, LandmarkError),
        "infinite landmarks": ({"landmarks": [1e300, -1e300] * 34 + [-1e300, 1e300] * 34}, LandmarkError),
        "a landmark far beside": ({"landmarks": [-100.0, 164.0, *landmarks[2:]]}, LandmarkError),
        "not square": ({"image": encode(face_image().resize((64, 32)))}, SampleError),
    }


@pytest.mark.parametrize("name", broken_rows())
def test_a_broken_record_is_named(tmp_path, name):
    change, kind = broken_rows()[name]
    path = write_shards(tmp_path, [face_row(0), face_row(1) | change, face_row(2)])
    with pytest.raises(kind, match="face-1") as caught:
        validate_records(path)
    assert "\n" not in str(caught.value) and "more of" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("landmarks", ["1.5"] * 136),
        ("landmarks", "1.5"),
        ("landmarks", 3.0),
        ("landmarks", [[1.0, 2.0]] * 68),
        ("parameters", ["a"] * 236),
        ("parameters", [[1.0], [2.0]]),
        ("image", 7),
        ("image", [1.0]),
        ("image", "an absent file"),
        ("image", b"no image"),
        ("image", {"width": 3}),
        ("skin_mask", 7),
        ("skin_mask", [1.0]),
    ],
)
def test_a_column_of_another_type_is_one_sentence(tmp_path, column, value):
    table = pa.Table.from_pylist([face_row(1) | {column: value}])
    pq.write_table(table, tmp_path / "faces.parquet")
    with pytest.raises(SampleError, match=f"face-1|{tmp_path} cannot be read") as caught:
        validate_records(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("column", ["landmarks", "parameters"])
def test_lists_without_end_are_refused_before_they_become_python_numbers(tmp_path, monkeypatch, column):
    """200 million equal numbers take 20 kB packed and 7 GB as Python's."""
    rows = [face_row(0), face_row(1) | {column: [1.0] * 10_001}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "faces.parquet")
    monkeypatch.setattr(Shards, "load", lambda *_: pytest.fail("a row was read"))
    with pytest.raises(SampleError, match=f"{column} of the parquet files in .* have 10001 numbers"):
        validate_records(tmp_path)


@pytest.mark.parametrize("column", ["landmarks", "parameters"])
def test_shards_that_announce_too_many_numbers_are_not_unpacked(tmp_path, monkeypatch, column):
    pq.write_table(pa.Table.from_pylist([face_row(1) | {column: [1.0] * 10_001}]), tmp_path / "faces.parquet")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the file was unpacked"))
    with pytest.raises(SampleError, match=f"{column} of .*faces.parquet has 10001 numbers in 1 rows"):
        validate_records(tmp_path)


def test_shards_without_rows_are_refused(tmp_path):
    pq.write_table(pa.Table.from_pylist([face_row(0)]).slice(0, 0), tmp_path / "faces.parquet")
    with pytest.raises(SampleError, match=r"hold no rows|cannot be read"):
        validate_records(tmp_path)


def test_images_by_path_lie_in_the_folder(tmp_path):
    """A row may name a file beside the shards; nothing else on the disk, and nothing that never ends."""
    (tmp_path / "shards").mkdir()
    for file in (tmp_path / "shards" / "face.png", tmp_path / "face.png"):
        file.write_bytes(face_row(0)["image"]["bytes"])
    (tmp_path / "shards" / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "shards" / "pipe.png")

    def write(path):
        table = pa.Table.from_pylist([face_row(0) | {"image": {"bytes": None, "path": path}}])
        pq.write_table(table, tmp_path / "shards" / "faces.parquet")
        return tmp_path / "shards"

    assert validate_records(write("face.png"))[0].image.tobytes() == face_image(64, 0).tobytes()
    outside = ("../face.png", str(tmp_path / "shards" / "face.png"), "/dev/zero")
    for path in (*outside, "zero.png", "pipe.png", "absent.png", "a\0b.png", "", "."):
        with pytest.raises(ImageError, match="face-0") as caught:
            validate_records(write(path))
        assert ("leaves" in str(caught.value)) == (path in outside)


@pytest.mark.parametrize("name", ["dataset.json", "descriptions.jsonl"])
@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff{}", b"[" * 100_000, b'{"id": 1' + b"2" * 5000 + b"}"]
)
def test_broken_json_beside_the_records_is_one_sentence(tmp_path, name, content):
    write_shards(tmp_path, [face_row(0)])
    (tmp_path / name).write_bytes(content + b"\n")
    with pytest.raises(SampleError, match=name) as caught:
        validate_records(tmp_path)
    assert "\n" not in str(caught.value)


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
    with pytest.raises(ImageError, match=r"photo0\.jpg: cannot be decoded"):
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


@pytest.mark.parametrize(("size", "points"), [((200, 300), "beside"), ((64, 64), "wide"), ((64, 64), "wild")])
def test_what_would_fail_in_training_fails_before_it(tmp_path, size, points):
    """Beside the narrow side but within the long one; a crop of five sides; numbers that are no pixels."""
    face_image(300).resize(size).save(tmp_path / "a.jpg")
    landmarks = face_landmarks(60)
    landmarks = {
        "beside": landmarks + np.array([225, 100]),
        "wide": landmarks * 10 - 270,
        "wild": landmarks * 1e20 - 30e20,
    }[points]
    np.save(tmp_path / "a.npy", landmarks)
    with pytest.raises(LandmarkError, match=r"a\.npy does not fit a\.jpg"):
        validate_records(tmp_path)
    with pytest.raises(LandmarkError, match=r"a\.npy does not fit a\.jpg"):
        read_records(tmp_path)[0]


def turns(question, answer):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_instruction_lists_are_checked_row_by_row(tmp_path):
    face_image().save(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").write_bytes(b"no image")
    (tmp_path / "cut.jpg").write_bytes(half((tmp_path / "1.jpg").read_bytes()))
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    path = tmp_path / "mix.json"
    good = {"id": "good", "image": "1.jpg", "conversations": turns("Hi", "Ho")}
    path.write_text(json.dumps([good, {"id": "text", "conversations": turns("Hi", "Ho")}]))
    assert validate_instructions(path) == 2
    path.write_text(json.dumps([good | {"image": None}, good | {"image": []}]))
    assert validate_instructions(path) == 2
    for bad in (
        good | {"image": "absent.jpg"},
        good | {"image": "2.jpg"},
        good | {"image": "cut.jpg"},
        good | {"image": "pipe.jpg"},
        good | {"image": "zero.jpg"},
        good | {"image": "large.png"},
        good | {"image": ["1.jpg", "../1.jpg"]},
        good | {"image": str(tmp_path / "1.jpg")},
        good | {"image": 7},
        good | {"image": False},
        good | {"image": {}},
        good | {"image": [None]},
        good | {"image": ""},
        good | {"image": "1\0.jpg"},
        {"conversations": turns("<image>\nHi", "Ho")},
        {"conversations": turns("Hi", "a <FACE>")},
        {"conversations": turns("Hi", " ")},
        {"conversations": turns("Hi", "Ho")[:1]},
        {"conversations": turns("Hi", 3)},
    ):
        path.write_text(json.dumps([good, {"id": "bad", **bad} | {"id": "the bad one"}, good]))
        with pytest.raises(SampleError, match="the bad one") as caught:
            validate_instructions(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"{}", b"[]", b"[1]"])
def test_a_file_that_is_no_list_of_rows_is_named(tmp_path, content):
    (tmp_path / "mix.json").write_bytes(content)
    with pytest.raises(SampleError, match=r"mix\.json"):
        validate_instructions(tmp_path / "mix.json")

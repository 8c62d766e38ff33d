"""Photographs become shards, whatever is among them and whenever it is interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from photo_files import frontal_landmarks, photo, write_photo
from PIL import Image
from recipes import load_recipe

import facegpt.files
from facegpt.config import load_config
from facegpt.data.records import read_records
from facegpt.data.sources import ImageToFace
from facegpt.data.validate import validate_records
from facegpt.errors import ConfigError, SampleError
from facegpt.perception.align import crop_face

prepare = load_recipe("data_gen/prepare.py")
LENIENT = [
    "filters.sharpness=0",
    "detector=files",
    "cuts.quality=0",
    "cuts.size=64",
    "cuts.view=96",
    "shard=4",
]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def log_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for log in sorted(folder.glob("log/*.jsonl")) for line in log.open()]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[list[str], Path]:
    """13 photographs of 5 people and one broken one, prepared in this process: the words, and the folder."""
    root = tmp_path_factory.mktemp("prepare")
    for number in range(13):
        write_photo(root / "photos" / f"person{number % 5}" / f"{number}.png", number)
    inner = root / "photos" / "person3" / "3.npy"
    np.save(inner, np.load(inner)[17:])
    (root / "photos" / "person1" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    words = [f"photographs={root}/photos", *LENIENT, "people=folder", "validation=0.3", "test=0.3", "seed=5"]
    prepare.main([*words, f"out={root}/whole", "workers=0"])
    return words, root / "whole"


def test_what_was_prepared_trains(made):
    _, out = made
    people: dict[str, set[str]] = {}
    for split in prepare.SPLITS:
        records = validate_records(out / split)
        assert records.metadata["count"] == len(records)
        people[split] = {name.split("/")[0] for name in records.ids}
        sample = ImageToFace(records, 32).sample(0, 0)
        assert sample.images[0].size == (96, 96)  # the view is shown, the crop is compared with
        for record in records:
            contour = None if record.landmark_valid is None else bool(record.landmark_valid[:17].any())
            assert contour == (False if record.id == "person3/3.png" else None)
        assert records[0].image.size == (64, 64) and sample.faces[0].image.shape == (3, 32, 32)
    assert sum(map(len, people.values())) == 5 == len(set.union(*people.values()))  # nobody is in two splits
    lines = log_lines(out)
    assert sum(line.get("photographs", 0) for line in lines) == 14
    assert sum("split" in line for line in lines) == 13
    refused = [json.loads(line) for line in (out / "refused.jsonl").open()]
    assert [(row["name"], row["kind"]) for row in refused] == [("person1/broken.png", "unreadable")]


def test_the_shipped_configuration_loads():
    path = Path(__file__).parents[2] / "configs" / "photos" / "prepare.yaml"
    words = ["photographs=a", "out=b"]
    settings = load_config(prepare.PrepareSettings, path, words)
    assert settings.detector == "mediapipe" and settings.cuts.view == 336
    for word in ("shard=0", "test=1", "cuts.size=8", "cuts.wide=0.5", "filters.smallest=1", "faces=some"):
        with pytest.raises(ConfigError, match=word.partition("=")[0].rpartition(".")[2]):
            load_config(prepare.PrepareSettings, path, [*words, word])


def test_killed_again_and_again_it_makes_the_same_files(made, tmp_path, monkeypatch):
    words, whole = made
    rename = os.replace

    def run_until(renames: int) -> None:
        def replace(*paths):
            nonlocal renames
            renames -= 1
            if renames == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*paths)

        monkeypatch.setattr(facegpt.files.os, "replace", replace)
        prepare.main([*words, f"out={tmp_path}/out", "workers=0"])

    for renames in (3, 5, 4, 7):  # before shards and logs of several blocks
        child = multiprocessing.get_context("fork").Process(target=run_until, args=(renames,))
        child.start()
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
    partial = set(content(tmp_path / "out"))
    assert "report.html" not in partial and any(name.startswith("log/0") for name in partial)
    prepare.main([*words, f"out={tmp_path}/out", "workers=1"])  # the rest in a process of its own
    assert content(tmp_path / "out") == content(whole)


def test_other_settings_or_photographs_are_refused(made, tmp_path):
    words, out = made
    with pytest.raises(ConfigError, match="seed 5 and not 6"):
        prepare.main([*words, f"out={out}", "workers=0", "seed=6"])
    write_photo(tmp_path / "photos" / "a" / "1.png", 1)
    here = [f"photographs={tmp_path}/photos", f"out={tmp_path}/out", "workers=0", *LENIENT]
    prepare.main(here)
    write_photo(tmp_path / "photos" / "a" / "2.png", 2)
    with pytest.raises(ConfigError, match="not those"):
        prepare.main(here)
    (tmp_path / "none").mkdir()
    with pytest.raises(SampleError, match="has no photographs"):
        prepare.main([f"photographs={tmp_path}/none", f"out={tmp_path}/empty", "workers=0", *LENIENT])


def test_a_picture_that_was_saved_again_is_taken_once(tmp_path):
    for number in range(6):
        write_photo(tmp_path / "photos" / f"a{number}.png", number)
        again = photo(number).point(lambda value: int(0.9 * value + 10)).resize((480, 400))
        again.save(tmp_path / "photos" / f"b{number}.jpg", quality=60)
        np.save(tmp_path / "photos" / f"b{number}.npy", 2 * frontal_landmarks().numpy())
    prepare.main([f"photographs={tmp_path}/photos", f"out={tmp_path}/out", "workers=0", "test=0.4", *LENIENT])
    lines = log_lines(tmp_path / "out")
    assert {line["id"] for line in lines if "split" in line} == {f"a{number}.png" for number in range(6)}
    assert [line["kind"] for line in lines if line.get("id", "").startswith("b")] == ["duplicate"] * 6


def imglab(path: Path, faces: dict[str, list[np.ndarray]]) -> Path:
    """An XML file of landmarks, photograph -> faces (68,2), in whole pixels."""
    text = "<dataset><images>"
    for name, found in faces.items():
        text += f'<image file="{name}">'
        for points in found:
            parts = "".join(
                f'<part name="{k:02d}" x="{int(x)}" y="{int(y)}"/>' for k, (x, y) in enumerate(points)
            )
            text += f'<box top="0" left="0" width="1" height="1">{parts}</box>'
        text += "</image>"
    path.write_text(text + "</images></dataset>")
    return path


def test_every_kind_of_picture_ends_in_rows_or_a_reason(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    one = [frontal_landmarks().numpy()]
    faces = {
        name: one for name in ("gray.png", "deep.png", "print.jpg", "palette.png", "moving.gif", "turned.jpg")
    }
    photo(1).convert("L").save(folder / "gray.png")
    Image.fromarray(np.asarray(photo(2).convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    photo(3).convert("CMYK").save(folder / "print.jpg")
    photo(4).convert("P").save(folder / "palette.png", transparency=0)
    photo(5).save(folder / "moving.gif", save_all=True, append_images=[photo(6)])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    photo(7).transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif)
    photo(8, (1800, 900)).save(folder / "forty.png")
    faces["forty.png"] = [
        frontal_landmarks(80, 100 + 170 * (k % 10), 110 + 220 * (k // 10)).numpy() for k in range(40)
    ]
    photo(9).save(folder / "border.png")
    faces["border.png"] = [frontal_landmarks(90, 15, 110).numpy()]
    photo(10).save(folder / "outside.png")
    faces["outside.png"] = [frontal_landmarks(90, -400, 110).numpy()]
    photo(11).save(folder / "nobody.png")
    whole = (folder / "print.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.jpg").write_text("no picture at all")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (folder / "huge.ppm").write_bytes(b"P6 60000 60000 255\n" + bytes(100))
    os.mkfifo(folder / "pipe.png")
    words = [f"photographs={folder}", f"out={tmp_path}/out", *LENIENT, "workers=0", "faces=all", "test=0"]
    prepare.main([*words, f"detector={imglab(tmp_path / 'faces.xml', faces)}", "filters.duplicates=-1"])

    lines = log_lines(tmp_path / "out")
    records = {record.id: record for record in validate_records(tmp_path / "out" / "train")}
    assert {name.split("#")[0] for name in records} == set(faces) - {"border.png", "outside.png"}
    assert sum(name.startswith("forty.png") for name in records) == 40
    kinds = {line["name"]: line["kind"] for line in lines if "kind" in line}
    assert kinds == {
        **dict.fromkeys(("cut.jpg", "empty.jpg", "words.jpg", "phone.heic"), "unreadable"),
        **dict.fromkeys(("huge.ppm", "pipe.png"), "unreadable"),
        "border.png": "cut off",
        "outside.png": "landmarks",
        "nobody.png": "no face",
    }
    assert all(
        line["reason"].count("\n") == 0 and len(line["reason"]) > 20 for line in lines if "kind" in line
    )
    turned = np.asarray(records["turned.jpg#1"].image, dtype=float)
    expected, _, _ = crop_face(photo(7), frontal_landmarks(), 64)
    assert np.abs(turned - np.asarray(expected, dtype=float)).mean() < 6  # a JPEG of the same, turned back


def test_a_face_of_few_pixels_is_not_scaled_up(tmp_path):
    write_photo(tmp_path / "photos" / "1.png", 1)
    words = [
        f"photographs={tmp_path}/photos",
        f"out={tmp_path}/out",
        "workers=0",
        "test=0",
        "validation=0",
        *LENIENT,
    ]
    prepare.main([*words, "cuts.size=224", "cuts.view=336"])
    (record,) = read_records(tmp_path / "out" / "train")
    extent = frontal_landmarks()
    side = int(1.375 * float((extent.amax(0) - extent.amin(0)).mean()))
    assert record.image.size == (side, side) and record.shown.size == (2 * side, 2 * side)


def test_the_page_holds_everything_itself(made):
    _, out = made
    page = (out / "report.html").read_text()
    assert "http" not in page and page.count("data:image/jpeg;base64") >= 8 and "unreadable" in page
    assert page.count("<svg") == 6

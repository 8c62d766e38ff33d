"""The four meetings: what is written, and which outcome is an error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_files import face_image, face_landmarks
from PIL import Image
from recipes import load_recipe
from small_head import small_head, small_head_data
from talking_model import talking_model

from facegpt import chat
from facegpt.commands import chat_turns
from facegpt.config import run
from facegpt.head.files.format import save_head
from facegpt.model.checkpoint import save_checkpoint

meet = load_recipe("scripts/meet.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head file, a model that says `<FACE>` first whatever it is asked, and one photograph."""
    path = tmp_path_factory.mktemp("meet")
    save_head(small_head_data(), path / "head.npz")
    save_checkpoint(talking_model(small_head(), path / "llava"), path / "run", small_head().id)
    (path / "photos").mkdir()
    face_image().save(path / "photos" / "one.png")
    np.save(path / "photos" / "one.npy", face_landmarks())
    return path


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_turns, "PICTURE_SIZE", 32)


def words(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        *(f"checkpoint={folder / 'run'}", f"head={folder / 'head.npz'}", f"data={folder / 'photos'}"),
        *(f"out={out}", "device=cpu", "max_new_tokens=2", *more),
    ]


def test_what_was_said_is_written_and_a_face_for_a_question_is_an_error(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(meet.main, words(folder, tmp_path, "check=false")) == 0
    shown = capsys.readouterr().out
    told = json.loads((tmp_path / "meetings.json").read_text())
    assert [row["meeting"] for row in told["meetings"]] == [
        "photograph",
        "explicit",
        "speculative",
        "question",
    ]
    for row in told["meetings"]:
        assert row["asked"] in shown and row["answered"] in shown
        assert len(row["files"]) == len(row["probabilities"]) == row["answered"].count("<FACE>")
        assert all(Path(file).is_file() and Path(file).with_suffix(".png").is_file() for file in row["files"])
    sheet = Image.open(tmp_path / "meetings.jpg")
    assert sheet.width > sheet.height / 2 > 400
    expected = [meeting.face for meeting in meet.MEETINGS]
    came = [bool(row["files"]) for row in told["meetings"]]
    code = run(meet.main, words(folder, tmp_path))
    assert code == (0 if came == expected else 1)


@pytest.mark.parametrize(
    ("came", "code", "says"),
    [
        ((1, 1, 2, 0), 0, ""),
        ((1, 1, 1, 1), 1, "question brought a face that nobody asked for"),
        ((0, 1, 0, 0), 1, "photograph brought no face, speculative brought no face"),
    ],
)
def test_the_three_give_faces_and_the_question_none(
    capsys: pytest.CaptureFixture[str], came: tuple[int, ...], code: int, says: str
) -> None:
    assert meet.judge([{"files": ["face.glb"] * count} for count in came]) == code
    assert says in capsys.readouterr().err


def test_a_part_that_is_missing_has_an_exit_code_of_its_own(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(chat, "SHIPPED_MODEL", tmp_path / "none")
    arguments = [word for word in words(folder, tmp_path / "out") if not word.startswith("checkpoint")]
    assert run(meet.main, arguments) == meet.MISSING_PART_CODE == 3
    error = capsys.readouterr().err
    assert "comes without its model" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_without_photographs_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run(meet.main, [*words(folder, tmp_path / "out"), f"data={tmp_path / 'empty'}"]) == 1

"""A file of requests: answered in batches, picked up where a run was killed, refused before any model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from small_head import small_head, small_head_data
from talking_model import gray_image, talking_model

from facegpt.chat import ChatSession
from facegpt.commands import chat, chat_batch, chat_picture, chat_turns
from facegpt.config import run
from facegpt.files import take_lock
from facegpt.head.files.format import save_head
from facegpt.model.checkpoint import load_facegpt, save_checkpoint
from facegpt.sample import FACE_TOKEN

REQUESTS: list[dict[str, Any]] = [
    {"id": "smile", "text": "Show me the face of a person who smiles, please."},
    {"id": "photo", "text": "Who is it?", "image": "pictures/photo.png", "kind": "of no interest here"},
    {"id": "short", "text": "Why?"},
    {"id": "same", "text": "What does it look like?", "image": "pictures/photo.png"},
    {"id": "last", "text": "And a face whose jaw is open."},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head file, a run whose model says `<FACE>`, and a file of requests with a picture beside it."""
    path = tmp_path_factory.mktemp("batch")
    save_head(small_head_data(), path / "head.npz")
    model = talking_model(small_head(), path / "llava")
    save_checkpoint(model, path / "run", small_head().id)
    (path / "pictures").mkdir()
    gray_image().save(path / "pictures" / "photo.png")
    write(path / "requests.jsonl", REQUESTS)
    return path


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_machine(monkeypatch)


def patch_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures of faces, photographs as they are, and float32, whatever this machine has."""
    monkeypatch.setattr(chat_turns, "PICTURE_SIZE", 32)
    for module in (chat_picture, chat_batch):
        monkeypatch.setattr(module, "missing_landmarker", lambda: "nobody finds faces here")
    monkeypatch.setattr("facegpt.model.backbone.cpu_multiplies_bfloat16", lambda: False)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))  # without a newline at the end
    return path


def words(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--checkpoint", str(folder / "run"), "--head", str(folder / "head.npz"), "--out", str(out)),
        *("--batch", str(folder / "requests.jsonl"), "--device", "cpu", "--max-new-tokens", "3", *more),
    ]


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "replies.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def replies(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one run over all requests wrote, in batches of two."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch_machine(patch)
        assert run(chat.main, words(folder, out, "--batch-size", "2")) == 0
    return read(out)


def test_every_request_gets_the_reply_of_a_conversation_of_its_own(
    folder: Path, replies: list[dict[str, Any]]
) -> None:
    assert [row["id"] for row in replies] == [row["id"] for row in REQUESTS]
    model, _ = load_facegpt(folder / "run", small_head(), merge=True)
    for row, asked in zip(replies, REQUESTS, strict=True):
        turn = ChatSession(model, 3).say(asked["text"], gray_image() if "image" in asked else None)
        assert (row["request"], row["image"]) == (asked["text"], asked.get("image"))
        assert row["text"] == turn.text and row["faces"] == len(turn.faces) == turn.text.count(FACE_TOKEN)
        assert row["probabilities"] == pytest.approx(turn.probabilities, abs=1e-4)
        for coefficients, face in zip(row["parameters"], turn.faces, strict=True):
            vector = torch.tensor([[number["value"] for number in coefficients]])
            assert torch.allclose(vector, face.to_vector(), atol=1e-4)
            assert coefficients[0].keys() == {"index", "group", "name", "unit", "value"}
    assert sum(row["faces"] for row in replies) > 0


def test_a_killed_run_goes_on_where_it_was(
    folder: Path, tmp_path: Path, replies: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replies were written, of a third only the half; the answers need no batches of the same size."""
    lines = [json.dumps(row) for row in replies]
    assert run(chat.main, words(folder, tmp_path)) == 0
    (tmp_path / "replies.jsonl").write_text(f"{lines[3]}\n{lines[0]}\n{lines[2][:40]}")
    asked: list[str] = []
    original = chat_batch.answer_batch

    def watched(model: Any, requests: Any, *rest: Any) -> Any:
        asked.extend(request.id for request in requests)
        return original(model, requests, *rest)

    monkeypatch.setattr(chat_batch, "answer_batch", watched)
    assert run(chat.main, words(folder, tmp_path, "--batch-size", "1")) == 0
    assert asked == ["photo", "short", "last"]
    again = read(tmp_path)
    assert [row["id"] for row in again] == [row["id"] for row in REQUESTS]
    assert [row["text"] for row in again] == [row["text"] for row in replies]
    before = (tmp_path / "replies.jsonl").read_bytes()
    monkeypatch.setattr(chat_batch, "open_model", None)  # nothing is left to do, so nothing is loaded
    assert run(chat.main, words(folder, tmp_path)) == 0
    assert (tmp_path / "replies.jsonl").read_bytes() == before


def test_meshes_are_written_under_the_ids(folder: Path, tmp_path: Path) -> None:
    assert run(chat.main, words(folder, tmp_path, "--meshes")) == 0
    names = {
        f"{row['id']}_{n}.{kind}"
        for row in read(tmp_path)
        for n in range(row["faces"])
        for kind in ("glb", "png")
    }
    assert names and {file.name for file in tmp_path.iterdir()} == names | {"replies.jsonl", "replies.json"}
    mesh = trimesh.load_mesh(tmp_path / min(name for name in names if name.endswith("glb")), process=False)
    assert len(mesh.vertices) >= small_head().v_template.shape[0]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"id": "a", "text": "Who?"}', "{"], "requests.jsonl:2: it is not JSON in UTF-8"),
        (["[1]"], "requests.jsonl:1: it is not a JSON object"),
        (['{"text": "Who?"}'], "'id' must be there"),
        (['{"id": "a"}'], "'text' must be there"),
        (['{"id": 1, "text": "Who?"}'], "'id' must be there and a text"),
        (['{"id": "a", "text": " "}'], "requests.jsonl:1: the message is empty"),
        (['{"id": "a", "text": "<FACE>"}'], "spells <FACE>"),
        (['{"id": "a", "text": "\\ud800"}'], "not valid UTF-8"),
        (['{"id": "", "text": "Who?"}'], "the id '' is empty"),
        (
            ["", '{"id": "a", "text": "x"}', '{"id": "a", "text": "y"}'],
            "requests.jsonl:3: line 2 has the id a",
        ),
        (["{", "{}", "{}"], "; 2 more lines are bad (2, 3)"),
        (['{"id": "a", "text": "x", "image": 3}'], "'image' must be the path"),
        (['{"id": "a", "text": "x", "image": "no.png"}'], "requests.jsonl:1: "),
        ([" "], "holds no request"),
        (["[" * 100_000], "it is not JSON"),
    ],
)
def test_bad_requests_are_refused_before_the_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    lines: list[str], says: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(chat_batch, "open_model", None)
    (tmp_path / "requests.jsonl").write_text("\n".join(lines))
    arguments = words(folder, tmp_path / "out", "--batch", str(tmp_path / "requests.jsonl"))
    assert run(chat.main, arguments) == 1
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_ids_that_name_no_file_are_refused_with_meshes_only(folder: Path, tmp_path: Path) -> None:
    for name in ("../up", "a/b", ".hidden", "x" * 101, "a b"):
        file = write(tmp_path / "requests.jsonl", [{"id": name, "text": "Who?"}])
        arguments = words(folder, tmp_path / "out", "--batch", str(file), "--meshes")
        assert run(chat.main, arguments) == 1
    file = write(tmp_path / "requests.jsonl", [{"id": "../up", "text": "Who?"}])
    assert run(chat.main, words(folder, tmp_path / "out", "--batch", str(file))) == 0


def change_request(path: Path, folder: Path) -> list[str]:
    file = write(path / "others.jsonl", [{"id": "smile", "text": "Show me a frown."}])
    return words(folder, path / "out", "--batch", str(file))


def change_length(path: Path, folder: Path) -> list[str]:
    return [*words(folder, path / "out"), "--max-new-tokens", "2"]


def spoil_replies(path: Path, folder: Path) -> list[str]:
    (path / "out" / "replies.jsonl").write_text('{"id": "smile"}\n')
    return words(folder, path / "out")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_request, "holds the reply to another request"),
        (change_length, "had another max_new_tokens"),
        (spoil_replies, "has a line that is no reply"),
    ],
)
def test_replies_that_do_not_belong_together_are_not_mixed(
    folder: Path, tmp_path: Path, replies: list[dict[str, Any]], capsys: pytest.CaptureFixture[str],
    change: Callable[[Path, Path], list[str]], says: str,
) -> None:  # fmt: skip
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "replies.jsonl").write_text(json.dumps(replies[0]) + "\n")
    settings = chat.ChatSettings(checkpoint=folder / "run", max_new_tokens=3)
    about = chat_batch.circumstances(settings, folder / "run")
    (tmp_path / "out" / "replies.json").write_text(json.dumps(about))
    arguments = change(tmp_path, folder)
    before = (tmp_path / "out" / "replies.jsonl").read_bytes()
    assert run(chat.main, arguments) == 1
    error = capsys.readouterr().err
    assert says in error and "name another --out" in error
    assert (tmp_path / "out" / "replies.jsonl").read_bytes() == before


def test_two_runs_do_not_write_into_one_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "replies.jsonl").open("ab") as file:
        assert take_lock(file)
        assert run(chat.main, words(folder, tmp_path)) == 1
    assert "another facegpt writes into" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [("--prompt", "Who?"), ("--image", "x.png"), ("--rigged",), ("--temperature", "1")]
)
def test_what_belongs_to_a_chat_is_refused_with_a_batch(
    folder: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    assert run(chat.main, words(folder, tmp_path / "out", *more)) == 2
    assert not (tmp_path / "out").exists()

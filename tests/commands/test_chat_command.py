"""The chat script: one question to files, an interactive chat, and errors in one sentence."""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from gltf_player import Player
from PIL import Image
from small_head import small_head, small_head_data
from talking_model import gray_image, talking_model

from facegpt.chat import ChatSession, Turn
from facegpt.commands import chat, chat_picture, chat_repl, chat_turns
from facegpt.config import run
from facegpt.errors import MissingPartError
from facegpt.head.files.format import save_head
from facegpt.head.parameters import FaceParameters
from facegpt.model.checkpoint import load_facegpt, save_checkpoint
from facegpt.perception.align import crop_face
from facegpt.perception.face_landmarker import FoundFace
from facegpt.sample import FACE_TOKEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head file, a picture, and a run whose model begins every reply with a face."""
    path = tmp_path_factory.mktemp("chat")
    save_head(small_head_data(), path / "head.npz")
    model = talking_model(small_head(), path / "llava")
    for step in (1, 2):
        save_checkpoint(model, path / "run" / "checkpoints" / f"step_{step:06d}", small_head().id)
    gray_image().save(path / "photo.png")
    return path


@pytest.fixture(autouse=True)
def no_landmarker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures of faces, and photographs as they are, whatever parts this machine has."""
    monkeypatch.setattr(chat_turns, "PICTURE_SIZE", 48)
    monkeypatch.setattr(chat_picture, "missing_landmarker", lambda: "nobody finds faces here")


def words(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--checkpoint", str(folder / "run"), "--head", str(folder / "head.npz"), "--out", str(out)),
        *("--device", "cpu", "--max-new-tokens", "2", *more),
    ]


def test_one_question_writes_the_reply_and_every_face(folder: Path, tmp_path: Path) -> None:
    arguments = ["--prompt", "Show me the face.", "--image", str(folder / "photo.png")]
    assert run(chat.main, words(folder, tmp_path / "out", *arguments)) == 0
    reply = (tmp_path / "out" / "reply.txt").read_text().rstrip("\n")
    faces = reply.count(FACE_TOKEN)
    assert faces > 0
    files = {f"face_{n}.{kind}" for n in range(faces) for kind in ("glb", "png", "json")}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files | {"reply.txt"}

    model, _ = load_facegpt(folder / "run" / "checkpoints" / "step_000002", small_head(), merge=True)
    turn = ChatSession(model, 2).say("Show me the face.", gray_image())
    assert turn.text == reply
    for number, face in enumerate(turn.faces):
        saved = json.loads((tmp_path / "out" / f"face_{number}.json").read_text())
        vector = torch.tensor([[row["value"] for row in saved["coefficients"]]])
        assert torch.equal(vector, face.to_vector()) and saved["head_id"] == small_head().id
        mesh = trimesh.load_mesh(tmp_path / "out" / f"face_{number}.glb", process=False)
        vertices = small_head()(FaceParameters.from_vector(vector, small_head().layout)).vertices[0].numpy()
        assert np.allclose(mesh.vertices[: len(vertices)], vertices, atol=1e-6)
        assert Image.open(tmp_path / "out" / f"face_{number}.png").size == (48, 48)


def test_rigged_faces_are_written_beside_the_plain_ones(folder: Path, tmp_path: Path) -> None:
    assert run(chat.main, words(folder, tmp_path, "--prompt", "Show me the face.", "--rigged")) == 0
    plain, rigged = (Player(tmp_path / f"face_0{kind}.glb") for kind in ("", "_rigged"))
    assert np.allclose(rigged.show(), plain.attribute("POSITION"), rtol=0, atol=1e-6)
    triangles = [player.accessor(player.primitive["indices"]) for player in (plain, rigged)]
    assert np.array_equal(*triangles)


def test_nothing_that_is_in_the_folder_is_removed_or_replaced(folder: Path, tmp_path: Path) -> None:
    """The input itself lies in the folder under a name like a result's, as do files of an earlier chat."""
    Image.open(folder / "photo.png").save(tmp_path / "face_001.png")
    for name in ("face_4.glb", "face_17.json", "face_to_keep.glb", "reply.txt", "face_2_rigged.glb"):
        (tmp_path / name).write_text("the user's")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    more = ["--prompt", "Show me the face.", "--image", str(tmp_path / "face_001.png")]
    assert run(chat.main, words(folder, tmp_path, *more)) == 0
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert {name: after[name] for name in before} == before
    faces = (tmp_path / "reply_1.txt").read_text().count(FACE_TOKEN)
    new = {f"face_{18 + n}.{kind}" for n in range(faces) for kind in ("glb", "png", "json")}
    assert faces > 0 and after.keys() - before.keys() == new | {"reply_1.txt"}


def test_two_chats_into_one_folder_keep_all_their_faces(folder: Path, tmp_path: Path) -> None:
    head, face = small_head(), small_head().mean_parameters()
    writers = [chat_turns.Writer(head, tmp_path) for _ in range(2)]

    def talk(writer: chat_turns.Writer) -> list[Path]:
        return [file for _ in range(4) for file in writer.write(Turn(FACE_TOKEN, [face], [0.5]))]

    with ThreadPoolExecutor(2) as pool:
        files = [file for written in pool.map(talk, writers) for file in written]
    assert sorted(file.name for file in files) == [f"face_{n}.glb" for n in range(8)]
    replies = [file.read_text() for file in tmp_path.glob("reply*.txt")]
    assert replies == [f"{FACE_TOKEN}\n" * 4] * 2


def test_a_reply_without_a_face_is_an_error_when_one_is_expected(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ChatSession, "say", lambda self, text, image, hear: Turn("No.", [], []))
    arguments = words(folder, tmp_path / "out", "--prompt", "Who?")
    assert run(chat.main, arguments) == 0
    assert run(chat.main, [*arguments, "--expect-face"]) == chat_repl.NO_FACE_CODE == 3
    assert "has no face" in capsys.readouterr().err
    assert run(chat.main, [*words(folder, tmp_path / "out"), "--expect-face"]) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_model_is_one_sentence(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: float,
) -> None:
    face = small_head().mean_parameters()
    face = face.replace(shape=torch.full_like(face.shape, value))
    monkeypatch.setattr(ChatSession, "say", lambda self, text, image, hear: Turn(FACE_TOKEN, [face], [0.5]))
    assert run(chat.main, words(folder, tmp_path / "out", "--prompt", "Who?")) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "speaks a face that is none" in error


def test_a_line_that_is_no_utf8_does_not_end_an_interactive_chat(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = io.TextIOWrapper(io.BytesIO(b"caf\xe9\nShow me the face.\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", typed)
    assert run(chat.main, words(folder, tmp_path)) == 0
    assert len((tmp_path / "reply.txt").read_text().splitlines()) == 1
    assert "error: the message is not valid UTF-8" in capsys.readouterr().err


def test_an_interactive_chat_goes_on_after_a_mistake_and_numbers_faces_through(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(
        [
            "Show me the face.",
            "/image nowhere.jpg",
            f"/image {folder / 'photo.png'}",
            "And now?",
            "/new",
            "",
            "Hi.",
        ]
    )

    def type_line(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", type_line)
    assert run(chat.main, words(folder, tmp_path / "out")) == 0
    texts = (tmp_path / "out" / "reply.txt").read_text().splitlines()
    assert len(texts) == 3
    count = sum(text.count(FACE_TOKEN) for text in texts)
    assert {p.name for p in (tmp_path / "out").glob("*.glb")} == {f"face_{n}.glb" for n in range(count)}
    shown = capsys.readouterr()
    assert "nowhere.jpg: no such image file" in shown.err and "goes with your next message" in shown.out


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """The pictures that the model is shown."""
    seen: list[Image.Image] = []
    original = ChatSession.say
    monkeypatch.setattr(
        ChatSession, "say", lambda self, text, image, hear: seen.append(image) or original(self, text, image)
    )
    return seen


def test_a_photograph_is_cut_by_its_landmarks_as_in_training(
    folder: Path, tmp_path: Path, shown: list[Image.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    points = np.random.default_rng(0).uniform(15, 30, (68, 2)).astype(np.float32)
    np.save(tmp_path / "photo.npy", points)
    more = ["--prompt", "Who?", "--image", str(folder / "photo.png"), "--landmarks"]
    assert run(chat.main, words(folder, tmp_path / "out", *more, str(tmp_path / "photo.npy"))) == 0
    expected = crop_face(gray_image(), torch.from_numpy(points))[0]
    assert np.array_equal(np.asarray(shown[0]), np.asarray(expected)) and shown[0].size == (224, 224)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("faces", "says"),
    [(0, "goes in whole: no face was found in it"), (1, ""), (2, "has 2 faces: the largest is taken")],
)
def test_the_largest_face_of_a_photograph_is_found_and_cut_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: list[Image.Image],
    capsys: pytest.CaptureFixture[str], faces: int, says: str,
) -> None:  # fmt: skip
    points = torch.from_numpy(np.random.default_rng(1).uniform(15, 30, (2, 68, 2))).float()
    found = [FoundFace(torch.zeros(478, 3), points[k], 0.9, (0, 0, 9, 9)) for k in range(faces)]
    landmarker = SimpleNamespace(find=lambda image: found)
    monkeypatch.setattr(chat_picture, "missing_landmarker", lambda: "")
    monkeypatch.setattr(chat_picture, "_landmarker", lambda: landmarker)
    more = ["--prompt", "Who?", "--image", str(folder / "photo.png")]
    assert run(chat.main, words(folder, tmp_path / "out", *more)) == 0
    expected = crop_face(gray_image(), points[0])[0] if faces else gray_image()
    assert np.array_equal(np.asarray(shown[0]), np.asarray(expected))
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == (says != "")


def test_without_the_part_that_finds_faces_a_picture_goes_in_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("FACEGPT_HOME", str(tmp_path / "cache"))
    chat_picture.missing_landmarker.cache_clear()
    image, note = chat_picture.read_picture(folder / "photo.png")
    chat_picture.missing_landmarker.cache_clear()
    assert image.size == gray_image().size
    assert "goes in as it is" in note and "`facegpt fetch face_landmarker`" in note


def test_without_a_checkpoint_the_model_of_the_package_answers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And its files are in `faces`, so that a prompt is all that a newcomer has to give."""
    monkeypatch.chdir(tmp_path)
    arguments = ["--prompt", "Show me the face.", "--head", str(folder / "head.npz"), "--max-new-tokens", "2"]
    monkeypatch.setattr("facegpt.chat.SHIPPED_MODEL", tmp_path / "not here")
    assert run(chat.main, arguments) == 1
    error = capsys.readouterr().err
    assert "comes without its model" in error and "--checkpoint RUN" in error and error.count("\n") == 1
    monkeypatch.setattr("facegpt.chat.SHIPPED_MODEL", folder / "run" / "checkpoints" / "step_000002")
    assert run(chat.main, arguments) == 0
    assert "wrote faces/face_0.glb" in capsys.readouterr().out and Path("faces/face_0.glb").is_file()


def test_a_part_of_the_backbone_that_was_not_fetched_is_its_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise MissingPartError("a part is missing; run `facegpt fetch small`")

    monkeypatch.setattr("facegpt.model.checkpoint.load_backbone", missing)
    assert run(chat.main, words(folder, tmp_path / "out", "--prompt", "Who?")) == 1
    assert capsys.readouterr().err == "error: a part is missing; run `facegpt fetch small`\n"
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_the_command_line_is_said_before_the_libraries_are_imported() -> None:
    code = (
        "import sys; from facegpt.__main__ import main; from facegpt.config import run\n"
        "print(run(main, ['chat', '--promt', 'Who?']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n" and "did you mean prompt?" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "says", "code"),
    [
        ("--checkpoint", "no-run", "no-run holds no checkpoint", 1),
        ("--image", "no.png", "no.png: no such image file", 1),
        ("--head", "no.npz", "no.npz", 1),
        ("--backbone", "./no-llava", "no-llava", 1),
        ("--prompt", " ", "empty", 1),
        ("--prompt", "<image> who?", "<image>", 1),
        ("--device", "toaster", "device=toaster", 1),
        ("--out", "/dev/null/out", "/dev/null is no folder", 1),
        ("--max-new-tokens", "0", "max_new_tokens", 2),
        ("--temperature", "-1", "temperature", 2),
        ("--temperature", "nan", "temperature", 2),
        ("--landmarks", "no.npy", "without the image", 2),
        ("--promt", "Who?", "did you mean prompt?", 2),
    ],
)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    option: str, value: str, says: str, code: int,
) -> None:  # fmt: skip
    arguments = words(folder, tmp_path / "out", "--prompt", "Who?")
    assert run(chat.main, [*arguments, option, value]) == code
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_head_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_head(small_head_data(seed=1), tmp_path / "other.npz")
    arguments = words(folder, tmp_path / "out", "--prompt", "Who?", "--head", str(tmp_path / "other.npz"))
    assert run(chat.main, arguments) == 1
    assert "trained with head model" in capsys.readouterr().err


def test_a_folder_whose_file_system_knows_no_locks_is_written_all_the_same(monkeypatch, tmp_path):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with chat_turns.locked(tmp_path):
        pass


def test_piped_lines_are_answered_in_turn_and_json_is_all_that_is_printed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["Show me the face.", "/expression", "/expression smile 0.5", "/image nowhere.png"]
    lines += [f"/save {tmp_path / 'kept'}", "/expression smile much", "/reset", "/expression smile 1"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert run(chat.main, [*words(folder, tmp_path / "out"), "--json"]) == 0
    shown = capsys.readouterr()
    first, changed, *errors = (json.loads(line) for line in shown.out.splitlines())
    assert first["text"].startswith(FACE_TOKEN) and Path(first["faces"][0]["glb"]).is_file()
    before, after = (coefficients(Path(reply["faces"][-1]["json"])) for reply in (first, changed))
    assert after == {**before, "smile": 0.5} != before
    assert [error["error"].split(";")[0] for error in errors] == [
        "nowhere.png: no such image file",
        "how strong? write a number, 0 for absent and 1 for full, as in `smile 0.5`",
        "there is no face yet",
    ]
    count = len(first["faces"]) + 1
    assert f"{count} faces into" in shown.err
    assert len(list((tmp_path / "kept").glob("*_rigged.glb"))) == count


def coefficients(file: Path) -> dict[str, float]:
    return {row["name"]: row["value"] for row in json.loads(file.read_text())["coefficients"]}


def test_a_prompt_with_json_is_one_object(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(chat.main, [*words(folder, tmp_path), "--prompt", "Show me the face.", "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert reply["text"] == (tmp_path / "reply.txt").read_text().rstrip("\n")
    assert all(0 < face["probability"] <= 1 for face in reply["faces"])

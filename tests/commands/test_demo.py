"""The web demo without a browser: answers, files, sliders, several visitors at once, hostile input."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
import trimesh
from small_head import small_head, small_head_data
from talking_model import gray_image, talking_model

from facegpt.chat import ChatSession
from facegpt.commands import chat_picture, demo_faces, demo_sliders
from facegpt.commands.demo import DemoSettings, main
from facegpt.commands.demo_messages import answered, question
from facegpt.commands.demo_visits import Exchange
from facegpt.config import run
from facegpt.export.face_files import read_faces
from facegpt.head.files.format import save_head
from facegpt.head.model import HeadModel
from facegpt.model.checkpoint import load_facegpt, save_checkpoint
from facegpt.visualize import LIGHTS

PATIENCE = 120.0  # seconds; of a machine that has much else to do
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
QUESTIONS = [f"Show me the face number {word}." for word in NUMBERS]


@dataclass
class Served:
    """A running demo of a tiny model that begins every reply with a face."""

    url: str
    folder: Path
    checkpoint: Path

    def alone(self, text: str) -> tuple[str, int]:
        """What the model says to `text` in a conversation of its own, and with how many faces."""
        model, _ = load_facegpt(self.checkpoint, small_head(), merge=True)
        turn = ChatSession(model, 4).say(text)
        return turn.text, len(turn.faces)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gradio", reason='the demo needs gradio: pip install "facegpt[demo]"')
    from facegpt.commands import demo

    path = tmp_path_factory.mktemp("demo")
    save_head(small_head_data(), path / "head.npz")
    model = talking_model(small_head(), path / "llava")
    save_checkpoint(model, path / "run", small_head().id)
    (path / "files").mkdir()
    settings = DemoSettings(
        path / "run", str(path / "head.npz"), device="cpu", max_new_tokens=4, port=free_port()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_faces, "PICTURE_SIZE", 32)
        patch.setattr(chat_picture, "missing_landmarker", lambda: "nobody finds faces here")
        page = demo.start(settings, path / "files")
        yield Served(page.local_url, path / "files", path / "run")
        page.close(verbose=False)


def free_port() -> int:
    import socket

    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def visitor(served: Served):  # type: ignore[no-untyped-def]
    from gradio_client import Client

    return Client(served.url, verbose=False, download_files=False, httpx_kwargs={"timeout": PATIENCE})


def ask(client, text: str, file: str | None = None) -> list[dict]:  # type: ignore[no-untyped-def, type-arg]
    client.predict(
        {"text": text, "files": [{"path": file, "meta": {"_type": "gradio.FileData"}}] if file else []},
        api_name="/take",
    )
    return client.predict(api_name="/answer")


def said(messages: list[dict]) -> list[str]:  # type: ignore[type-arg]
    return [message["content"][0]["text"] for message in messages]


def test_eight_visitors_at_once_get_the_answers_to_their_own_questions(served: Served) -> None:
    with ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(lambda _: visitor(served), QUESTIONS))
        first = list(pool.map(ask, clients, QUESTIONS))
        second = list(pool.map(ask, clients, reversed(QUESTIONS)))
    for text, other, once, twice in zip(QUESTIONS, reversed(QUESTIONS), first, second, strict=True):
        asked = [question(Exchange(text)), question(Exchange(other))]
        assert said(once)[0] == asked[0] and said(twice)[::2] == asked
        reply, faces = served.alone(text)
        assert said(once)[1].count("face-card") == faces > 0
        assert said(once)[1].startswith(answered(Exchange("", reply=reply), []).split("<b>")[0])
    cards = [address for once in first for address in addresses(said(once)[1])]
    assert len(set(cards)) == len(cards)  # nobody sees another's files


def addresses(reply: str) -> list[str]:
    return [piece.split('"')[0] for piece in reply.split('href="')[1:]]


def test_the_files_of_a_card_are_those_of_the_face(served: Served) -> None:
    client = visitor(served)
    reply = said(ask(client, QUESTIONS[0]))[1]
    model, _ = load_facegpt(served.checkpoint, small_head(), merge=True)
    face = ChatSession(model, 4).say(QUESTIONS[0]).faces[0]
    links = addresses(reply)[: len(demo_faces.FILES)]
    content = {Path(link).name: httpx.get(served.url + link, timeout=PATIENCE).content for link in links}
    folder = served.folder / "taken"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    read = read_faces(folder / "face_1.json").parameters.to_vector()
    assert torch.allclose(read, face.to_vector(), atol=1e-5)
    vertices = trimesh.load_mesh(folder / "face_1.glb", process=False).vertices
    expected = small_head()(face).vertices[0].numpy()
    assert abs(vertices[: len(expected)] - expected).max() < 1e-5
    assert (folder / "face_1.png").read_bytes().startswith(b"\x89PNG")
    assert b'"targetNames"' in (folder / "face_1_rigged.glb").read_bytes()
    with zipfile.ZipFile(folder / "face_1_obj.zip") as archive:
        assert sorted(archive.namelist()) == ["face_1.mtl", "face_1.obj", "face_1.png"]


def test_a_slider_changes_the_selected_face_and_nothing_else(served: Served) -> None:
    client = visitor(served)
    ask(client, QUESTIONS[1])
    panel = client.predict(api_name="/face")
    sliders = demo_sliders.face_sliders(small_head())
    values = [part["value"] for part in panel[-len(sliders) - 3 :]]
    views = client.predict(*[1.0, *values[1:]], api_name="/change")
    found = re.search(r"[^'\"]*/face_\d+\.glb", str(views))
    assert found, views
    changed = Path(found.group()).with_suffix(".json")
    before = read_faces(changed.parent.parent / "0" / changed.name)
    after = read_faces(changed).parameters
    column = sliders[0].columns[0]
    assert after.expression[0, column] == pytest.approx(1.0, abs=1e-5)
    after.expression[0, column] = before.parameters.expression[0, column]
    assert torch.allclose(after.to_vector(), before.parameters.to_vector())


@pytest.mark.parametrize(
    ("name", "data"),
    [("note.jpg", b"no picture at all"), ("torn.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 64)],
    ids=["text", "torn"],
)
def test_a_broken_upload_is_a_sentence_in_the_chat(served: Served, name: str, data: bytes) -> None:
    client = visitor(served)
    path = upload(served, name, data)
    reply = said(ask(client, "Who is this?", path))[1]
    assert "cannot be decoded" in reply and "error" in reply and str(served.folder) not in reply
    assert not Path(path).exists()
    assert len(said(ask(client, QUESTIONS[0]))) == 4  # the conversation goes on


def upload(served: Served, name: str, data: bytes) -> str:
    sent = httpx.post(f"{served.url}gradio_api/upload", files={"files": (name, data)}, timeout=PATIENCE)
    return str(sent.json()[0])


def test_an_upload_is_deleted_after_its_use(served: Served, tmp_path: Path) -> None:
    gray_image().save(tmp_path / "photo.png")
    path = upload(served, "photo.png", (tmp_path / "photo.png").read_bytes())
    shown = said(ask(visitor(served), "Who is this?", path))
    assert 'class="shown"' in shown[0] and not Path(path).exists()


def test_only_the_demos_own_files_are_served(served: Served) -> None:
    for path in (
        "/etc/passwd",
        str(served.checkpoint / "description.json"),
        str(Path(__file__)),
        "http://localhost/x",
    ):
        assert httpx.get(f"{served.url}gradio_api/file={path}", timeout=PATIENCE).status_code == 403
    sent = {"data": [{"text": "look", "files": [{"path": "/etc/passwd"}]}], "session_hash": "x"}
    assert httpx.post(f"{served.url}gradio_api/run/take", json=sent, timeout=PATIENCE).status_code == 500
    home = httpx.get(served.url, timeout=PATIENCE)
    assert "default-src 'self'" in home.headers["content-security-policy"]


def test_what_a_visitor_writes_is_words_and_not_markup() -> None:
    exchange = Exchange(
        "<script>alert(1)</script> **bold** [x](javascript:y) `c`", reply="<img src=x> <FACE>"
    )
    for text in (question(exchange), answered(exchange, [])):
        assert not set("<*[`") & set(text.replace("<b>a face</b>", ""))


def test_the_light_of_the_studio_is_where_its_sliders_start() -> None:
    start = [slider.studio for slider in demo_sliders.LIGHT_SLIDERS]
    assert demo_sliders.lights(start) == LIGHTS
    left = demo_sliders.lights([-90, 0, 2])
    assert left[0][0] == pytest.approx((-1, 0, 0)) and left[1][1] == tuple(2 * x for x in LIGHTS[1][1])


def test_sliders_start_at_the_answer_and_keep_what_is_crooked() -> None:
    head = HeadModel.open("builtin")
    face = head.mean_parameters()
    names = list(head.expression_names)
    left, right = names.index("mouthSmileLeft"), names.index("mouthSmileRight")
    face.expression[0, left], face.expression[0, right] = 0.5, 0.1
    sliders = demo_sliders.face_sliders(head)
    values = demo_sliders.positions(face, sliders)
    assert values[0] == 0.3 and sliders[0].name == "Smile"
    assert torch.equal(demo_sliders.moved(face, sliders, values).to_vector(), face.to_vector())
    wider = demo_sliders.moved(face, sliders, [0.7, *values[1:]])
    assert wider.expression[0, [left, right]].tolist() == pytest.approx([0.9, 0.5])
    turn = next(k for k, slider in enumerate(sliders) if slider.name == "Turn")
    values[turn] = 30.0
    assert demo_sliders.moved(face, sliders, values).pose[0, 1] == pytest.approx(torch.pi / 6)
    with pytest.raises(ValueError, match="must be a number"):
        demo_sliders.moved(face, sliders, [float("nan"), *values[1:]])


def test_wrong_settings_are_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, ["--user", "ann"]) == 2
    assert "user and password go together" in capsys.readouterr().err

"""`facegpt serve`, asked over HTTP by the real `openai` client and by hand, on a tiny model."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trimesh
from PIL import Image
from serve_client import data_url
from small_head import small_head, small_head_data
from talking_model import gray_image, talking_model

openai = pytest.importorskip("openai", reason="the openai package is not installed")
httpx = pytest.importorskip("httpx", reason="the httpx package is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the uvicorn package is not installed")
pytest.importorskip("fastapi", reason="the fastapi package is not installed")

from facegpt.chat import ChatSession, answer  # noqa: E402
from facegpt.commands import chat_picture, serve, serve_conversation, serve_faces, serve_queue  # noqa: E402
from facegpt.commands.serve import listen  # noqa: E402
from facegpt.commands.serve_answers import Service  # noqa: E402
from facegpt.commands.serve_app import make_app  # noqa: E402
from facegpt.commands.serve_queue import Job, ModelQueue, QueueFull  # noqa: E402
from facegpt.config import run  # noqa: E402
from facegpt.head.files.format import save_head  # noqa: E402
from facegpt.model.checkpoint import save_checkpoint  # noqa: E402
from facegpt.model.facegpt import FaceGPT  # noqa: E402
from facegpt.sample import FACE_TOKEN, Message, Sample  # noqa: E402

KEY = "open sesame"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FaceGPT:
    return talking_model(small_head(), tmp_path_factory.mktemp("serve") / "llava")


@pytest.fixture(scope="module", autouse=True)
def same_everywhere() -> Iterator[None]:
    """Small pictures of faces, and photographs as they are, whatever parts this machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve_faces, "PICTURE_SIZE", 32)
        patch.setattr(chat_picture, "missing_landmarker", lambda: "nobody finds faces here")
        yield


@pytest.fixture(scope="module")
def server(model: FaceGPT) -> Iterator[SimpleNamespace]:
    """A server on a free port: its address and its parts."""
    shelf = serve_faces.FaceShelf(small_head(), most=20)
    service = Service("tiny", ModelQueue(model), shelf, max_new_tokens=8)
    app = make_app(service, largest_body=200_000, key=KEY)
    place = listen("127.0.0.1", 0)
    runner = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [place]})
    thread.start()
    while not runner.started:
        time.sleep(0.01)
    yield SimpleNamespace(url=f"http://127.0.0.1:{place.getsockname()[1]}", app=app, service=service)
    runner.should_exit = True
    thread.join()
    assert not service.queue.thread.is_alive()


@pytest.fixture(scope="module")
def client(server: SimpleNamespace) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def http(server: SimpleNamespace) -> Iterator[Any]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=600) as client:
        yield client


def shown(text: str, *images: Image.Image) -> dict[str, Any]:
    pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return {"role": "user", "content": [{"type": "text", "text": text}, *pictures]}


def test_the_openai_client_gets_what_a_chat_gets_with_faces_that_can_be_taken_home(
    client: Any, model: FaceGPT
) -> None:
    session = ChatSession(model, max_new_tokens=5)
    expected = session.say("Show me the face.", gray_image())
    messages = [shown("Show me the face.", gray_image())]
    reply = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5)
    choice = reply.choices[0]
    assert choice.message.content == expected.text and choice.finish_reason == "length"
    assert reply.usage.completion_tokens == 5 and choice.message.notes == [
        "the picture goes in as it is: nobody finds faces here"
    ]
    assert len(choice.message.faces) == expected.text.count(FACE_TOKEN) > 0
    for face, truth, likely in zip(choice.message.faces, expected.faces, expected.probabilities, strict=True):
        said = torch.tensor([[number for group in face["parameters"].values() for number in group]])
        assert torch.allclose(said, truth.to_vector(), atol=1e-4)
        assert face["probability"] == pytest.approx(likely, abs=1e-4) and face["head_id"] == small_head().id
        mesh = trimesh.load_mesh(io.BytesIO(httpx.get(face["glb"]).content), "glb", process=False)
        vertices = small_head()(truth).vertices[0].numpy()
        assert abs(mesh.vertices[: len(vertices)] - vertices).max() < 1e-4
        assert Image.open(io.BytesIO(httpx.get(face["png"]).content)).size == (32, 32)
        rows = httpx.get(face["json"]).json()["coefficients"]
        assert [row["value"] for row in rows] == pytest.approx(said[0].tolist())
        assert b'"targets"' in httpx.get(f"{face['glb']}?rigged=true").content

    messages.append({"role": "assistant", "content": expected.text})
    messages.append({"role": "user", "content": "And now?"})
    second = client.chat.completions.create(model="tiny", messages=messages, max_completion_tokens=5)
    assert second.choices[0].message.content == session.say("And now?").text


def test_a_stream_joins_to_the_whole_reply_and_ends_with_its_faces(client: Any, model: FaceGPT) -> None:
    whole = ChatSession(model, max_new_tokens=8).say("Show me the face.")
    options = {"include_usage": True}
    messages = [{"role": "user", "content": "Show me the face."}]
    chunks = list(
        client.chat.completions.create(model="tiny", messages=messages, stream=True, stream_options=options)
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    pieces = [delta.content for delta in deltas if delta.content]
    assert "".join(pieces) == whole.text and len(pieces) > 1
    assert len(deltas[-1].faces) == len(whole.faces) and chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 8


def test_a_system_message_is_said_with_the_first_question(client: Any, model: FaceGPT) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    reply = client.chat.completions.create(model="tiny", messages=messages)
    assert reply.choices[0].message.content == ChatSession(model, 8).say("Be brief.\n\nWhy?").text


def test_draws_with_a_seed_repeat_whatever_else_is_asked(client: Any) -> None:
    def draw(seed: int | None) -> str:
        messages = [{"role": "user", "content": "Why?"}]
        made = client.chat.completions.create(model="tiny", messages=messages, temperature=2, seed=seed)
        return str(made.choices[0].message.content)

    alone = draw(7)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(draw, [7, None, 8, 7, None, 7]))
    assert [together[n] for n in (0, 3, 5)] == [alone] * 3
    assert len(set(together)) > 2


def test_clients_at_once_are_answered_in_few_batches_each_with_its_own_answer(
    client: Any, model: FaceGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(model: FaceGPT, samples: list[Sample], *rest: Any) -> Any:
        sizes.append(len(samples))
        return answer(model, samples, *rest)

    monkeypatch.setattr(serve_queue, "answer", counted)
    monkeypatch.setattr(serve_queue, "GATHER_SECONDS", 0.3)
    questions = [f"Show me the face of {'a' * n} person, please." for n in range(8)]

    def ask(number: int) -> str:
        messages = [{"role": "user", "content": questions[number]}]
        made = client.chat.completions.create(model="tiny", messages=messages, max_tokens=1 + number)
        return str(made.choices[0].message.content)

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask, range(8)))
    assert replies == [ChatSession(model, 1 + number).say(questions[number]).text for number in range(8)]
    assert sum(sizes) == 8 and len(sizes) <= 3


def test_faces_for_a_text_a_picture_or_both(http: Any, model: FaceGPT) -> None:
    expected = ChatSession(model, 8).say("Show me the 3D face of this person.", gray_image())
    reply = http.post("/v1/faces", json={"image": data_url(gray_image())}).json()
    assert reply["text"] == expected.text and len(reply["faces"]) == len(expected.faces)
    for form in ("glb", "rigged"):
        made = http.post("/v1/faces", json={"text": "Show me the face.", "format": form})
        assert made.headers["content-type"] == "model/gltf-binary" and made.content[:4] == b"glTF"
    assert "nothing to say a face for" in http.post("/v1/faces", json={}).json()["error"]["message"]


def test_a_broken_host_header_harms_nobody(http: Any) -> None:
    for host in ("[::", "a b", "x" * 5000):
        reply = http.post("/v1/faces", json={"text": "Show me the face."}, headers={"Host": host})
        assert reply.status_code in (200, 400)


def test_the_oldest_faces_are_forgotten(http: Any) -> None:
    first = http.post("/v1/faces", json={"text": "Show me the face."}).json()["faces"][0]
    assert httpx.get(first["json"]).status_code == 200
    for _ in range(20):
        http.post("/v1/faces", json={"text": "Show me the face.", "max_tokens": 1})
    assert httpx.get(first["json"]).status_code == 404


BOMB = base64.b64encode(b"BM" + bytes(16) + (60000).to_bytes(4, "little") * 2 + bytes(40)).decode()


@pytest.mark.parametrize(
    ("body", "says", "status"),
    [
        ({"model": "gpt-4o"}, "there is no model 'gpt-4o'; this server has 'tiny'", 404),
        ({"messages": []}, "messages", 400),
        ({"messages": [{"role": "user", "content": " "}]}, "the message is empty", 400),
        ({"messages": [{"role": "user", "content": "<image> Who?"}]}, "spells <image>", 400),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "must alternate user and assistant", 400),
        ({"messages": [{"role": "user", "content": "word " * 500}]}, "the model's context is", 400),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "unicode", 400),
        ({"n": 2}, "body.n", 400),
        ({"temperature": float("nan")}, "temperature", 400),
        ({"max_tokens": 0}, "max_tokens", 400),
        ({"tools": [{}]}, "tools", 400),
        ({"url": "https://example.org/face.jpg"}, "nothing is fetched from an address", 400),
        ({"url": "file:///etc/passwd"}, "is no data URL", 400),
        ({"url": "data:image/png;base64,????"}, "its base64 is broken", 400),
        ({"url": "data:image/png;base64,AAAA"}, "cannot be decoded", 400),
        ({"url": f"data:image/bmp;base64,{BOMB}"}, "the picture: ", 400),
        ({"url": "x" * 300_000}, "larger than 200,000 bytes", 413),
    ],
)
def test_a_bad_request_is_one_sentence_in_openais_form(
    http: Any, body: dict[str, Any], says: str, status: int
) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 2, **body}
    if url := asked.pop("url", None):
        picture = {"type": "image_url", "image_url": {"url": url}}
        asked["messages"] = [{"role": "user", "content": [{"type": "text", "text": "Who?"}, picture]}]
    for streaming in (False, True):
        content, kind = json.dumps({**asked, "stream": streaming}), {"Content-Type": "application/json"}
        reply = http.post("/v1/chat/completions", content=content, headers=kind)
        assert reply.status_code == status, reply.text
        error = reply.json()["error"]
        assert says in error["message"] and "\n" not in error["message"] and error["type"]


def test_a_body_without_a_length_is_cut_off_as_well(http: Any) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 4096

    reply = http.post("/v1/faces", content=blocks(), headers={"Content-Type": "application/json"})
    assert reply.status_code == 413 and "smaller picture" in reply.json()["error"]["message"]


def test_a_photograph_is_turned_upright_before_it_is_shown() -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    file = io.BytesIO()
    image.save(file, "jpeg", exif=exif)
    url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    assert serve_conversation.read_data_url(url, "the picture")[0].size == (20, 40)


def test_only_who_has_the_key_may_ask(server: SimpleNamespace) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
        reply = httpx.post(f"{server.url}/v1/faces", json={"text": "Who?"}, headers=headers)
        assert reply.status_code == 401 and "API key" in reply.json()["error"]["message"]
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 401
    assert httpx.get(f"{server.url}/v1/faces/{'x' * 22}.glb").status_code == 404
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong").models.list()


def test_status_models_and_schema(client: Any, server: SimpleNamespace) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    for path in ("/health", "/ready"):
        assert httpx.get(server.url + path).json() == {"status": "ok", "waiting": 0}
    schema = httpx.get(f"{server.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/faces", "/v1/faces/{file}"} <= schema["paths"].keys()
    assert "faces" in schema["components"]["schemas"]["AnswerMessage"]["properties"]


def job(text: str = "Why?", **more: Any) -> Job:
    return Job(Sample("job", "test", [Message("user", text)]), 4, **more)


def test_a_full_queue_refuses_and_a_closed_one_lets_nobody_wait(
    model: FaceGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(serve_queue, "answer", lambda *args: go_on.wait() and answer(*args))
    queue = ModelQueue(model, batch=1, largest=2)
    jobs = [job()]
    queue.submit(jobs[0])
    while queue.waiting:
        time.sleep(0.01)
    jobs += [job(), job()]
    for more in jobs[1:]:
        queue.submit(more)
    with pytest.raises(QueueFull, match="2 requests waiting"):
        queue.submit(job())
    closing = threading.Thread(target=queue.close)
    closing.start()
    with pytest.raises(QueueFull, match="going down"):
        jobs[2].future.result(timeout=600)
    go_on.set()
    closing.join()
    assert jobs[0].future.result(timeout=0).turn.text == ChatSession(model, 4).say("Why?").text


def test_who_has_gone_is_not_waited_for_and_a_failure_is_not_everybodys(
    model: FaceGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = ModelQueue(model)
    left = job()
    left.max_new_tokens, left.on_text = 10_000, lambda piece: setattr(left, "gone", True)
    queue.submit(left)
    assert left.future.result(timeout=600).tokens < 10
    monkeypatch.setattr(serve_queue, "answer", lambda *args: 1 / 0)
    broken = job()
    queue.submit(broken)
    with pytest.raises(ZeroDivisionError):
        broken.future.result(timeout=600)
    monkeypatch.undo()
    queue.submit(fine := job())
    assert fine.future.result(timeout=600).tokens
    queue.close()


def test_the_command_serves_and_on_sigterm_lets_what_is_being_said_end(
    model: FaceGPT, tmp_path: Path
) -> None:
    save_head(small_head_data(), tmp_path / "head.npz")
    save_checkpoint(model, tmp_path / "run", small_head().id)
    command = [sys.executable, "-m", "facegpt", "serve", "--port", "0", "--device", "cpu"]
    command += ["--checkpoint", str(tmp_path / "run"), "--head", str(tmp_path / "head.npz")]
    command += ["--drain-seconds", "600"]  # however busy the machine
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = server.stdout.readline().split()[3].rstrip(",")
        messages = [{"role": "user", "content": "Show me the face."}]
        body = {"model": "facegpt", "messages": messages, "stream": True}
        with httpx.stream("POST", f"{address}/chat/completions", json=body, timeout=600) as reply:
            lines = reply.iter_lines()
            assert next(lines).startswith("data: {")
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]" and '"faces": [{' in rest[-2]
        assert server.wait(timeout=600) in (0, -signal.SIGTERM)


def test_what_keeps_a_server_from_starting_is_one_sentence(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = server.url.rpartition(":")[2]
    assert run(serve.main, ["--port", port]) == 1
    assert f"127.0.0.1 port {port} cannot be listened on" in capsys.readouterr().err
    assert run(serve.main, ["--port", "70000"]) == run(serve.main, ["--max-body-mb", "nan"]) == 2
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert run(serve.main, []) == 1
    assert "pip install 'facegpt[serve]'" in capsys.readouterr().err.splitlines()[-1]
